//! The phases of the HTTP scenario.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jsonwebtoken::Algorithm;

use super::body::LargeDocument;
use super::requests::{RequestMethod, RequestSet};
use super::server::Server;
use super::{client, tokens, wrk};
use crate::contender::Contender;
use crate::documents::DocumentGenerator;
use crate::meter::ResourceMeter;
use crate::phase_result::{PhaseTiming, latency_histogram};
use crate::run::scenario_run::ScenarioRun;
use crate::scenario::{
    DOCUMENTS, GET_CONNECTIONS, LARGE_BYTES, LARGE_GET_CONNECTIONS, PUT_CONNECTIONS, VALUE_BYTES,
};
use crate::{Result, syncs};

/// Number of starts that the start time is averaged over.
const STARTS: u64 = 5;
/// Number of concurrent large puts.
const UPLOADS: u64 = 16;
/// Number of values in each large put.
const UPLOAD_KEYS: usize = 10;
/// Number of different documents that the puts use in turn, as in the scenarios for engines.
const BODIES: usize = 16;

impl ScenarioRun<'_> {
    /// Runs the HTTP scenario.
    pub(crate) fn run_http(&mut self) -> Result<()> {
        std::fs::create_dir_all(self.dir)?;
        wrk::check_installed()?;
        let tokens = if self.contender.stores_documents() {
            tokens::sign(Algorithm::ES256, DOCUMENTS)?
        } else {
            Vec::new()
        };
        if !self.size.puts_only {
            self.small_gets(&tokens)?;
        }
        if self.contender.stores_documents() {
            self.small_puts(tokens)?;
        }
        if self.size.puts_only {
            return Ok(());
        }
        if self.contender != Contender::Hyper {
            self.large_documents()?;
        }
        if self.contender == Contender::Prefd {
            self.start_time()?;
            self.concurrent_uploads()?;
        }
        Ok(())
    }

    /// Gets documents of 1 KiB. The server runs one worker thread, so the figures are those of
    /// one thread.
    fn small_gets(&mut self, tokens: &[String]) -> Result<()> {
        let server = self.start(Some(1))?;
        let body = bodies(VALUE_BYTES, 1);
        let one = |algorithm| tokens::sign(algorithm, 1);
        let hot = RequestSet::new(
            self.contender,
            RequestMethod::Get,
            one(Algorithm::RS256)?,
            body,
        );
        let body = bodies(VALUE_BYTES, BODIES);
        let spread = RequestSet::new(self.contender, RequestMethod::Get, tokens.to_vec(), body);
        // The hot document is one of the others too, and its text is the same in both sets.
        server.store_documents(&spread)?;
        server.store_documents(&hot)?;
        let name = |what| format!("HTTP GET 1 KiB, {GET_CONNECTIONS} connections, {what}");
        self.run_wrk(&server, &name("RS256"), GET_CONNECTIONS, &hot)?;
        if !self.contender.stores_documents() {
            return Ok(());
        }
        if self.contender == Contender::Prefd {
            let hot = hot.with_tokens(one(Algorithm::ES256)?);
            self.run_wrk(&server, &name("ES256"), GET_CONNECTIONS, &hot)?;
        }
        let name = name("10,000 namespaces, ES256");
        self.run_wrk(&server, &name, GET_CONNECTIONS, &spread)
    }

    /// Puts documents of 1 KiB durably.
    fn small_puts(&mut self, tokens: Vec<String>) -> Result<()> {
        let server = self.start(None)?;
        let body = bodies(VALUE_BYTES, BODIES);
        let puts = RequestSet::new(self.contender, RequestMethod::Put, tokens, body);
        for connections in PUT_CONNECTIONS {
            let plural = if *connections == 1 { "" } else { "s" };
            let name = format!("HTTP durable PUT 1 KiB, {connections} connection{plural}, ES256");
            self.run_wrk(&server, &name, *connections, &puts)?;
        }
        let is_left_out = self.size.short || self.size.puts_only;
        if self.contender != Contender::Prefd || is_left_out {
            return Ok(());
        }
        let puts = puts.with_tokens(tokens::sign(Algorithm::RS256, DOCUMENTS)?);
        let name = "HTTP durable PUT 1 KiB, 64 connections, RS256";
        self.run_wrk(&server, name, 64, &puts)
    }

    /// Puts and gets documents of 10 MiB.
    fn large_documents(&mut self) -> Result<()> {
        let server = self.start(None)?;
        let body = bodies(LARGE_BYTES, 1);
        let get = RequestSet::new(
            self.contender,
            RequestMethod::Get,
            tokens::sign(Algorithm::RS256, 1)?,
            body,
        );
        server.store_documents(&get)?;
        if self.contender.stores_documents() {
            let put = get.with_method(RequestMethod::Put);
            self.run_wrk(&server, "HTTP durable PUT 10 MiB, 1 connection", 1, &put)?;
        }
        let name = format!("HTTP GET 10 MiB, {LARGE_GET_CONNECTIONS} connections");
        self.run_wrk(&server, &name, LARGE_GET_CONNECTIONS, &get)
    }

    /// Measures the time from the start of the process to the line that says where the server
    /// listens, and the memory of a server that has received no request.
    fn start_time(&mut self) -> Result<()> {
        let mut latencies = latency_histogram()?;
        let mut sum = Duration::ZERO;
        for start in 1..=STARTS {
            let dir = self.empty_dir()?;
            let began = Instant::now();
            let server = Server::start(self.contender, &dir, None, self.prefd)?;
            let duration = began.elapsed();
            latencies.saturating_record(duration.as_nanos() as u64);
            sum += duration;
            if start == STARTS {
                let timing = PhaseTiming::new(STARTS, sum.as_secs_f64(), &latencies);
                let meter = ResourceMeter::start(server.root_pids()?)?;
                self.record("HTTP start, empty", 0, timing, &meter)?;
            }
        }
        Ok(())
    }

    /// Sends 16 puts of 100 MB at the same time, and measures the memory of the server.
    fn concurrent_uploads(&mut self) -> Result<()> {
        let server = self.start(None)?;
        let upload = LargeDocument::new(UPLOAD_KEYS, self.size.upload_value_bytes);
        let tokens = tokens::sign(Algorithm::ES256, UPLOADS)?;
        let puts = RequestSet::new(self.contender, RequestMethod::Put, tokens, Vec::new());
        let mut latencies = latency_histogram()?;
        let meter = ResourceMeter::start(server.root_pids()?)?;
        let began = Instant::now();
        for duration in client::put_large(server.address(), &puts, &upload)? {
            latencies.saturating_record(duration.as_nanos() as u64);
        }
        let timing = PhaseTiming::new(UPLOADS, began.elapsed().as_secs_f64(), &latencies);
        let name = format!("HTTP {UPLOADS} PUTs of 100 MB at once");
        self.record(&name, upload.len(), timing, &meter)
    }

    /// Starts a server without documents. With `workers` of `None`, the server runs its default
    /// number of worker threads.
    fn start(&self, workers: Option<usize>) -> Result<Server> {
        Server::start(self.contender, &self.empty_dir()?, workers, self.prefd)
    }

    /// Creates an empty folder for a server. Removes the data of the previous server, so that
    /// its disk space is not counted.
    fn empty_dir(&self) -> Result<PathBuf> {
        let dir = self.dir.join("server");
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// Runs wrk for the duration of a phase, records the result, and then checks one document.
    fn run_wrk(
        &mut self,
        server: &Server,
        name: &str,
        connections: usize,
        requests: &RequestSet,
    ) -> Result<()> {
        let input = wrk::WrkInput::new(requests)?;
        let seconds = self.size.http_seconds;
        syncs::mark_begin();
        let meter = ResourceMeter::start(server.root_pids()?)?;
        let timing = input.run(server.address(), connections, seconds)?;
        self.record(name, requests.body_bytes(), timing, &meter)?;
        syncs::mark_end();
        client::check(server.address(), requests)
    }
}

/// Generates `count` documents of `bytes` bytes.
fn bodies(bytes: usize, count: usize) -> Vec<Bytes> {
    let mut documents = DocumentGenerator::new(bytes, 1);
    let mut body = || Bytes::copy_from_slice(documents.next_document());
    (0..count).map(|_| body()).collect()
}
