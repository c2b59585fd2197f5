//! The HTTP scenario: servers, each asked the same by wrk over loopback, as one that
//! keeps documents or one that only serves what it has; and what prefd takes to start,
//! and for many large puts at once.
//!
//! - `server` starts a server in a folder of its own and ends it; `nginx`, `webdis`,
//!   `prefd` and `constant` say how each is set up.
//! - `requests` says what is asked of whom, `tokens` signs what goes with it.
//! - `wrk` asks as fast as it can; `client` does what need not be fast: it puts the
//!   documents that are got afterwards, and looks at what comes back.
//!
//! What is to be got is put before wrk first asks a server: see `client` on webdis.
//!
//! Every server is sent the same heads, tokens included, though prefd alone looks at
//! them. Neither wrk nor this process is counted in what a server has used.

mod client;
pub(crate) mod constant;
mod nginx;
mod prefd;
mod requests;
mod server;
mod tokens;
mod webdis;
mod wrk;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jsonwebtoken::Algorithm;

use crate::Result;
use crate::contender::Contender;
use crate::documents::DocumentGenerator;
use crate::play::{PhaseTiming, ResourceMeter, ScenarioRun};
use crate::scenario::{
    DOCUMENTS, GET_CONNECTIONS, LARGE_BYTES, LARGE_GET_CONNECTIONS, PUT_CONNECTIONS, VALUE_BYTES,
};
use client::LargeDocument;
use requests::{RequestMethod, RequestSet};
use server::Server;

/// Servers that are started to find out how long that takes.
const STARTS: u64 = 5;
/// Puts at once that are to leave memory as it is, and the values that each brings.
const UPLOADS: u64 = 16;
const UPLOAD_KEYS: usize = 10;
/// Bodies that puts take in turn: as many as a storage engine is given.
const BODIES: usize = 16;
/// Longest latency that is told apart, in nanoseconds.
const MAX_LATENCY: u64 = 600_000_000_000;

impl ScenarioRun<'_> {
    /// Plays the scenario.
    pub(crate) fn http(&mut self) -> Result<()> {
        std::fs::create_dir_all(self.dir)?;
        wrk::find()?;
        let many = if self.contender.keeps_documents() {
            tokens::sign(Algorithm::ES256, DOCUMENTS)?
        } else {
            Vec::new()
        };
        if !self.size.puts_only {
            self.small_gets(&many)?;
        }
        if self.contender.keeps_documents() {
            self.small_puts(many)?;
        }
        if self.size.puts_only {
            return Ok(());
        }
        if self.contender != Contender::Hyper {
            self.large()?;
        }
        if self.contender == Contender::Prefd {
            self.starts()?;
            self.uploads()?;
        }
        Ok(())
    }

    /// By one worker thread, so that it is known what one can do.
    fn small_gets(&mut self, many: &[String]) -> Result<()> {
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
        let spread = RequestSet::new(self.contender, RequestMethod::Get, many.to_vec(), body);
        // The hot document last: it is one of the others, too, with the same text.
        server.keep(&spread)?;
        server.keep(&hot)?;
        let name = |what| format!("HTTP GET 1 KiB, {GET_CONNECTIONS} connections, {what}");
        self.load(&server, &name("RS256"), GET_CONNECTIONS, &hot)?;
        if !self.contender.keeps_documents() {
            return Ok(());
        }
        if self.contender == Contender::Prefd {
            let hot = hot.with_tokens(one(Algorithm::ES256)?);
            self.load(&server, &name("ES256"), GET_CONNECTIONS, &hot)?;
        }
        let name = name("10,000 namespaces, ES256");
        self.load(&server, &name, GET_CONNECTIONS, &spread)
    }

    fn small_puts(&mut self, many: Vec<String>) -> Result<()> {
        let server = self.start(None)?;
        let body = bodies(VALUE_BYTES, BODIES);
        let puts = RequestSet::new(self.contender, RequestMethod::Put, many, body);
        for connections in PUT_CONNECTIONS {
            let plural = if *connections == 1 { "" } else { "s" };
            let name = format!("HTTP durable PUT 1 KiB, {connections} connection{plural}, ES256");
            self.load(&server, &name, *connections, &puts)?;
        }
        let is_left_out = self.size.short || self.size.puts_only;
        if self.contender != Contender::Prefd || is_left_out {
            return Ok(());
        }
        let puts = puts.with_tokens(tokens::sign(Algorithm::RS256, DOCUMENTS)?);
        let name = "HTTP durable PUT 1 KiB, 64 connections, RS256";
        self.load(&server, name, 64, &puts)
    }

    fn large(&mut self) -> Result<()> {
        let server = self.start(None)?;
        let body = bodies(LARGE_BYTES, 1);
        let get = RequestSet::new(
            self.contender,
            RequestMethod::Get,
            tokens::sign(Algorithm::RS256, 1)?,
            body,
        );
        server.keep(&get)?;
        if self.contender.keeps_documents() {
            let put = get.to(RequestMethod::Put);
            self.load(&server, "HTTP durable PUT 10 MiB, 1 connection", 1, &put)?;
        }
        let name = format!("HTTP GET 10 MiB, {LARGE_GET_CONNECTIONS} connections");
        self.load(&server, &name, LARGE_GET_CONNECTIONS, &get)
    }

    /// The time from nothing to the line that says where the server listens, and the
    /// memory of one that nobody has asked anything.
    fn starts(&mut self) -> Result<()> {
        let mut latencies = Histogram::new_with_bounds(1, MAX_LATENCY, 3)?;
        let mut sum = Duration::ZERO;
        for start in 1..=STARTS {
            let dir = self.fresh_dir()?;
            let began = Instant::now();
            let server = Server::start(self.contender, &dir, None, self.prefd)?;
            let took = began.elapsed();
            latencies.saturating_record(took.as_nanos() as u64);
            sum += took;
            if start == STARTS {
                let done = PhaseTiming::new(STARTS, sum.as_secs_f64(), &latencies);
                let meter = ResourceMeter::of(server.roots()?)?;
                self.outcome("HTTP start, empty", 0, done, &meter)?;
            }
        }
        Ok(())
    }

    fn uploads(&mut self) -> Result<()> {
        let server = self.start(None)?;
        let upload = LargeDocument::new(UPLOAD_KEYS, self.size.upload_value_bytes);
        let tokens = tokens::sign(Algorithm::ES256, UPLOADS)?;
        let puts = RequestSet::new(self.contender, RequestMethod::Put, tokens, Vec::new());
        let mut latencies = Histogram::new_with_bounds(1, MAX_LATENCY, 3)?;
        let meter = ResourceMeter::of(server.roots()?)?;
        let began = Instant::now();
        for took in client::upload(server.address(), &puts, &upload)? {
            latencies.saturating_record(took.as_nanos() as u64);
        }
        let done = PhaseTiming::new(UPLOADS, began.elapsed().as_secs_f64(), &latencies);
        let name = format!("HTTP {UPLOADS} PUTs of 100 MB at once");
        self.outcome(&name, upload.len(), done, &meter)
    }

    /// A server with this many worker threads, or as many as it likes, and no documents.
    fn start(&self, workers: Option<usize>) -> Result<Server> {
        Server::start(self.contender, &self.fresh_dir()?, workers, self.prefd)
    }

    /// What an earlier server of this play has left is removed, so that the disk that is
    /// counted is that of one.
    fn fresh_dir(&self) -> Result<PathBuf> {
        let dir = self.dir.join("server");
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir(&dir)?;
        Ok(dir)
    }

    /// Has wrk ask for as long as a phase takes, and looks at one document afterwards.
    fn load(
        &mut self,
        server: &Server,
        name: &str,
        connections: usize,
        requests: &RequestSet,
    ) -> Result<()> {
        let files = wrk::WrkInput::of(requests)?;
        let seconds = self.size.http_seconds;
        crate::syncs::mark_begin();
        let meter = ResourceMeter::of(server.roots()?)?;
        let done = files.run(server.address(), connections, seconds)?;
        self.outcome(name, requests.body_bytes(), done, &meter)?;
        crate::syncs::mark_end();
        client::check(server.address(), requests)
    }
}

fn bodies(bytes: usize, count: usize) -> Vec<bytes::Bytes> {
    let mut documents = DocumentGenerator::new(bytes, 1);
    let mut body = || bytes::Bytes::copy_from_slice(documents.next_document());
    (0..count).map(|_| body()).collect()
}
