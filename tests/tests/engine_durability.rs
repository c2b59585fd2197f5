//! What an acknowledgement means: crashes at any operation, failed syncs and full disks
//! lose nothing that was acknowledged, and leave nothing that was refused.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prefd_engine::{Durability, Engine, Error, Precondition, WriteOptions};
use prefd_tests::random::{Random, seeds};
use prefd_tests::sim_disk::{Operation, SimDisk, Unsynced};
use prefd_tests::sim_store::{Store, body, put, read};

fn buffered() -> WriteOptions {
    WriteOptions {
        durability: Some(Durability::Buffered),
        ..WriteOptions::default()
    }
}

#[test]
fn an_acknowledged_put_survives_a_power_cut_and_was_synced_before() {
    let store = Store::new();
    let engine = store.open().unwrap();
    for write in 0..20 {
        let syncs = store.disk.syncs(".seg");
        let size = if write % 4 == 0 { 5_000 } else { 10 };
        put(&engine, &format!("c{}", write % 7), &body(write, size)).unwrap();
        assert!(
            store.disk.syncs(".seg") > syncs,
            "acknowledged without a sync"
        );
        // Were the sync missing, this cut would lose the write.
        let after = store.crashed(Unsynced::Lost);
        let reopened = after.open().unwrap();
        assert_eq!(
            read(&reopened, &format!("c{}", write % 7)).unwrap(),
            Some(body(write, size))
        );
    }
}

#[test]
fn a_buffered_put_may_be_lost_and_a_later_sync_covers_it() {
    let store = Store::new();
    let engine = store.open().unwrap();
    let namespace = engine.namespace("u", "buffered").unwrap();
    put(&engine, "first", "{}").unwrap();
    namespace.put(b"{\"n\":1}", buffered()).unwrap();
    let lost = store.crashed(Unsynced::Lost);
    assert_eq!(read(&lost.open().unwrap(), "buffered").unwrap(), None);
    let kept = store.crashed(Unsynced::Kept);
    assert_eq!(
        read(&kept.open().unwrap(), "buffered").unwrap().as_deref(),
        Some("{\"n\":1}")
    );
    put(&engine, "later", "{}").unwrap();
    let covered = store.crashed(Unsynced::Lost);
    assert_eq!(
        read(&covered.open().unwrap(), "buffered")
            .unwrap()
            .as_deref(),
        Some("{\"n\":1}")
    );
}

#[test]
fn the_blob_of_a_document_goes_only_once_its_successor_is_synced() {
    let store = Store::new();
    let engine = store.open().unwrap();
    let namespace = engine.namespace("u", "c").unwrap();
    put(&engine, "c", &body(1, 5_000)).unwrap();
    namespace.put(b"{\"n\":2}", buffered()).unwrap();
    let after = store.crashed(Unsynced::Lost);
    assert_eq!(
        read(&after.open().unwrap(), "c").unwrap(),
        Some(body(1, 5_000))
    );
    put(&engine, "other", "{}").unwrap();
    engine.close().unwrap();
    assert_eq!(store.files("blobs", ".blob"), Vec::<PathBuf>::new());
}

#[test]
fn revisions_are_never_used_twice_even_for_lost_writes() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{}").unwrap();
    let namespace = engine.namespace("u", "c").unwrap();
    let mut highest = namespace.put(b"{}", buffered()).unwrap();
    for _ in 0..100 {
        highest = highest.max(namespace.put(b"{}", buffered()).unwrap());
    }
    let after = store.crashed(Unsynced::Lost);
    let engine = after.open().unwrap();
    let next = engine
        .namespace("u", "c")
        .unwrap()
        .put(b"{}", WriteOptions::default())
        .unwrap();
    assert!(next > highest, "{next} is not above {highest}");
    let again = after.crashed(Unsynced::Kept);
    let engine = again.open().unwrap();
    let last = engine
        .namespace("u", "c")
        .unwrap()
        .put(b"{}", WriteOptions::default())
        .unwrap();
    assert!(last > next);
}

/// What a namespace may hold: the last acknowledged write, or one attempted since.
#[derive(Default, Clone)]
struct Allowed {
    acknowledged: Option<String>,
    attempted: Vec<Option<String>>,
}

/// Writes until the disk fails, keeping the model.
fn work(
    engine: &Engine,
    random: &mut Random,
    model: &mut BTreeMap<String, Allowed>,
    stamp: &mut u64,
) -> Result<(), Error> {
    for _ in 0..25 {
        *stamp += 1;
        let client = format!("c{}", random.below(5));
        let namespace = engine.namespace("u", &client)?;
        let allowed = model.entry(client).or_default();
        let size = [10, 10, 600, 1_900, 4_000, 70_000][random.below(6) as usize];
        let value = (random.below(5) > 0).then(|| body(*stamp, size));
        let precondition = match random.below(4) {
            0 => Precondition::absent(),
            1 => namespace
                .revision()?
                .map_or(Precondition::none(), Precondition::matches),
            _ => Precondition::none(),
        };
        let options = WriteOptions {
            precondition,
            ..WriteOptions::default()
        };
        allowed.attempted.push(value.clone());
        let outcome = match &value {
            Some(body) => namespace.put(body.as_bytes(), options).map(drop),
            None => namespace.delete(options),
        };
        match outcome {
            Ok(()) => {
                *allowed = Allowed {
                    acknowledged: value,
                    attempted: Vec::new(),
                };
            }
            Err(Error::PreconditionFailed { .. }) => {
                allowed.attempted.pop();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn verify(engine: &Engine, model: &mut BTreeMap<String, Allowed>, context: &str) {
    for (client, allowed) in model.iter_mut() {
        let found = read(engine, client).unwrap_or_else(|e| panic!("{context}: {client}: {e}"));
        let fits = found == allowed.acknowledged || allowed.attempted.contains(&found);
        assert!(
            fits,
            "{context}: {client} holds {:?}",
            found.map(|f| f[..30.min(f.len())].to_owned())
        );
        // What is seen once stays.
        *allowed = Allowed {
            acknowledged: found,
            attempted: Vec::new(),
        };
    }
    let listed: Vec<(String, u64)> = engine
        .list("u", None, usize::MAX)
        .unwrap_or_else(|e| panic!("{context}: {e}"))
        .into_iter()
        .map(|entry| (entry.client, entry.stat.usage.bytes))
        .collect();
    let expected: Vec<(String, u64)> = model
        .iter()
        .filter_map(|(client, allowed)| {
            Some((client.clone(), allowed.acknowledged.as_ref()?.len() as u64))
        })
        .collect();
    assert_eq!(listed, expected, "{context}");
}

/// Fails every operation from the `n`th on, as a machine that lost its power does.
fn cut_power_at(disk: &SimDisk, n: u64) {
    let count = AtomicU64::new(0);
    disk.set_fault(Box::new(move |_, _| {
        (count.fetch_add(1, Ordering::Relaxed) >= n).then_some(io::ErrorKind::Other)
    }));
}

/// A life that has everything in it: small and large documents, a delete, a segment
/// that is full and one that is begun, a clean close. Goes on after a failed write;
/// `Err` is the first failure.
fn life(store: &Store, model: &mut BTreeMap<String, Allowed>) -> Result<(), Error> {
    const FILLING: usize = 34;
    let engine = store.open()?;
    let mut outcome = Ok(());
    let sizes = [10, 5_000, 1_900, 10].into_iter();
    let sizes = sizes.chain([1_900; FILLING]).chain([3_000, 10]);
    for (index, size) in sizes.enumerate() {
        let client = format!("c{}", index % 5);
        let value = (index % 13 != 3).then(|| body(100 + index as u64, size));
        let allowed = model.entry(client.clone()).or_default();
        allowed.attempted.push(value.clone());
        let namespace = engine.namespace("u", &client)?;
        let written = match &value {
            Some(body) => namespace
                .put(body.as_bytes(), WriteOptions::default())
                .map(drop),
            None => namespace.delete(WriteOptions::default()),
        };
        match written {
            Ok(()) => {
                *allowed = Allowed {
                    acknowledged: value,
                    attempted: Vec::new(),
                };
            }
            Err(error) => {
                // Only a poisoned store may have what it did not acknowledge.
                if !matches!(error, Error::Poisoned { .. }) {
                    allowed.attempted.pop();
                }
                outcome = outcome.and(Err(error));
            }
        }
    }
    outcome.and(engine.close())
}

/// A store whose last life ended by a crash, or by a clean close.
fn lived_in(model: &mut BTreeMap<String, Allowed>, closed: bool) -> Store {
    let store = Store::new();
    let engine = store.open().unwrap();
    for (client, stamp, size) in [("c0", 1, 10), ("c4", 2, 3_000)] {
        put(&engine, client, &body(stamp, size)).unwrap();
        let allowed = model.entry(client.to_owned()).or_default();
        allowed.acknowledged = Some(body(stamp, size));
    }
    if closed {
        engine.close().unwrap();
    }
    store.crashed(Unsynced::Lost)
}

/// What a crash makes of that which was not synced, by the seed.
fn unsynced(seed: u64) -> Unsynced {
    match seed {
        0 => Unsynced::Lost,
        1 => Unsynced::Kept,
        seed => Unsynced::Some { seed },
    }
}

#[test]
fn a_single_failure_of_any_operation_loses_nothing_and_the_store_opens_again() {
    for seed in seeds(2) {
        for (closed, kind) in [
            (true, io::ErrorKind::Other),
            (false, io::ErrorKind::Other),
            (true, io::ErrorKind::StorageFull),
        ] {
            for operation in 0.. {
                let context = format!("seed {seed}, closed {closed}, {kind:?} of {operation}");
                let mut model = BTreeMap::new();
                let store = lived_in(&mut model, closed);
                let count = Arc::new(AtomicU64::new(0));
                let counted = Arc::clone(&count);
                store.disk.set_fault(Box::new(move |_, _| {
                    (counted.fetch_add(1, Ordering::Relaxed) == operation).then_some(kind)
                }));
                // It may end well all the same: not every operation has to succeed.
                let _ = life(&store, &mut model);
                let has_failed = count.load(Ordering::Relaxed) > operation;
                let after = store.crashed(unsynced(seed));
                let engine = after
                    .open()
                    .unwrap_or_else(|error| panic!("{context}: {error}"));
                verify(&engine, &mut model, &context);
                if !has_failed {
                    assert!(operation > 100, "a life has more operations");
                    break;
                }
            }
        }
    }
}

#[test]
fn a_crash_at_every_single_operation_of_a_life_loses_nothing() {
    for seed in seeds(8) {
        let mut crashes = 0;
        for operation in 0.. {
            let mut model = BTreeMap::new();
            let store = lived_in(&mut model, seed % 3 == 2);
            cut_power_at(&store.disk, operation);
            let ended = life(&store, &mut model).is_ok();
            let context = format!("seed {seed}, operation {operation}");
            let after = store.crashed(unsynced(seed));
            let engine = after
                .open()
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            verify(&engine, &mut model, &context);
            drop(engine);
            crashes += 1;
            if ended {
                break;
            }
        }
        assert!(crashes > 100, "a life has more operations than {crashes}");
    }
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    for seed in seeds(200) {
        let mut random = Random::new(seed);
        let mut model = BTreeMap::new();
        let mut stamp = 0;
        let mut store = Store::new();
        for life in 0..6 {
            let context = format!("seed {seed} life {life}");
            // Sometimes while it opens, mostly while it writes.
            cut_power_at(&store.disk, random.below(220));
            if let Ok(engine) = store.open() {
                let _ = work(&engine, &mut random, &mut model, &mut stamp);
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
            let engine = store
                .open()
                .unwrap_or_else(|error| panic!("{context}: {error} ({error:?})"));
            verify(&engine, &mut model, &context);
            if random.below(2) == 0 {
                engine.close().unwrap();
            } else {
                drop(engine);
                store = store.crashed(Unsynced::Lost);
            }
        }
    }
}

#[test]
fn a_failed_log_sync_stops_writing_for_good_and_reads_go_on() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":1}").unwrap();
    store.disk.set_fault(Box::new(|operation, path| {
        (operation == Operation::Sync && path.to_string_lossy().ends_with(".seg"))
            .then_some(io::ErrorKind::Other)
    }));
    assert!(matches!(
        put(&engine, "c", "{\"n\":2}"),
        Err(Error::Poisoned { op: "sync", .. })
    ));
    store.disk.clear_fault();
    let syncs = store.disk.syncs(".seg");
    assert!(matches!(
        put(&engine, "c", "{\"n\":3}"),
        Err(Error::Poisoned { .. })
    ));
    assert!(matches!(
        put(&engine, "d", "{}"),
        Err(Error::Poisoned { .. })
    ));
    assert!(engine.writable().is_err());
    assert_eq!(
        store.disk.syncs(".seg"),
        syncs,
        "a failed sync was tried again"
    );
    assert_eq!(read(&engine, "c").unwrap().as_deref(), Some("{\"n\":1}"));
    assert!(engine.close().is_err());
    let after = store.crashed(Unsynced::Lost);
    assert_eq!(
        read(&after.open().unwrap(), "c").unwrap().as_deref(),
        Some("{\"n\":1}")
    );
}

#[test]
fn a_failed_blob_sync_fails_its_own_put_only() {
    let store = Store::new();
    let engine = store.open().unwrap();
    store.disk.set_fault(Box::new(|operation, path| {
        (operation == Operation::Sync && path.to_string_lossy().ends_with(".blob"))
            .then_some(io::ErrorKind::Other)
    }));
    assert!(matches!(
        put(&engine, "large", &body(1, 9_000)),
        Err(Error::Io { op: "sync", .. })
    ));
    put(&engine, "small", &body(2, 10)).unwrap();
    store.disk.clear_fault();
    put(&engine, "large", &body(3, 9_000)).unwrap();
    assert_eq!(read(&engine, "large").unwrap(), Some(body(3, 9_000)));
    engine.close().unwrap();
    assert_eq!(store.files("blobs", ".blob").len(), 1);
}

#[test]
fn a_full_disk_refuses_the_batch_changes_nothing_and_recovers() {
    for room in [0, 1, 60, 100, 700, 1_500, 3_000] {
        let store = Store::new();
        let engine = store.open().unwrap();
        put(&engine, "c", &body(1, 100)).unwrap();
        store.disk.set_capacity(store.disk.used_bytes() + room);
        let mut refused = 0;
        let mut last = body(1, 100);
        for write in 2..12 {
            let next = body(write, 400);
            match put(&engine, "c", &next) {
                Ok(()) => last = next,
                Err(Error::StorageFull { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
            assert_eq!(read(&engine, "c").unwrap(), Some(last.clone()));
        }
        assert!(refused >= 4);
        assert!(matches!(
            put(&engine, "large", &body(1, 9_000)),
            Err(Error::StorageFull { .. })
        ));
        // What was refused is not there after a crash either.
        let after = store.crashed(Unsynced::Some { seed: room });
        assert_eq!(read(&after.open().unwrap(), "c").unwrap(), Some(last));
        store.disk.set_capacity(u64::MAX);
        put(&engine, "c", "{\"n\":3}").unwrap();
        put(&engine, "large", &body(1, 9_000)).unwrap();
        assert_eq!(read(&engine, "c").unwrap().as_deref(), Some("{\"n\":3}"));
    }
}

#[test]
fn a_refused_batch_is_not_there_after_a_crash_either() {
    let store = Store::new();
    let engine = store.open().unwrap();
    let before = store.disk.used_bytes();
    put(&engine, "c0", &body(0, 100)).unwrap();
    put(&engine, "c0", &body(0, 100)).unwrap();
    let frame_bytes = (store.disk.used_bytes() - before) / 2;
    // Room for one more batch of one frame, and for the half of the batch behind it.
    store
        .disk
        .set_capacity(store.disk.used_bytes() + frame_bytes * 5 / 2);
    let (entered, syncing) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel();
    let mut first = true;
    store.disk.set_fault(Box::new(move |operation, _| {
        if operation == Operation::Sync && std::mem::take(&mut first) {
            entered.send(()).unwrap();
            released.recv().unwrap();
        }
        None
    }));
    let submit = |client: &str| {
        let mut writer = engine.writer();
        writer.write(body(1, 100).as_bytes()).unwrap();
        let namespace = engine.namespace("u", client).unwrap();
        namespace.submit_put(writer.finish().unwrap(), WriteOptions::default())
    };
    let alone = submit("c1");
    syncing.recv().unwrap();
    // Queued while the committer is held in its sync: one batch.
    let together = [submit("c2"), submit("c3")];
    release.send(()).unwrap();
    alone.wait().unwrap();
    for commit in together {
        assert!(matches!(commit.wait(), Err(Error::StorageFull { .. })));
    }
    for seed in 0..20 {
        let after = store.crashed(Unsynced::Some { seed });
        let engine = after.open().unwrap();
        assert_eq!(
            read(&engine, "c1").unwrap(),
            Some(body(1, 100)),
            "seed {seed}"
        );
        for refused in ["c2", "c3"] {
            assert_eq!(
                read(&engine, refused).unwrap(),
                None,
                "seed {seed}: {refused}"
            );
        }
    }
}
