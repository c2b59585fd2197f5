//! Runs one workload of the benchmark: threads repeat an action, and the latencies are recorded.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::commands::bench::document;
use crate::commands::error::CommandError;
use crate::io_error::io_error;
use crate::store::{BlockingStore, Durability, Namespace};

/// The action that a workload repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Append to a plain file, and sync the file after each append.
    Append,
    DurablePut,
    BufferedPut,
    Get,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    action: Action,
    pub(super) bytes: usize,
    pub(super) threads: usize,
}

/// The result of a workload.
pub(super) struct Measurement {
    pub(super) operations: u64,
    pub(super) seconds: f64,
    /// Latencies in nanoseconds.
    latencies: Histogram<u64>,
}

/// Maximum number of documents in a workload.
const MAX_DOCUMENTS: usize = 1000;
/// Maximum total size of the documents in a workload, in bytes. Puts replace the documents of a
/// workload repeatedly, and compaction reclaims the space of the old versions.
const MAX_DOCUMENTS_BYTES: usize = 64 * 1024 * 1024;
/// Length limit of the plain file, in bytes. When the plain file exceeds this length, it is
/// truncated to 0 bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// Maximum latency that is recorded: ten minutes. Longer latencies are recorded as ten minutes.
const MAX_LATENCY_NANOS: u64 = 600_000_000_000;
/// One of every `GETS_PER_TIMING` reads is timed. Reading the clock takes a significant part of the
/// time of a read from memory, so timing every read would distort the result.
const GETS_PER_TIMING: u64 = 16;

impl Workload {
    pub(super) fn new(name: &'static str, action: Action, bytes: usize, threads: usize) -> Self {
        Self {
            name,
            action,
            bytes,
            threads,
        }
    }

    pub(super) fn megabytes(&self) -> f64 {
        to_f64(self.bytes as u64) / 1e6
    }

    fn documents(&self) -> usize {
        (MAX_DOCUMENTS_BYTES / self.bytes).clamp(1, MAX_DOCUMENTS)
    }

    fn user(&self) -> String {
        format!("bench-{}", self.bytes)
    }
}

impl Measurement {
    pub(super) fn per_second(&self) -> f64 {
        to_f64(self.operations) / self.seconds
    }

    pub(super) fn micros(&self, quantile: f64) -> f64 {
        to_f64(self.latencies.value_at_quantile(quantile)) / 1e3
    }
}

#[allow(clippy::cast_precision_loss, reason = "only a few digits are printed")]
fn to_f64(count: u64) -> f64 {
    count as f64
}

/// Creates a histogram with a precision of three significant digits.
fn latencies() -> Result<Histogram<u64>, CommandError> {
    Ok(Histogram::new_with_bounds(1, MAX_LATENCY_NANOS, 3)?)
}

fn record(latencies: &mut Histogram<u64>, took: Duration) {
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    latencies.saturating_record(nanos);
}

/// Repeatedly appends to a plain file and syncs the file. The result shows the speed of the disk
/// without the store.
pub(super) fn append(
    path: &Path,
    workload: &Workload,
    time: Duration,
) -> Result<Measurement, CommandError> {
    let file = File::create(path).map_err(io_error("create", path))?;
    let body = document::generate(workload.bytes, 1);
    let mut latencies = latencies()?;
    let (begun, mut operations, mut end) = (Instant::now(), 0, 0);
    while operations == 0 || begun.elapsed() < time {
        let started = Instant::now();
        file.write_all_at(body.as_bytes(), end)
            .map_err(io_error("write", path))?;
        file.sync_data().map_err(io_error("sync", path))?;
        record(&mut latencies, started.elapsed());
        operations += 1;
        end += body.len() as u64;
        if end > MAX_FILE_BYTES {
            file.set_len(0).map_err(io_error("truncate", path))?;
            end = 0;
        }
    }
    Ok(Measurement {
        operations,
        seconds: begun.elapsed().as_secs_f64(),
        latencies,
    })
}

/// Runs a workload on the store. Blocks until all threads have ended.
pub(super) fn run(
    store: &BlockingStore,
    workload: &Workload,
    time: Duration,
) -> Result<Measurement, CommandError> {
    if workload.action == Action::Get {
        fill(store, workload)?;
    }
    let barrier = Barrier::new(workload.threads);
    let workers: Vec<Result<Measurement, CommandError>> = std::thread::scope(|scope| {
        let barrier = &barrier;
        let threads: Vec<_> = (0..workload.threads)
            .map(|thread| scope.spawn(move || worker(store, workload, thread, time, barrier)))
            .collect();
        let joined = threads
            .into_iter()
            .map(|t| t.join().map_err(|_| CommandError::ThreadPanicked));
        joined.map(Result::flatten).collect()
    });
    let mut sum = Measurement {
        operations: 0,
        seconds: 0.0,
        latencies: latencies()?,
    };
    for measurement in workers {
        let measurement = measurement?;
        sum.operations += measurement.operations;
        sum.seconds = sum.seconds.max(measurement.seconds);
        sum.latencies.add(&measurement.latencies)?;
    }
    Ok(sum)
}

/// Stores the documents of the workload that do not exist yet, and reads each new document once.
fn fill(store: &BlockingStore, workload: &Workload) -> Result<(), CommandError> {
    let body = document::generate(workload.bytes, 1);
    for client in 0..workload.documents() {
        let (user, client) = (&*workload.user(), &*client.to_string());
        let namespace = Namespace { user, client };
        if store.get(namespace)?.is_none() {
            store.put(namespace, body.as_bytes(), Durability::Buffered)?;
            let _ = store.get(namespace)?;
        }
    }
    Ok(())
}

fn worker(
    store: &BlockingStore,
    workload: &Workload,
    thread: usize,
    time: Duration,
    barrier: &Barrier,
) -> Result<Measurement, CommandError> {
    let (user, documents) = (workload.user(), workload.documents());
    let body = document::generate(workload.bytes, thread as u64 + 1);
    let clients: Vec<String> = (0..documents).map(|client| client.to_string()).collect();
    let latencies = latencies();
    // The other threads wait at the barrier for this thread, so an error is returned only after the
    // barrier.
    barrier.wait();
    let mut latencies = latencies?;
    let (begun, mut operations) = (Instant::now(), 0_u64);
    // The threads start at documents that are spread evenly over the workload.
    let first = thread * documents / workload.threads;
    for client in clients.iter().cycle().skip(first) {
        let is_timed = workload.action != Action::Get || operations.is_multiple_of(GETS_PER_TIMING);
        let started = is_timed.then(Instant::now);
        let namespace = Namespace {
            user: user.as_str(),
            client: client.as_str(),
        };
        let put = |durability| store.put(namespace, body.as_bytes(), durability);
        match workload.action {
            Action::DurablePut => put(Durability::Sync)?,
            Action::BufferedPut => put(Durability::Buffered)?,
            Action::Get => {
                let document = store.get(namespace)?;
                match document
                    .as_ref()
                    .map(|document| (document, document.in_memory()))
                {
                    None => {}
                    Some((_, Some(body))) => touch(body),
                    Some((document, None)) => {
                        for chunk in document.chunks() {
                            touch(&chunk?);
                        }
                    }
                }
            }
            Action::Append => {}
        }
        operations += 1;
        if let Some(started) = started {
            record(&mut latencies, started.elapsed());
            if begun.elapsed() >= time {
                break;
            }
        }
    }
    Ok(Measurement {
        operations,
        seconds: begun.elapsed().as_secs_f64(),
        latencies,
    })
}

/// Reads one of every 64 bytes, so that the measured time includes the transfer from memory.
fn touch(bytes: &[u8]) {
    let sum: u64 = bytes.iter().step_by(64).map(|b| u64::from(*b)).sum();
    std::hint::black_box(sum);
}
