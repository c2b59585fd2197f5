//! Crashes and failures at every operation of a simulated disk.
//!
//! One test crashes at every operation of a fixed workload, another fails each operation once,
//! and a third runs random workloads that crash at random operations. After each crash, the
//! store must open and hold every acknowledged write.
//!
//! A failure prints its seed. `PREFD_TEST_SEED` runs one seed, and `PREFD_TEST_SEEDS` sets the
//! number of seeds.

use std::io;
use std::sync::atomic::Ordering;

use prefd_engine::{Error, WriteOptions};
use prefd_tests::random::{Random, seeds};
use prefd_tests::sim_disk::Unsynced;
use prefd_tests::sim_model::{StoreModel, fail_once_at, unsynced};
use prefd_tests::sim_store::Store;

/// Opens the store, runs a fixed workload, and closes the store. The workload writes small and
/// large documents, deletes some, fills a segment, begins another, and compacts twice.
///
/// Continues after a failed operation, and returns the first error.
fn run_workload(store: &Store, model: &mut StoreModel) -> Result<(), Error> {
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

fn new_store(has_catalogue: bool) -> Store {
    if has_catalogue {
        Store::new()
    } else {
        Store::without_catalogue()
    }
}

/// A store with stale frames, which compaction can rewrite. The store was opened twice: the
/// first time it was closed cleanly, and the second time too if `is_closed`.
fn store_with_stale_frames(model: &mut StoreModel, is_closed: bool, has_catalogue: bool) -> Store {
    let store = new_store(has_catalogue);
    for round in 0..2 {
        let engine = store.open().unwrap();
        for (client, size) in [("c0", 10), ("c4", 3_000), ("c5", 500), ("c2", 20)] {
            let pad_bytes = (round == 0 || client != "c2").then_some(size);
            model
                .write(&engine, client, pad_bytes, WriteOptions::default())
                .unwrap();
        }
        if is_closed || round == 0 {
            engine.close().unwrap();
        }
    }
    store.crashed(Unsynced::Lost)
}

/// Simulates a crash, and checks the store that it leaves: with verify, against the model, and
/// against the model again after a compaction.
fn assert_recovers(store: &Store, model: &mut StoreModel, seed: u64, context: &str) {
    let after = store.crashed(unsynced(seed));
    assert_verifies(&after, context);
    let engine = after
        .open()
        .unwrap_or_else(|error| panic!("{context}: the store must open: {error}"));
    model.verify(&engine, after.has_catalogue(), context);
    engine
        .compact()
        .unwrap_or_else(|error| panic!("{context}: compaction must succeed: {error}"));
    model.verify(&engine, after.has_catalogue(), context);
}

/// Asserts that verify reports no problem. The effects of a crash are not damage.
fn assert_verifies(store: &Store, context: &str) {
    match prefd_engine::verify(&store.config(), &mut |_| {}) {
        Ok(found) => assert_eq!(found.problems, [], "{context}"),
        // The crash came before the store was created.
        Err(Error::NotAStore { .. }) => {}
        Err(error) => panic!("{context}: verify must succeed: {error}"),
    }
}

#[test]
fn single_failure_of_any_operation_loses_no_acknowledged_write() {
    for seed in seeds(2) {
        for (is_closed, kind) in [
            (true, io::ErrorKind::Other),
            (false, io::ErrorKind::Other),
            (true, io::ErrorKind::StorageFull),
            (false, io::ErrorKind::StorageFull),
        ] {
            for operation in 0.. {
                let context =
                    format!("seed {seed}, closed {is_closed}, {kind:?} of operation {operation}");
                let mut model = StoreModel::default();
                let store = store_with_stale_frames(&mut model, is_closed, operation % 4 == 0);
                let count = fail_once_at(&store.disk, operation, kind);
                // The workload may succeed in spite of the failure, because the engine ignores
                // the failure of some operations.
                let _ = run_workload(&store, &mut model);
                assert_recovers(&store, &mut model, seed, &context);
                if count.load(Ordering::Relaxed) <= operation {
                    assert!(operation > 150, "only {operation} operations were tried");
                    break;
                }
            }
        }
    }
}

#[test]
fn crash_at_every_operation_loses_no_acknowledged_write() {
    for seed in seeds(8) {
        for operation in 0.. {
            let mut model = StoreModel::default();
            let store = store_with_stale_frames(&mut model, seed % 3 == 2, operation % 4 == 0);
            store.disk.cut_power_after(operation);
            let has_ended = run_workload(&store, &mut model).is_ok();
            let context = format!("seed {seed}, operation {operation}");
            assert_recovers(&store, &mut model, seed, &context);
            if has_ended {
                assert!(operation > 150, "only {operation} operations were tried");
                break;
            }
        }
    }
}

#[test]
fn crash_in_random_workload_loses_no_acknowledged_write() {
    let mut crashes = 0;
    for seed in seeds(200) {
        let mut random = Random::new(seed);
        let mut model = StoreModel::default();
        let mut store = new_store(seed % 4 == 0);
        for round in 0..6 {
            let context = format!("seed {seed}, round {round}");
            // The power is cut during the writes in most rounds, and during the open in others.
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
            assert_verifies(&store, &context);
            let engine = store.open().unwrap_or_else(|error| {
                panic!("{context}: the store must open: {error} ({error:?})")
            });
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
    println!("simulated {crashes} crashes");
}
