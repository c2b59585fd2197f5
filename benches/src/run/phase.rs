//! Runs one phase: its threads repeat an operation, and record the latencies.

use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::Result;
use crate::documents::{DocumentGenerator, Key};
use crate::phase_result::{PhaseTiming, latency_histogram};
use crate::stores::{Session, Store};
use crate::syncs;

/// How the key of each operation is chosen.
#[derive(Clone, Copy)]
pub(super) enum KeyDistribution {
    /// All keys in order.
    Sequential,
    /// Each key with the same probability.
    Uniform,
    /// A Zipf distribution with exponent [`ZIPF_EXPONENT`]: a few keys are used far more often
    /// than the others.
    Zipf,
}

/// The operation that each thread repeats.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Operation {
    Put,
    Get,
    /// Gets and puts, each with a probability of one half.
    Mixed,
}

/// When a phase ends.
#[derive(Clone, Copy)]
pub(super) enum StopCondition {
    /// After this time.
    Seconds(f64),
    /// After this number of operations by all threads together, but at the latest after this
    /// time.
    Operations { count: u64, max_seconds: f64 },
}

/// The parameters of a phase.
pub(super) struct Phase<'a> {
    /// Name in the report. A phase without a name is not reported.
    pub(super) name: &'a str,
    pub(super) operation: Operation,
    pub(super) distribution: KeyDistribution,
    pub(super) documents: u64,
    pub(super) value_bytes: usize,
    pub(super) threads: usize,
    pub(super) until: StopCondition,
}

/// One in this number of gets is timed. A get can last less than a microsecond, so reading
/// the clock for each one would change the result.
const TIMED_GET_INTERVAL: u64 = 16;
/// The exponent that YCSB uses.
const ZIPF_EXPONENT: f64 = 0.99;
/// Size of a cache line in bytes.
const CACHE_LINE_BYTES: usize = 64;

/// Runs a phase and waits for its threads.
pub(super) fn run_phase(store: &dyn Store, phase: &Phase<'_>) -> Result<PhaseTiming> {
    let barrier = Barrier::new(phase.threads + 1);
    let results = Mutex::new(Vec::new());
    let began = std::thread::scope(|scope| {
        for thread in 0..phase.threads {
            let (barrier, results) = (&barrier, &results);
            scope.spawn(move || {
                let result = run_worker(store, phase, thread, barrier);
                if let Ok(mut results) = results.lock() {
                    results.push(result);
                }
            });
        }
        syncs::mark_begin();
        barrier.wait();
        Instant::now()
    });
    // All threads have ended, because the scope has joined them.
    let seconds = began.elapsed().as_secs_f64();
    syncs::mark_end();
    let mut operations = 0;
    let mut latencies = latency_histogram()?;
    let results = results.into_inner().map_err(|_| "a thread has panicked")?;
    for result in results {
        let (worker_operations, worker_latencies) = result?;
        operations += worker_operations;
        latencies.add(worker_latencies)?;
    }
    Ok(PhaseTiming::new(operations, seconds, &latencies))
}

/// Runs one thread. Returns the number of its operations and their latencies.
fn run_worker(
    store: &dyn Store,
    phase: &Phase<'_>,
    thread: usize,
    barrier: &Barrier,
) -> Result<(u64, Histogram<u64>)> {
    // A thread that fails here must still reach the barrier, or all others would wait forever.
    let worker = Worker::new(store, phase, thread);
    barrier.wait();
    worker?.run(phase, thread)
}

/// The state of one thread.
struct Worker<'a> {
    session: Box<dyn Session + 'a>,
    documents: DocumentGenerator,
    random: SmallRng,
    zipf: Zipf<f64>,
    latencies: Histogram<u64>,
}

impl<'a> Worker<'a> {
    fn new(store: &'a dyn Store, phase: &Phase<'_>, thread: usize) -> Result<Self> {
        let seed = thread as u64 + 1;
        Ok(Self {
            session: store.session()?,
            documents: DocumentGenerator::new(phase.value_bytes, seed),
            random: SmallRng::seed_from_u64(seed),
            zipf: Zipf::new(phase.documents as f64, ZIPF_EXPONENT)?,
            latencies: latency_histogram()?,
        })
    }
}

impl Worker<'_> {
    fn run(mut self, phase: &Phase<'_>, thread: usize) -> Result<(u64, Histogram<u64>)> {
        let (max_operations, seconds) = match phase.until {
            StopCondition::Seconds(seconds) => (u64::MAX, seconds),
            StopCondition::Operations { count, max_seconds } => {
                (count / phase.threads as u64, max_seconds)
            }
        };
        let deadline = Instant::now() + Duration::from_secs_f64(seconds);
        let mut key = Key::default();
        let mut done = 0;
        while done < max_operations {
            key.set(self.next_key(phase, thread, done));
            let is_get = match phase.operation {
                Operation::Get => true,
                Operation::Put => false,
                Operation::Mixed => self.random.random_bool(0.5),
            };
            let is_timed = !is_get || done.is_multiple_of(TIMED_GET_INTERVAL);
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
            // The multiplication spreads frequent keys, so that they are not neighbours.
            KeyDistribution::Zipf => {
                let rank = self.zipf.sample(&mut self.random) as u64;
                rank.wrapping_mul(0x9E37_79B9_7F4A_7C15) % n
            }
        }
    }

    /// Gets a document, and reads one of every 64 bytes of it. Without that, an engine that
    /// returns a pointer into its map of the file would not have read anything.
    fn get(&mut self, key: &Key, bytes: usize) -> Result<()> {
        let mut length = 0;
        let mut sum = 0_u64;
        let found = self.session.get(key, &mut |chunk| {
            length += chunk.len();
            sum += chunk
                .iter()
                .step_by(CACHE_LINE_BYTES)
                .map(|b| u64::from(*b))
                .sum::<u64>();
        })?;
        std::hint::black_box(sum);
        if !found || length != bytes {
            return Err(format!(
                "expected a document of {bytes} bytes for {:?}, found {length}",
                key.user()
            )
            .into());
        }
        Ok(())
    }
}
