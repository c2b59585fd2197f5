//! The scenarios for storage engines.

use std::time::Instant;

use super::phase::{KeyDistribution, Operation, Phase, StopCondition, run_phase};
use super::scenario_run::ScenarioRun;
use crate::Result;
use crate::contender::Contender;
use crate::documents::Key;
use crate::meter::ResourceMeter;
use crate::phase_result::PhaseTiming;
use crate::processes::drop_page_cache;
use crate::scenario::{
    BULK_SECONDS, CACHE_BYTES, DOCUMENTS, LARGE_CACHE_BYTES, MIX_THREADS, SIZES, SMALL_VALUE_BYTES,
    THREADS, VALUE_BYTES, WRITERS,
};
use crate::stores::{Store, StoreOptions};

/// Time limit of a phase that ends after a number of operations, in seconds.
const NO_TIME_LIMIT: f64 = 1e9;

impl ScenarioRun<'_> {
    /// Opens the store that [`Scenario::Scale`](crate::scenario::Scenario::Scale) has left,
    /// reads its documents, and closes it. `after` names in the report how the previous
    /// process ended.
    pub fn reopen(&mut self, after: &str) -> Result<()> {
        let meter = ResourceMeter::start_for_this_process()?;
        let began = Instant::now();
        let store = self.open(CACHE_BYTES, SMALL_VALUE_BYTES, false)?;
        let mut key = Key::default();
        key.set(0);
        if !store.session()?.get(&key, &mut |_| {})? {
            return Err("the first document is missing after opening the store again".into());
        }
        let opened = PhaseTiming::of_single_operation(began.elapsed())?;
        let name = format!("open, to the first document, after {after}");
        let all_bytes = SMALL_VALUE_BYTES * self.size.scale_documents as usize;
        self.record(&name, all_bytes, opened, &meter)?;
        let get = Phase {
            name: &format!("get of small documents, after {after}"),
            operation: Operation::Get,
            distribution: KeyDistribution::Uniform,
            documents: self.size.scale_documents,
            value_bytes: SMALL_VALUE_BYTES,
            threads: THREADS,
            until: StopCondition::Seconds(self.size.phase_seconds),
        };
        self.run_and_record(&*store, &get)?;
        if store.catch_up(&key)? {
            let caught_up = PhaseTiming::of_single_operation(began.elapsed())?;
            let name = format!("open, gets, and the first listing, after {after}");
            self.record(&name, all_bytes, caught_up, &meter)?;
        }
        store.close()
    }

    fn open(&self, cache_bytes: u64, value_bytes: usize, durable: bool) -> Result<Box<dyn Store>> {
        let options = StoreOptions {
            cache_bytes,
            value_bytes,
            durable,
        };
        self.contender.open(self.dir, options)
    }

    pub(super) fn run_durable(&mut self) -> Result<()> {
        let store = self.open(CACHE_BYTES, VALUE_BYTES, true)?;
        for threads in WRITERS {
            if self.size.short && *threads == 16 {
                continue;
            }
            let plural = if *threads == 1 { "" } else { "s" };
            self.run_and_record(
                &*store,
                &Phase {
                    name: &format!("durable put, {threads} writer{plural}"),
                    operation: Operation::Put,
                    distribution: KeyDistribution::Uniform,
                    documents: DOCUMENTS,
                    value_bytes: VALUE_BYTES,
                    threads: *threads,
                    until: StopCondition::Seconds(self.size.phase_seconds),
                },
            )?;
        }
        store.close()
    }

    pub(super) fn run_reads(&mut self) -> Result<()> {
        let documents = self.size.read_documents;
        let store = self.open(LARGE_CACHE_BYTES, VALUE_BYTES, false)?;
        let get = |name, distribution| Phase {
            name,
            operation: Operation::Get,
            distribution,
            documents,
            value_bytes: VALUE_BYTES,
            threads: THREADS,
            until: StopCondition::Seconds(self.size.phase_seconds),
        };
        let burst = Phase {
            operation: Operation::Put,
            until: StopCondition::Operations {
                count: documents,
                max_seconds: NO_TIME_LIMIT,
            },
            ..get("put without sync, a burst", KeyDistribution::Sequential)
        };
        // Fills the caches, and gives engines time for work that they have postponed.
        let warm = Phase {
            until: StopCondition::Operations {
                count: documents,
                max_seconds: NO_TIME_LIMIT,
            },
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
        self.run_and_record(&*store, &burst)?;
        store.sync()?;
        self.run_and_record(&*store, &warm)?;
        self.run_and_record(&*store, &uniform)?;
        if !self.size.short {
            self.run_and_record(&*store, &zipf)?;
        }
        store.close()?;
        // prefd's document cache is off. The other engines keep their usual cache, because
        // it also holds the inner pages of their trees.
        let little_cache = if self.contender == Contender::Prefd {
            0
        } else {
            CACHE_BYTES
        };
        let store = self.open(little_cache, VALUE_BYTES, false)?;
        self.run_and_record(&*store, &warm)?;
        self.run_and_record(&*store, &small)?;
        if !self.size.short {
            self.run_and_record(&*store, &small_zipf)?;
        }
        store.close()?;
        if self.size.short {
            return Ok(());
        }
        if drop_page_cache() {
            let store = self.open(CACHE_BYTES, VALUE_BYTES, false)?;
            self.run_and_record(&*store, &cold)?;
            store.close()?;
        }
        let store = self.open(CACHE_BYTES, VALUE_BYTES, true)?;
        self.run_and_record(&*store, &mix)?;
        store.close()
    }

    pub(super) fn run_churn(&mut self) -> Result<()> {
        let store = self.open(CACHE_BYTES, VALUE_BYTES, false)?;
        self.run_and_record(
            &*store,
            &Phase {
                name: "churn",
                operation: Operation::Put,
                distribution: KeyDistribution::Sequential,
                documents: DOCUMENTS,
                value_bytes: VALUE_BYTES,
                threads: THREADS,
                until: StopCondition::Operations {
                    count: DOCUMENTS * self.size.churn_rounds,
                    max_seconds: NO_TIME_LIMIT,
                },
            },
        )?;
        store.close()
    }

    pub(super) fn run_sizes(&mut self) -> Result<()> {
        for (name, value_bytes, documents) in SIZES {
            if self.size.short && *value_bytes < 10 << 20 {
                continue;
            }
            let store = self.open(CACHE_BYTES, *value_bytes, true)?;
            // Puts begin with the first document, so that all documents below the number of
            // puts exist.
            let put = Phase {
                name: &format!("durable put, {name}"),
                operation: Operation::Put,
                distribution: KeyDistribution::Sequential,
                documents: *documents,
                value_bytes: *value_bytes,
                threads: 1,
                until: StopCondition::Seconds(self.size.phase_seconds),
            };
            let puts = self.run_and_record(&*store, &put)?;
            let get = Phase {
                name: &format!("get, {name}"),
                operation: Operation::Get,
                distribution: KeyDistribution::Uniform,
                documents: puts.min(*documents),
                until: StopCondition::Seconds(self.size.phase_seconds / 2.0),
                ..put
            };
            self.run_and_record(&*store, &get)?;
            store.close()?;
            std::fs::remove_dir_all(self.dir)?;
        }
        Ok(())
    }

    pub(super) fn run_bulk(&mut self) -> Result<()> {
        let store = self.open(CACHE_BYTES, VALUE_BYTES, false)?;
        let bulk = Phase {
            name: "put without sync, 2 M documents, 512 MiB of memory",
            operation: Operation::Put,
            distribution: KeyDistribution::Sequential,
            documents: self.size.bulk_documents,
            value_bytes: VALUE_BYTES,
            threads: THREADS,
            until: StopCondition::Operations {
                count: self.size.bulk_documents,
                max_seconds: BULK_SECONDS,
            },
        };
        self.run_and_record(&*store, &bulk)?;
        store.close()
    }

    /// Leaves the store open, because the parent process is going to kill this process.
    pub(super) fn run_scale(&mut self) -> Result<()> {
        let store = self.open(CACHE_BYTES, SMALL_VALUE_BYTES, false)?;
        let load = Phase {
            name: "load of small documents",
            operation: Operation::Put,
            distribution: KeyDistribution::Sequential,
            documents: self.size.scale_documents,
            value_bytes: SMALL_VALUE_BYTES,
            threads: THREADS,
            until: StopCondition::Operations {
                count: self.size.scale_documents,
                max_seconds: NO_TIME_LIMIT,
            },
        };
        let meter = ResourceMeter::start_for_this_process()?;
        let timing = run_phase(&*store, &load)?;
        // The parent process may kill this process as soon as it has read the result.
        store.sync()?;
        std::mem::forget(store);
        self.record(load.name, load.value_bytes, timing, &meter)
    }

    /// Runs a phase, and records its result if the phase has a name. Returns the number of
    /// operations.
    fn run_and_record(&mut self, store: &dyn Store, phase: &Phase<'_>) -> Result<u64> {
        let meter = ResourceMeter::start_for_this_process()?;
        let timing = run_phase(store, phase)?;
        if !phase.name.is_empty() {
            self.record(phase.name, phase.value_bytes, timing, &meter)?;
        }
        Ok(timing.operations)
    }
}
