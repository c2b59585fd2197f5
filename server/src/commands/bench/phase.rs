//! One row: threads that do the same over and over, and how long each time took.

use std::fs::File;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::commands::bench::document;
use crate::commands::bench::error::BenchError;
use crate::store::{Bulk, Durability, Name};

/// What is done over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// To a file, synced each time.
    Append,
    DurablePut,
    PlainPut,
    Get,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Phase {
    pub(super) name: &'static str,
    act: Act,
    pub(super) bytes: usize,
    pub(super) threads: usize,
}

/// What a phase came to.
pub(super) struct Figures {
    pub(super) operations: u64,
    pub(super) seconds: f64,
    /// Nanoseconds.
    latencies: Histogram<u64>,
}

/// Documents that a phase goes over, at most, and what they take together: they are
/// replaced over and over, and compaction gives back what that leaves.
const MAX_DOCUMENTS: usize = 1000;
const MAX_DOCUMENTS_BYTES: usize = 64 * 1024 * 1024;
/// What a file is written to the same length again after.
const MAX_APPENDED_BYTES: u64 = 256 * 1024 * 1024;
/// Longer than this is not told apart: ten minutes.
const MAX_NANOS: u64 = 600_000_000_000;
/// Of short operations only some are timed, or the clock would be what is measured.
const TIMED_GETS: u64 = 16;

impl Phase {
    pub(super) fn new(name: &'static str, act: Act, bytes: usize, threads: usize) -> Self {
        Self {
            name,
            act,
            bytes,
            threads,
        }
    }

    pub(super) fn megabytes(&self) -> f64 {
        figure(self.bytes as u64) / 1e6
    }

    fn documents(&self) -> usize {
        (MAX_DOCUMENTS_BYTES / self.bytes).clamp(1, MAX_DOCUMENTS)
    }

    fn user(&self) -> String {
        format!("bench-{}", self.bytes)
    }
}

impl Figures {
    pub(super) fn per_second(&self) -> f64 {
        figure(self.operations) / self.seconds
    }

    pub(super) fn micros(&self, quantile: f64) -> f64 {
        figure(self.latencies.value_at_quantile(quantile)) / 1e3
    }
}

#[allow(clippy::cast_precision_loss, reason = "to be shown to some digits")]
fn figure(count: u64) -> f64 {
    count as f64
}

/// Of three digits.
fn latencies() -> Result<Histogram<u64>, BenchError> {
    Ok(Histogram::new_with_bounds(1, MAX_NANOS, 3)?)
}

fn record(latencies: &mut Histogram<u64>, took: Duration) {
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    latencies.saturating_record(nanos);
}

/// Appends to a file and syncs it, over and over: what the disk itself gives.
pub(super) fn append(path: &Path, phase: &Phase, time: Duration) -> Result<Figures, BenchError> {
    use std::os::unix::fs::FileExt;
    let at = |op| {
        move |source| BenchError::Io {
            op,
            path: path.to_owned(),
            source,
        }
    };
    let file = File::create(path).map_err(at("create"))?;
    let body = document::of(phase.bytes, 1);
    let mut latencies = latencies()?;
    let (begun, mut operations, mut end) = (Instant::now(), 0, 0);
    while operations == 0 || begun.elapsed() < time {
        let started = Instant::now();
        file.write_all_at(body.as_bytes(), end)
            .map_err(at("write"))?;
        file.sync_data().map_err(at("sync"))?;
        record(&mut latencies, started.elapsed());
        operations += 1;
        end += body.len() as u64;
        if end > MAX_APPENDED_BYTES {
            file.set_len(0).map_err(at("truncate"))?;
            end = 0;
        }
    }
    Ok(Figures {
        operations,
        seconds: begun.elapsed().as_secs_f64(),
        latencies,
    })
}

/// Plays a phase that the engine has a part in.
pub(super) fn run(store: &Bulk, phase: &Phase, time: Duration) -> Result<Figures, BenchError> {
    if phase.act == Act::Get {
        fill(store, phase)?;
    }
    let barrier = Barrier::new(phase.threads);
    let workers: Vec<Result<Figures, BenchError>> = std::thread::scope(|scope| {
        let barrier = &barrier;
        let threads: Vec<_> = (0..phase.threads)
            .map(|thread| scope.spawn(move || worker(store, phase, thread, time, barrier)))
            .collect();
        let joined = threads
            .into_iter()
            .map(|t| t.join().map_err(|_| BenchError::Panic));
        joined.map(Result::flatten).collect()
    });
    let mut sum = Figures {
        operations: 0,
        seconds: 0.0,
        latencies: latencies()?,
    };
    for figures in workers {
        let figures = figures?;
        sum.operations += figures.operations;
        sum.seconds = sum.seconds.max(figures.seconds);
        sum.latencies.add(&figures.latencies)?;
    }
    Ok(sum)
}

/// Sees to it that there is every document that is to be read, and reads each once.
fn fill(store: &Bulk, phase: &Phase) -> Result<(), BenchError> {
    let body = document::of(phase.bytes, 1);
    for client in 0..phase.documents() {
        let (user, client) = (&*phase.user(), &*client.to_string());
        let name = Name { user, client };
        if store.get(name)?.is_none() {
            store.put(name, body.as_bytes(), Durability::Buffered)?;
            let _ = store.get(name)?;
        }
    }
    Ok(())
}

fn worker(
    store: &Bulk,
    phase: &Phase,
    thread: usize,
    time: Duration,
    barrier: &Barrier,
) -> Result<Figures, BenchError> {
    let (user, documents) = (phase.user(), phase.documents());
    let body = document::of(phase.bytes, thread as u64 + 1);
    let clients: Vec<String> = (0..documents).map(|client| client.to_string()).collect();
    let latencies = latencies();
    // Before anything can fail: the others wait for this thread.
    barrier.wait();
    let mut latencies = latencies?;
    let (begun, mut operations) = (Instant::now(), 0_u64);
    // Each thread begins elsewhere.
    let first = thread * documents / phase.threads;
    for client in clients.iter().cycle().skip(first) {
        let is_timed = phase.act != Act::Get || operations.is_multiple_of(TIMED_GETS);
        let started = is_timed.then(Instant::now);
        let name = Name {
            user: &user,
            client,
        };
        let put = |durability| store.put(name, body.as_bytes(), durability);
        match phase.act {
            Act::DurablePut => put(Durability::Sync)?,
            Act::PlainPut => put(Durability::Buffered)?,
            Act::Get => {
                let document = store.get(name)?;
                match document
                    .as_ref()
                    .map(|document| (document, document.in_memory()))
                {
                    None => {}
                    Some((_, Some(body))) => look_at(body),
                    Some((document, None)) => {
                        for chunk in document.chunks() {
                            look_at(&chunk?);
                        }
                    }
                }
            }
            Act::Append => {}
        }
        operations += 1;
        if let Some(started) = started {
            record(&mut latencies, started.elapsed());
            if begun.elapsed() >= time {
                break;
            }
        }
    }
    Ok(Figures {
        operations,
        seconds: begun.elapsed().as_secs_f64(),
        latencies,
    })
}

/// Looks at each cache line: bytes that nobody looks at need not have come from memory.
fn look_at(bytes: &[u8]) {
    let sum: u64 = bytes.iter().step_by(64).map(|b| u64::from(*b)).sum();
    std::hint::black_box(sum);
}
