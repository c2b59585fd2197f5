//! One phase: its threads, each of which does the same over and over, and the latencies
//! of what they did.

use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::Result;
use crate::documents::{DocumentGenerator, Key};
use crate::play::PhaseTiming;
use crate::stores::{Session, Store};

/// How keys are drawn.
#[derive(Clone, Copy)]
pub(super) enum KeyDistribution {
    /// Each in turn, once.
    Sequential,
    Uniform,
    /// Zipf of exponent 0.99: some documents far more often than others.
    Zipf,
}

/// What a thread does over and over.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Operation {
    Put,
    Get,
    /// Either, as often.
    Mixed,
}

/// When a phase ends.
#[derive(Clone, Copy)]
pub(super) enum StopCondition {
    Seconds(f64),
    /// After so many operations, or at last after these seconds.
    Operations(u64, f64),
}

pub(super) struct Phase<'a> {
    pub(super) name: &'a str,
    pub(super) operation: Operation,
    pub(super) distribution: KeyDistribution,
    pub(super) documents: u64,
    pub(super) value_bytes: usize,
    pub(super) threads: usize,
    pub(super) until: StopCondition,
}

/// Of gets that take less than a microsecond only some are timed, or the clock would be
/// what is measured.
const TIMED_GETS: u64 = 16;
/// Longest latency that is told apart, in nanoseconds.
const MAX_LATENCY: u64 = 600_000_000_000;
/// What the threads of a phase did together.
pub(super) struct Run {
    pub(super) operations: u64,
    pub(super) seconds: f64,
    pub(super) latencies: Histogram<u64>,
}

impl Run {
    pub(super) fn done(&self) -> PhaseTiming {
        PhaseTiming::new(self.operations, self.seconds, &self.latencies)
    }

    /// One operation, that took so long.
    pub(super) fn of_one(took: Duration) -> Result<Self> {
        let mut latencies = Histogram::new_with_bounds(1, MAX_LATENCY, 3)?;
        latencies.saturating_record(took.as_nanos() as u64);
        Ok(Self {
            operations: 1,
            seconds: took.as_secs_f64(),
            latencies,
        })
    }
}

/// Plays a phase.
pub(super) fn run(store: &dyn Store, phase: &Phase<'_>) -> Result<Run> {
    let barrier = Barrier::new(phase.threads + 1);
    let runs = Mutex::new(Vec::new());
    let began = std::thread::scope(|scope| {
        for thread in 0..phase.threads {
            let (barrier, runs) = (&barrier, &runs);
            scope.spawn(move || {
                let done = worker(store, phase, thread, barrier);
                if let Ok(mut runs) = runs.lock() {
                    runs.push(done);
                }
            });
        }
        crate::syncs::mark_begin();
        barrier.wait();
        Instant::now()
    });
    // The scope has joined them.
    let seconds = began.elapsed().as_secs_f64();
    crate::syncs::mark_end();
    let mut sum = Run {
        operations: 0,
        seconds,
        latencies: Histogram::new_with_bounds(1, MAX_LATENCY, 3)?,
    };
    for run in runs.into_inner().map_err(|_| "a thread has panicked")? {
        let (operations, latencies) = run?;
        sum.operations += operations;
        sum.latencies.add(latencies)?;
    }
    Ok(sum)
}

fn worker(
    store: &dyn Store,
    phase: &Phase<'_>,
    thread: usize,
    barrier: &Barrier,
) -> Result<(u64, Histogram<u64>)> {
    // Whoever fails before the barrier must not keep the others waiting at it.
    let prepared = prepare(store, phase, thread);
    barrier.wait();
    prepared?.work(phase, thread)
}

/// A thread's own things.
struct Worker<'a> {
    session: Box<dyn Session + 'a>,
    documents: DocumentGenerator,
    random: SmallRng,
    zipf: Zipf<f64>,
    latencies: Histogram<u64>,
}

fn prepare<'a>(store: &'a dyn Store, phase: &Phase<'_>, thread: usize) -> Result<Worker<'a>> {
    let seed = thread as u64 + 1;
    Ok(Worker {
        session: store.session()?,
        documents: DocumentGenerator::new(phase.value_bytes, seed),
        random: SmallRng::seed_from_u64(seed),
        zipf: Zipf::new(phase.documents as f64, 0.99)?,
        latencies: Histogram::new_with_bounds(1, MAX_LATENCY, 3)?,
    })
}

impl Worker<'_> {
    fn work(mut self, phase: &Phase<'_>, thread: usize) -> Result<(u64, Histogram<u64>)> {
        let (most, seconds) = match phase.until {
            StopCondition::Seconds(seconds) => (u64::MAX, seconds),
            StopCondition::Operations(operations, seconds) => {
                (operations / phase.threads as u64, seconds)
            }
        };
        let deadline = Instant::now() + Duration::from_secs_f64(seconds);
        let mut key = Key::default();
        let mut done = 0;
        while done < most {
            key.set(self.next_key(phase, thread, done));
            let is_get = match phase.operation {
                Operation::Get => true,
                Operation::Put => false,
                Operation::Mixed => self.random.random_bool(0.5),
            };
            let is_timed = !is_get || done.is_multiple_of(TIMED_GETS);
            let began = is_timed.then(Instant::now);
            if is_get {
                self.get(&key, phase.value_bytes)?;
            } else {
                self.session.put(&key, self.documents.next_document())?;
            }
            done += 1;
            if let Some(began) = began {
                let now = Instant::now();
                self.latencies
                    .saturating_record((now - began).as_nanos() as u64);
                if now >= deadline {
                    break;
                }
            }
        }
        Ok((done, self.latencies))
    }

    fn next_key(&mut self, phase: &Phase<'_>, thread: usize, done: u64) -> u64 {
        let n = phase.documents;
        match phase.distribution {
            KeyDistribution::Sequential => (done * phase.threads as u64 + thread as u64) % n,
            KeyDistribution::Uniform => self.random.random_range(0..n),
            // Spread, so that those asked for often are no neighbours.
            KeyDistribution::Zipf => {
                let rank = self.zipf.sample(&mut self.random) as u64;
                rank.wrapping_mul(0x9E37_79B9_7F4A_7C15) % n
            }
        }
    }

    /// Gets a document, and looks at every cache line of it: an engine that hands out a
    /// map of its file has not read anything yet.
    fn get(&mut self, key: &Key, bytes: usize) -> Result<()> {
        let mut seen = 0;
        let mut sum = 0_u64;
        let found = self.session.get(key, &mut |piece| {
            seen += piece.len();
            sum += piece.iter().step_by(64).map(|b| u64::from(*b)).sum::<u64>();
        })?;
        std::hint::black_box(sum);
        if !found || seen != bytes {
            return Err(format!("{:?} has {seen} bytes, not {bytes}", key.user()).into());
        }
        Ok(())
    }
}
