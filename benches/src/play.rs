//! One process, one engine, one scenario: it plays it, and says what each phase came to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::documents::{Documents, Key};
use crate::measure::{self, Counters};
use crate::scenario::{
    BULK_SECONDS, CACHE_BYTES, DOCUMENTS, Extent, LARGE_CACHE_BYTES, MIX_THREADS, SIZES,
    SMALL_VALUE_BYTES, THREADS, Topic, VALUE_BYTES, WRITERS,
};
use crate::stores::{Engine, Options, Session, Store};

/// What a phase came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// The engine.
    pub engine: Engine,
    /// The phase.
    pub phase: String,
    /// Which repetition.
    pub round: u32,
    /// Operations done.
    pub operations: u64,
    /// Seconds that they took, all threads together.
    pub seconds: f64,
    /// Bytes of documents that went in or out.
    pub document_bytes: u64,
    /// Latency in microseconds that half of the operations stayed within, of those that
    /// were timed.
    pub p50_us: f64,
    /// The same for 99 in 100.
    pub p99_us: f64,
    /// The same for 999 in 1000.
    pub p999_us: f64,
    /// Seconds of the processor.
    pub cpu_seconds: f64,
    /// Bytes written to the disk.
    pub written_bytes: u64,
    /// Resident memory at its end, in bytes.
    pub rss_bytes: u64,
    /// Of that what is no page of a file.
    pub anonymous_bytes: u64,
    /// Bytes of the folder on the disk at its end.
    pub disk_bytes: u64,
    /// Of that what is in folders of it, by their names.
    pub folders: BTreeMap<String, u64>,
}

impl Outcome {
    /// Operations in a second.
    pub fn throughput(&self) -> f64 {
        self.operations as f64 / self.seconds.max(1e-9)
    }
}

/// How keys are drawn.
#[derive(Clone, Copy)]
enum Draw {
    /// Each in turn, once.
    Each,
    Uniform,
    /// Zipf of exponent 0.99: some documents far more often than others.
    Zipf,
}

/// What a thread does over and over.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    Put,
    Get,
    /// Either, as often.
    Both,
}

/// When a phase ends.
#[derive(Clone, Copy)]
enum Until {
    Seconds(f64),
    /// After so many operations, or at last after these seconds.
    Done(u64, f64),
}

struct Phase<'a> {
    name: &'a str,
    act: Act,
    draw: Draw,
    documents: u64,
    value_bytes: usize,
    threads: usize,
    until: Until,
}

/// Of gets that take less than a microsecond only some are timed, or the clock would be
/// what is measured.
const TIMED_GETS: u64 = 16;
/// Longest latency that is told apart, in nanoseconds.
const MAX_LATENCY: u64 = 600_000_000_000;
const FOREVER: f64 = 1e9;

/// Plays a scenario in a folder that is its own, and hands each outcome to `tell`.
pub fn play(
    engine: Engine,
    topic: Topic,
    extent: Extent,
    dir: &Path,
    tell: &mut dyn FnMut(&Outcome) -> Result<()>,
) -> Result<()> {
    let mut player = Player {
        engine,
        dir,
        extent,
        tell,
    };
    match topic {
        Topic::Durable => player.durable(),
        Topic::Reads => player.reads(),
        Topic::Churn => player.churn(),
        Topic::Sizes => player.sizes(),
        Topic::Bulk => player.bulk(),
        Topic::Scale => player.scale(),
    }
}

/// Opens the store that [`Topic::Scale`] has left, reads its documents for a while, and
/// closes it. `after` says how the process ended that wrote it.
pub fn reopen(
    engine: Engine,
    extent: Extent,
    dir: &Path,
    after: &str,
    tell: &mut dyn FnMut(&Outcome) -> Result<()>,
) -> Result<()> {
    let mut player = Player {
        engine,
        dir,
        extent,
        tell,
    };
    let before = Counters::now()?;
    let began = Instant::now();
    let store = player.open(CACHE_BYTES, SMALL_VALUE_BYTES, false)?;
    let mut key = Key::default();
    key.set(0);
    if !store.session()?.get(&key, &mut |_| {})? {
        return Err("the first document is gone".into());
    }
    let seconds = began.elapsed();
    let mut latencies = Histogram::new_with_bounds(1, MAX_LATENCY, 3)?;
    latencies.saturating_record(seconds.as_nanos() as u64);
    let run = Run {
        operations: 1,
        seconds: seconds.as_secs_f64(),
        latencies,
    };
    let name = format!("open, to the first document, after {after}");
    player.outcome(&name, SMALL_VALUE_BYTES, &run, before)?;
    let get = Phase {
        name: &format!("get of small documents, after {after}"),
        act: Act::Get,
        draw: Draw::Uniform,
        documents: extent.scale,
        value_bytes: SMALL_VALUE_BYTES,
        threads: THREADS,
        until: Until::Seconds(extent.seconds),
    };
    player.phase(&*store, &get)?;
    store.close()
}

fn options(cache_bytes: u64, value_bytes: usize, durable: bool) -> Options {
    Options {
        cache_bytes,
        value_bytes,
        durable,
    }
}

struct Player<'a> {
    engine: Engine,
    dir: &'a Path,
    extent: Extent,
    tell: &'a mut dyn FnMut(&Outcome) -> Result<()>,
}

impl Player<'_> {
    fn open(&self, cache_bytes: u64, value_bytes: usize, durable: bool) -> Result<Box<dyn Store>> {
        self.engine
            .open(self.dir, options(cache_bytes, value_bytes, durable))
    }

    fn durable(&mut self) -> Result<()> {
        let store = self.open(CACHE_BYTES, VALUE_BYTES, true)?;
        for threads in WRITERS {
            if self.extent.short && *threads == 16 {
                continue;
            }
            let plural = if *threads == 1 { "" } else { "s" };
            self.phase(
                &*store,
                &Phase {
                    name: &format!("durable put, {threads} writer{plural}"),
                    act: Act::Put,
                    draw: Draw::Uniform,
                    documents: DOCUMENTS,
                    value_bytes: VALUE_BYTES,
                    threads: *threads,
                    until: Until::Seconds(self.extent.seconds),
                },
            )?;
        }
        store.close()
    }

    fn reads(&mut self) -> Result<()> {
        let documents = self.extent.reads;
        let store = self.open(LARGE_CACHE_BYTES, VALUE_BYTES, false)?;
        let get = |name, draw| Phase {
            name,
            act: Act::Get,
            draw,
            documents,
            value_bytes: VALUE_BYTES,
            threads: THREADS,
            until: Until::Seconds(self.extent.seconds),
        };
        let burst = Phase {
            act: Act::Put,
            until: Until::Done(documents, FOREVER),
            ..get("put without sync, a burst", Draw::Each)
        };
        // Fills the caches, and what is behind with its work has time for it.
        let warm = Phase {
            until: Until::Done(documents, FOREVER),
            ..get("", Draw::Each)
        };
        let uniform = get("get, hot, uniform", Draw::Uniform);
        let zipf = get("get, hot, zipf", Draw::Zipf);
        let small = get("get, little cache, uniform", Draw::Uniform);
        let small_zipf = get("get, little cache, zipf", Draw::Zipf);
        let cold = get("get, from the disk, uniform", Draw::Uniform);
        let mix = Phase {
            act: Act::Both,
            threads: MIX_THREADS,
            ..get("half gets, half durable puts, 16 threads", Draw::Uniform)
        };
        self.phase(&*store, &burst)?;
        store.sync()?;
        self.phase(&*store, &warm)?;
        self.phase(&*store, &uniform)?;
        if !self.extent.short {
            self.phase(&*store, &zipf)?;
        }
        store.close()?;
        // prefd's cache of documents is off; the others keep the usual one, since what
        // they hold in it are pages of a tree too.
        let little = if self.engine == Engine::Prefd {
            0
        } else {
            CACHE_BYTES
        };
        let store = self.open(little, VALUE_BYTES, false)?;
        self.phase(&*store, &warm)?;
        self.phase(&*store, &small)?;
        if !self.extent.short {
            self.phase(&*store, &small_zipf)?;
        }
        store.close()?;
        if self.extent.short {
            return Ok(());
        }
        if measure::drop_page_cache() {
            let store = self.open(CACHE_BYTES, VALUE_BYTES, false)?;
            self.phase(&*store, &cold)?;
            store.close()?;
        }
        let store = self.open(CACHE_BYTES, VALUE_BYTES, true)?;
        self.phase(&*store, &mix)?;
        store.close()
    }

    fn churn(&mut self) -> Result<()> {
        let store = self.open(CACHE_BYTES, VALUE_BYTES, false)?;
        self.phase(
            &*store,
            &Phase {
                name: "churn",
                act: Act::Put,
                draw: Draw::Each,
                documents: DOCUMENTS,
                value_bytes: VALUE_BYTES,
                threads: THREADS,
                until: Until::Done(DOCUMENTS * self.extent.rounds, FOREVER),
            },
        )?;
        store.close()
    }

    fn sizes(&mut self) -> Result<()> {
        for (name, value_bytes, documents) in SIZES {
            if self.extent.short && *value_bytes < 10 << 20 {
                continue;
            }
            let store = self.open(CACHE_BYTES, *value_bytes, true)?;
            // From the first document on, so that what is read was written.
            let put = Phase {
                name: &format!("durable put, {name}"),
                act: Act::Put,
                draw: Draw::Each,
                documents: *documents,
                value_bytes: *value_bytes,
                threads: 1,
                until: Until::Seconds(self.extent.seconds),
            };
            let done = self.phase(&*store, &put)?;
            let get = Phase {
                name: &format!("get, {name}"),
                act: Act::Get,
                draw: Draw::Uniform,
                documents: done.min(*documents),
                until: Until::Seconds(self.extent.seconds / 2.0),
                ..put
            };
            self.phase(&*store, &get)?;
            store.close()?;
            std::fs::remove_dir_all(self.dir)?;
        }
        Ok(())
    }

    fn bulk(&mut self) -> Result<()> {
        let store = self.open(CACHE_BYTES, VALUE_BYTES, false)?;
        let bulk = Phase {
            name: "put without sync, 2 M documents, 512 MiB of memory",
            act: Act::Put,
            draw: Draw::Each,
            documents: self.extent.bulk,
            value_bytes: VALUE_BYTES,
            threads: THREADS,
            until: Until::Done(self.extent.bulk, BULK_SECONDS),
        };
        self.phase(&*store, &bulk)?;
        store.close()
    }

    /// Leaves the store open, as a process does that is killed.
    fn scale(&mut self) -> Result<()> {
        let store = self.open(CACHE_BYTES, SMALL_VALUE_BYTES, false)?;
        let load = Phase {
            name: "load of small documents",
            act: Act::Put,
            draw: Draw::Each,
            documents: self.extent.scale,
            value_bytes: SMALL_VALUE_BYTES,
            threads: THREADS,
            until: Until::Done(self.extent.scale, FOREVER),
        };
        let before = Counters::now()?;
        let run = run(&*store, &load)?;
        // Whoever is told may kill this process at once.
        store.sync()?;
        std::mem::forget(store);
        self.outcome(load.name, load.value_bytes, &run, before)
    }

    /// Plays a phase, and tells what it came to, if it has a name. How many operations
    /// it was.
    fn phase(&mut self, store: &dyn Store, phase: &Phase<'_>) -> Result<u64> {
        let before = Counters::now()?;
        let run = run(store, phase)?;
        if !phase.name.is_empty() {
            self.outcome(phase.name, phase.value_bytes, &run, before)?;
        }
        Ok(run.operations)
    }

    fn outcome(&mut self, phase: &str, bytes: usize, run: &Run, before: Counters) -> Result<()> {
        let after = Counters::now()?;
        let (rss_bytes, anonymous_bytes) = measure::memory()?;
        let micros = |quantile| run.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        let (disk_bytes, folders) = measure::disk_bytes(self.dir)?;
        (self.tell)(&Outcome {
            engine: self.engine,
            phase: phase.to_owned(),
            round: 0,
            operations: run.operations,
            seconds: run.seconds,
            document_bytes: run.operations * bytes as u64,
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            written_bytes: after.written_bytes - before.written_bytes,
            rss_bytes,
            anonymous_bytes,
            disk_bytes,
            folders,
        })
    }
}

/// What the threads of a phase did together.
struct Run {
    operations: u64,
    seconds: f64,
    latencies: Histogram<u64>,
}

fn run(store: &dyn Store, phase: &Phase<'_>) -> Result<Run> {
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
    documents: Documents,
    random: SmallRng,
    zipf: Zipf<f64>,
    latencies: Histogram<u64>,
}

fn prepare<'a>(store: &'a dyn Store, phase: &Phase<'_>, thread: usize) -> Result<Worker<'a>> {
    let seed = thread as u64 + 1;
    Ok(Worker {
        session: store.session()?,
        documents: Documents::new(phase.value_bytes, seed),
        random: SmallRng::seed_from_u64(seed),
        zipf: Zipf::new(phase.documents as f64, 0.99)?,
        latencies: Histogram::new_with_bounds(1, MAX_LATENCY, 3)?,
    })
}

impl Worker<'_> {
    fn work(mut self, phase: &Phase<'_>, thread: usize) -> Result<(u64, Histogram<u64>)> {
        let (most, seconds) = match phase.until {
            Until::Seconds(seconds) => (u64::MAX, seconds),
            Until::Done(operations, seconds) => (operations / phase.threads as u64, seconds),
        };
        let deadline = Instant::now() + Duration::from_secs_f64(seconds);
        let mut key = Key::default();
        let mut done = 0;
        while done < most {
            key.set(self.draw(phase, thread, done));
            let is_get = match phase.act {
                Act::Get => true,
                Act::Put => false,
                Act::Both => self.random.random_bool(0.5),
            };
            let is_timed = !is_get || done.is_multiple_of(TIMED_GETS);
            let began = is_timed.then(Instant::now);
            if is_get {
                self.get(&key, phase.value_bytes)?;
            } else {
                self.session.put(&key, self.documents.next_one())?;
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

    fn draw(&mut self, phase: &Phase<'_>, thread: usize, done: u64) -> u64 {
        let n = phase.documents;
        match phase.draw {
            Draw::Each => (done * phase.threads as u64 + thread as u64) % n,
            Draw::Uniform => self.random.random_range(0..n),
            // Spread, so that those asked for often are no neighbours.
            Draw::Zipf => {
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
