//! One process, one contender, one scenario: it plays it, and says what each phase came to.

mod outcome;
mod phase;

use std::path::Path;
use std::time::Instant;

use crate::Result;
use crate::contender::Contender;
use crate::documents::Key;
use crate::measure;
use crate::scenario::{
    BULK_SECONDS, CACHE_BYTES, DOCUMENTS, LARGE_CACHE_BYTES, MIX_THREADS, SIZES, SMALL_VALUE_BYTES,
    Scenario, THREADS, VALUE_BYTES, WRITERS, WorkloadSize,
};
use crate::stores::{Store, StoreOptions};
pub use outcome::PhaseResult;
pub(crate) use outcome::{PhaseTiming, ResourceMeter};
use phase::{KeyDistribution, Operation, Phase, Run, StopCondition, run};

/// Seconds of a phase that ends by itself.
const FOREVER: f64 = 1e9;

fn options(cache_bytes: u64, value_bytes: usize, durable: bool) -> StoreOptions {
    StoreOptions {
        cache_bytes,
        value_bytes,
        durable,
    }
}

/// Plays scenarios with one contender in a folder of its own, and hands each outcome to
/// `tell`.
pub struct ScenarioRun<'a> {
    /// The contender.
    pub contender: Contender,
    /// The folder.
    pub dir: &'a Path,
    /// How much of each scenario.
    pub size: WorkloadSize,
    /// The server's binary; where it is `None`, the one beside this program.
    pub prefd: Option<&'a Path>,
    /// Where the outcomes go.
    pub tell: &'a mut dyn FnMut(&PhaseResult) -> Result<()>,
}

impl ScenarioRun<'_> {
    /// Plays a scenario. The folder must be empty, or not there.
    pub fn play(&mut self, scenario: Scenario) -> Result<()> {
        match scenario {
            Scenario::Durable => self.durable(),
            Scenario::Reads => self.reads(),
            Scenario::Churn => self.churn(),
            Scenario::Sizes => self.sizes(),
            Scenario::Bulk => self.bulk(),
            Scenario::Scale => self.scale(),
            Scenario::Http => self.http(),
        }
    }

    /// Opens the store that [`Scenario::Scale`] has left, reads its documents for a while,
    /// and closes it. `after` says how the process ended that wrote it.
    pub fn reopen(&mut self, after: &str) -> Result<()> {
        let meter = ResourceMeter::of_this()?;
        let began = Instant::now();
        let store = self.open(CACHE_BYTES, SMALL_VALUE_BYTES, false)?;
        let mut key = Key::default();
        key.set(0);
        if !store.session()?.get(&key, &mut |_| {})? {
            return Err("the first document is gone".into());
        }
        let opened = Run::of_one(began.elapsed())?;
        let name = format!("open, to the first document, after {after}");
        let all_bytes = SMALL_VALUE_BYTES * self.size.scale as usize;
        self.outcome(&name, all_bytes, opened.done(), &meter)?;
        let get = Phase {
            name: &format!("get of small documents, after {after}"),
            operation: Operation::Get,
            distribution: KeyDistribution::Uniform,
            documents: self.size.scale,
            value_bytes: SMALL_VALUE_BYTES,
            threads: THREADS,
            until: StopCondition::Seconds(self.size.seconds),
        };
        self.phase(&*store, &get)?;
        if store.catch_up(&key)? {
            let caught_up = Run::of_one(began.elapsed())?;
            let name = format!("open, gets, and the first listing, after {after}");
            self.outcome(&name, all_bytes, caught_up.done(), &meter)?;
        }
        store.close()
    }

    fn open(&self, cache_bytes: u64, value_bytes: usize, durable: bool) -> Result<Box<dyn Store>> {
        self.contender
            .open(self.dir, options(cache_bytes, value_bytes, durable))
    }

    fn durable(&mut self) -> Result<()> {
        let store = self.open(CACHE_BYTES, VALUE_BYTES, true)?;
        for threads in WRITERS {
            if self.size.short && *threads == 16 {
                continue;
            }
            let plural = if *threads == 1 { "" } else { "s" };
            self.phase(
                &*store,
                &Phase {
                    name: &format!("durable put, {threads} writer{plural}"),
                    operation: Operation::Put,
                    distribution: KeyDistribution::Uniform,
                    documents: DOCUMENTS,
                    value_bytes: VALUE_BYTES,
                    threads: *threads,
                    until: StopCondition::Seconds(self.size.seconds),
                },
            )?;
        }
        store.close()
    }

    fn reads(&mut self) -> Result<()> {
        let documents = self.size.reads;
        let store = self.open(LARGE_CACHE_BYTES, VALUE_BYTES, false)?;
        let get = |name, distribution| Phase {
            name,
            operation: Operation::Get,
            distribution,
            documents,
            value_bytes: VALUE_BYTES,
            threads: THREADS,
            until: StopCondition::Seconds(self.size.seconds),
        };
        let burst = Phase {
            operation: Operation::Put,
            until: StopCondition::Operations(documents, FOREVER),
            ..get("put without sync, a burst", KeyDistribution::Sequential)
        };
        // Fills the caches, and what is behind with its work has time for it.
        let warm = Phase {
            until: StopCondition::Operations(documents, FOREVER),
            ..get("", KeyDistribution::Sequential)
        };
        let uniform = get("get, hot, uniform", KeyDistribution::Uniform);
        let zipf = get("get, hot, zipf", KeyDistribution::Zipf);
        let small = get("get, little cache, uniform", KeyDistribution::Uniform);
        let small_zipf = get("get, little cache, zipf", KeyDistribution::Zipf);
        let cold = get("get, from the disk, uniform", KeyDistribution::Uniform);
        let mix = Phase {
            operation: Operation::Mixed,
            threads: MIX_THREADS,
            ..get(
                "half gets, half durable puts, 16 threads",
                KeyDistribution::Uniform,
            )
        };
        self.phase(&*store, &burst)?;
        store.sync()?;
        self.phase(&*store, &warm)?;
        self.phase(&*store, &uniform)?;
        if !self.size.short {
            self.phase(&*store, &zipf)?;
        }
        store.close()?;
        // prefd's cache of documents is off; the others keep the usual one, since what
        // they hold in it are pages of a tree too.
        let little = if self.contender == Contender::Prefd {
            0
        } else {
            CACHE_BYTES
        };
        let store = self.open(little, VALUE_BYTES, false)?;
        self.phase(&*store, &warm)?;
        self.phase(&*store, &small)?;
        if !self.size.short {
            self.phase(&*store, &small_zipf)?;
        }
        store.close()?;
        if self.size.short {
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
                operation: Operation::Put,
                distribution: KeyDistribution::Sequential,
                documents: DOCUMENTS,
                value_bytes: VALUE_BYTES,
                threads: THREADS,
                until: StopCondition::Operations(DOCUMENTS * self.size.rounds, FOREVER),
            },
        )?;
        store.close()
    }

    fn sizes(&mut self) -> Result<()> {
        for (name, value_bytes, documents) in SIZES {
            if self.size.short && *value_bytes < 10 << 20 {
                continue;
            }
            let store = self.open(CACHE_BYTES, *value_bytes, true)?;
            // From the first document on, so that what is read was written.
            let put = Phase {
                name: &format!("durable put, {name}"),
                operation: Operation::Put,
                distribution: KeyDistribution::Sequential,
                documents: *documents,
                value_bytes: *value_bytes,
                threads: 1,
                until: StopCondition::Seconds(self.size.seconds),
            };
            let done = self.phase(&*store, &put)?;
            let get = Phase {
                name: &format!("get, {name}"),
                operation: Operation::Get,
                distribution: KeyDistribution::Uniform,
                documents: done.min(*documents),
                until: StopCondition::Seconds(self.size.seconds / 2.0),
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
            operation: Operation::Put,
            distribution: KeyDistribution::Sequential,
            documents: self.size.bulk,
            value_bytes: VALUE_BYTES,
            threads: THREADS,
            until: StopCondition::Operations(self.size.bulk, BULK_SECONDS),
        };
        self.phase(&*store, &bulk)?;
        store.close()
    }

    /// Leaves the store open, as a process does that is killed.
    fn scale(&mut self) -> Result<()> {
        let store = self.open(CACHE_BYTES, SMALL_VALUE_BYTES, false)?;
        let load = Phase {
            name: "load of small documents",
            operation: Operation::Put,
            distribution: KeyDistribution::Sequential,
            documents: self.size.scale,
            value_bytes: SMALL_VALUE_BYTES,
            threads: THREADS,
            until: StopCondition::Operations(self.size.scale, FOREVER),
        };
        let meter = ResourceMeter::of_this()?;
        let run = run(&*store, &load)?;
        // Whoever is told may kill this process at once.
        store.sync()?;
        std::mem::forget(store);
        self.outcome(load.name, load.value_bytes, run.done(), &meter)
    }

    /// Plays a phase, and tells what it came to, if it has a name. How many operations
    /// it was.
    fn phase(&mut self, store: &dyn Store, phase: &Phase<'_>) -> Result<u64> {
        let meter = ResourceMeter::of_this()?;
        let run = run(store, phase)?;
        if !phase.name.is_empty() {
            self.outcome(phase.name, phase.value_bytes, run.done(), &meter)?;
        }
        Ok(run.operations)
    }

    /// Tells what a phase came to, in which documents of so many bytes went in or out.
    pub(crate) fn outcome(
        &mut self,
        phase: &str,
        bytes: usize,
        done: PhaseTiming,
        meter: &ResourceMeter,
    ) -> Result<()> {
        let outcome = meter.outcome(self.contender, phase, bytes, done, self.dir)?;
        (self.tell)(&outcome)
    }
}
