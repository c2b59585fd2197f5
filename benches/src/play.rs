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
    BULK_SECONDS, CACHE_BYTES, DOCUMENTS, Extent, LARGE_CACHE_BYTES, MIX_THREADS, SIZES,
    SMALL_VALUE_BYTES, THREADS, Topic, VALUE_BYTES, WRITERS,
};
use crate::stores::{Options, Store};
pub use outcome::Outcome;
pub(crate) use outcome::{Done, Meter};
use phase::{Act, Draw, Phase, Run, Until, run};

/// Seconds of a phase that ends by itself.
const FOREVER: f64 = 1e9;

fn options(cache_bytes: u64, value_bytes: usize, durable: bool) -> Options {
    Options {
        cache_bytes,
        value_bytes,
        durable,
    }
}

/// Plays scenarios with one contender in a folder of its own, and hands each outcome to
/// `tell`.
pub struct Player<'a> {
    /// The contender.
    pub contender: Contender,
    /// The folder.
    pub dir: &'a Path,
    /// How much of each scenario.
    pub extent: Extent,
    /// The server's binary; where it is `None`, the one beside this program.
    pub prefd: Option<&'a Path>,
    /// Where the outcomes go.
    pub tell: &'a mut dyn FnMut(&Outcome) -> Result<()>,
}

impl Player<'_> {
    /// Plays a scenario. The folder must be empty, or not there.
    pub fn play(&mut self, topic: Topic) -> Result<()> {
        match topic {
            Topic::Durable => self.durable(),
            Topic::Reads => self.reads(),
            Topic::Churn => self.churn(),
            Topic::Sizes => self.sizes(),
            Topic::Bulk => self.bulk(),
            Topic::Scale => self.scale(),
            Topic::Http => self.http(),
        }
    }

    /// Opens the store that [`Topic::Scale`] has left, reads its documents for a while,
    /// and closes it. `after` says how the process ended that wrote it.
    pub fn reopen(&mut self, after: &str) -> Result<()> {
        let meter = Meter::of_this()?;
        let began = Instant::now();
        let store = self.open(CACHE_BYTES, SMALL_VALUE_BYTES, false)?;
        let mut key = Key::default();
        key.set(0);
        if !store.session()?.get(&key, &mut |_| {})? {
            return Err("the first document is gone".into());
        }
        let opened = Run::of_one(began.elapsed())?;
        let name = format!("open, to the first document, after {after}");
        let all_bytes = SMALL_VALUE_BYTES * self.extent.scale as usize;
        self.outcome(&name, all_bytes, opened.done(), &meter)?;
        let get = Phase {
            name: &format!("get of small documents, after {after}"),
            act: Act::Get,
            draw: Draw::Uniform,
            documents: self.extent.scale,
            value_bytes: SMALL_VALUE_BYTES,
            threads: THREADS,
            until: Until::Seconds(self.extent.seconds),
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
        let little = if self.contender == Contender::Prefd {
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
        let meter = Meter::of_this()?;
        let run = run(&*store, &load)?;
        // Whoever is told may kill this process at once.
        store.sync()?;
        std::mem::forget(store);
        self.outcome(load.name, load.value_bytes, run.done(), &meter)
    }

    /// Plays a phase, and tells what it came to, if it has a name. How many operations
    /// it was.
    fn phase(&mut self, store: &dyn Store, phase: &Phase<'_>) -> Result<u64> {
        let meter = Meter::of_this()?;
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
        done: Done,
        meter: &Meter,
    ) -> Result<()> {
        let outcome = meter.outcome(self.contender, phase, bytes, done, self.dir)?;
        (self.tell)(&outcome)
    }
}
