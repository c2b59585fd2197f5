//! The battery: a crash at every operation, each operation failing once, and random
//! lives that end at any operation, all on a simulated disk. A failing seed is named;
//! `PREFD_TEST_SEED` runs it alone, `PREFD_TEST_SEEDS` so many.

use std::io;
use std::sync::atomic::Ordering;

use prefd_engine::{Error, WriteOptions};
use prefd_tests::random::{Random, seeds};
use prefd_tests::sim_disk::Unsynced;
use prefd_tests::sim_model::{Model, fail_once_at, unsynced};
use prefd_tests::sim_store::Store;

/// A life that has everything in it: small and large documents, deletes, a segment that
/// is full and one that is begun, compaction, a clean close. Goes on after a failure;
/// `Err` is the first one.
fn life(store: &Store, model: &mut Model) -> Result<(), Error> {
    const FILLING: usize = 34;
    let engine = store.open()?;
    let mut outcome = Ok(());
    let sizes = [10, 5_000, 1_900, 10].into_iter();
    let sizes = sizes.chain([1_900; FILLING]).chain([3_000, 10]);
    for (index, size) in sizes.enumerate() {
        let client = format!("c{}", index % 5);
        let pad_bytes = (index % 13 != 3).then_some(size);
        let written = model.write(&engine, &client, pad_bytes, WriteOptions::default());
        outcome = outcome.and(written);
        if index == 3 || index == FILLING + 2 {
            outcome = outcome.and(engine.compact());
        }
    }
    outcome.and(engine.close())
}

fn new(has_catalogue: bool) -> Store {
    if has_catalogue {
        Store::new()
    } else {
        Store::without_catalogue()
    }
}

/// A store whose last lives ended by a clean close and a crash, or by a clean close: it
/// has something to rewrite.
fn lived_in(model: &mut Model, closed: bool, has_catalogue: bool) -> Store {
    let store = new(has_catalogue);
    for life in 0..2 {
        let engine = store.open().unwrap();
        for (client, size) in [("c0", 10), ("c4", 3_000), ("c5", 500), ("c2", 20)] {
            let pad_bytes = (life == 0 || client != "c2").then_some(size);
            model
                .write(&engine, client, pad_bytes, WriteOptions::default())
                .unwrap();
        }
        if closed || life == 0 {
            engine.close().unwrap();
        }
    }
    store.crashed(Unsynced::Lost)
}

fn reopen(store: &Store, model: &mut Model, seed: u64, context: &str) {
    let after = store.crashed(unsynced(seed));
    find_nothing_wrong(&after, context);
    let engine = after
        .open()
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    model.verify(&engine, after.has_catalogue(), context);
    engine
        .compact()
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    model.verify(&engine, after.has_catalogue(), context);
}

/// What a crash leaves is no damage.
fn find_nothing_wrong(store: &Store, context: &str) {
    match prefd_engine::verify(&store.config(), &mut |_| {}) {
        Ok(found) => assert_eq!(found.problems, [], "{context}"),
        // It was not even begun.
        Err(Error::NotAStore { .. }) => {}
        Err(error) => panic!("{context}: {error}"),
    }
}

#[test]
fn a_single_failure_of_any_operation_loses_nothing_and_the_store_opens_again() {
    for seed in seeds(2) {
        for (closed, kind) in [
            (true, io::ErrorKind::Other),
            (false, io::ErrorKind::Other),
            (true, io::ErrorKind::StorageFull),
            (false, io::ErrorKind::StorageFull),
        ] {
            for operation in 0.. {
                let context = format!("seed {seed}, closed {closed}, {kind:?} of {operation}");
                let mut model = Model::default();
                let store = lived_in(&mut model, closed, operation % 4 == 0);
                let count = fail_once_at(&store.disk, operation, kind);
                // It may end well all the same: not every operation has to succeed.
                let _ = life(&store, &mut model);
                reopen(&store, &mut model, seed, &context);
                if count.load(Ordering::Relaxed) <= operation {
                    assert!(operation > 150, "a life has more operations");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_crash_at_every_single_operation_of_a_life_loses_nothing() {
    for seed in seeds(8) {
        for operation in 0.. {
            let mut model = Model::default();
            let store = lived_in(&mut model, seed % 3 == 2, operation % 4 == 0);
            store.disk.cut_power_after(operation);
            let has_ended = life(&store, &mut model).is_ok();
            let context = format!("seed {seed}, operation {operation}");
            reopen(&store, &mut model, seed, &context);
            if has_ended {
                assert!(operation > 150, "a life has more operations");
                break;
            }
        }
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    let mut crashes = 0;
    for seed in seeds(200) {
        let mut random = Random::new(seed);
        let mut model = Model::default();
        let mut store = new(seed % 4 == 0);
        for life in 0..6 {
            let context = format!("seed {seed} life {life}");
            // Sometimes while it opens, mostly while it writes.
            store.disk.cut_power_after(random.below(500));
            if let Ok(engine) = store.open() {
                let _ = model.work(&engine, &mut random);
                if random.below(3) == 0 {
                    let _ = engine.close();
                }
            }
            let unsynced = match random.below(3) {
                0 => Unsynced::Lost,
                1 => Unsynced::Kept,
                _ => Unsynced::Some {
                    seed: random.draw(),
                },
            };
            store = store.crashed(unsynced);
            crashes += 1;
            find_nothing_wrong(&store, &context);
            let engine = store
                .open()
                .unwrap_or_else(|error| panic!("{context}: {error} ({error:?})"));
            model.verify(&engine, store.has_catalogue(), &context);
            if random.below(2) == 0 {
                engine.close().unwrap();
            } else {
                drop(engine);
                store = store.crashed(Unsynced::Lost);
                crashes += 1;
            }
        }
    }
    println!("{crashes} crashes");
}
