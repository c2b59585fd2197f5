//! Snapshots: a copy of the store at one moment, of a store that is written, compacted,
//! damaged, full or poisoned.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use prefd_engine::{Config, Durability, Engine, Error, Snapshot, SnapshotFile, WriteOptions};
use prefd_tests::copies::{copied, files, lay, verified};
use prefd_tests::sim_disk::{Operation, Unsynced};
use prefd_tests::sim_store::{Store, body, delete, put, read};

/// What the user `u` has.
fn contents(engine: &Engine) -> BTreeMap<String, String> {
    let listed = engine.list("u", None, usize::MAX).unwrap();
    let content = |client: String| {
        let text = read(engine, &client).unwrap().unwrap();
        (client, text)
    };
    listed.into_iter().map(|e| content(e.client)).collect()
}

/// Some of everything: stale frames, small and large documents, deletes, what was not synced.
fn fill(engine: &Engine, life: u64) {
    for index in 0..60 {
        let client = format!("c{}", (index * 7 + life) % 40);
        if index % 9 == 4 {
            delete(engine, &client).unwrap();
            continue;
        }
        let size = if index % 10 == 3 { 5_000 } else { 1_500 };
        put(engine, &client, &body(life * 100 + index, size)).unwrap();
    }
    let unsynced = WriteOptions {
        durability: Some(Durability::Buffered),
        ..WriteOptions::default()
    };
    for (client, size) in [("small", 10), ("large", 5_000)] {
        let text = body(life, size);
        let namespace = engine.namespace("u", client).unwrap();
        namespace.write(text.as_bytes(), unsynced.clone()).unwrap();
    }
}

/// A store of a few lives, of which the last goes on.
fn lived_in() -> (Store, Engine) {
    let store = Store::new();
    for life in 0..3 {
        let engine = store.open().unwrap();
        fill(&engine, life);
        engine.close().unwrap();
    }
    let engine = store.open().unwrap();
    fill(&engine, 3);
    (store, engine)
}

#[test]
fn a_copy_is_the_store_as_it_was_whatever_is_written_before_it_is_read() {
    let (_store, engine) = lived_in();
    let expected = contents(&engine);
    let newest = engine.namespace("u", "large").unwrap().revision().unwrap();
    let snapshot = engine.snapshot().unwrap();
    assert_eq!(snapshot.revision(), newest);
    assert_eq!(snapshot.documents(), expected.len() as u64);
    let last = snapshot.files().last().unwrap();
    assert_eq!(last.path(), "log/manifest");
    // Of segments the header and the frames, and no room that is prepared behind them.
    let usage = engine.usage_on_disk();
    let is_segment = |file: &&SnapshotFile| file.path().ends_with("seg");
    let segments = snapshot.files().iter().filter(is_segment);
    let bytes: u64 = segments.map(SnapshotFile::bytes).sum();
    let frames = usage.live_bytes + usage.dead_bytes;
    assert_eq!(bytes, frames + 28 * usage.segments);
    fill(&engine, 4);
    let (_dir, copy) = copied(&snapshot);
    assert_eq!(contents(&copy), expected);
    // It goes on by itself, with revisions of its own: none that the original gives out.
    put(&copy, "c1", "{}").unwrap();
    let revision = |engine: &Engine| {
        let revision = engine.namespace("u", "c1").unwrap().revision();
        revision.unwrap().expect("it is set").get()
    };
    let next = revision(&copy);
    assert!(next > newest.unwrap().get() + (1 << 40));
    fill(&copy, 5);
    // So does a copy of the copy, and each of them opens again.
    let (again_dir, again) = copied(&copy.snapshot().unwrap());
    put(&again, "c1", "{}").unwrap();
    let third = revision(&again);
    assert!(third > next + (1 << 40));
    again.close().unwrap();
    assert_eq!(verified(again_dir.path()).problems, []);
    let again = Engine::open(Config::new(again_dir.path())).unwrap();
    assert_eq!(revision(&again), third);
    copy.close().unwrap();
}

#[test]
fn of_an_empty_store_there_is_the_manifest() {
    let store = Store::new();
    let engine = store.open().unwrap();
    let check = |documents| {
        let snapshot = engine.snapshot().unwrap();
        assert_eq!((snapshot.revision(), snapshot.documents()), (None, 0));
        let paths: Vec<_> = snapshot.files().iter().map(SnapshotFile::path).collect();
        assert_eq!(paths, ["log/manifest"]);
        let (_dir, copy) = copied(&snapshot);
        put(&copy, "c", "{}").unwrap();
        assert_eq!(copy.documents(), documents);
    };
    check(1);
    // A segment is begun, and nothing is left in it.
    store.disk.set_fault(Box::new(|operation, path| {
        let is_segment = path.extension().is_some_and(|e| e == "seg");
        let fails = operation == Operation::Write && is_segment;
        fails.then_some(ErrorKind::StorageFull)
    }));
    assert!(put(&engine, "c", "{}").is_err());
    store.disk.clear_fault();
    check(1);
}

#[test]
fn nothing_is_written_for_one() {
    let (store, engine) = lived_in();
    let expected = contents(&engine);
    store.disk.set_fault(Box::new(|operation, _| {
        let reads = [Operation::Open, Operation::Read, Operation::Other];
        (!reads.contains(&operation)).then_some(ErrorKind::StorageFull)
    }));
    let snapshot = engine.snapshot().unwrap();
    let (_dir, copy) = copied(&snapshot);
    assert_eq!(contents(&copy), expected);
    store.disk.clear_fault();
    fill(&engine, 5);
}

#[test]
fn a_full_disk_does_not_matter() {
    let (store, engine) = lived_in();
    store.disk.set_capacity(store.disk.used_bytes());
    let full = put(&engine, "more", &body(1, 70_000));
    assert!(matches!(full, Err(Error::StorageFull { .. })), "{full:?}");
    let expected = contents(&engine);
    let (_dir, copy) = copied(&engine.snapshot().unwrap());
    assert_eq!(contents(&copy), expected);
}

#[test]
fn once_writing_has_stopped_it_has_what_was_acknowledged_and_nothing_else() {
    for failing in [
        &[Operation::Sync][..],
        &[Operation::Write, Operation::SetLen],
        &[Operation::Write, Operation::Sync],
    ] {
        for bytes in [100, 1_900, 5_000] {
            let (store, engine) = lived_in();
            let expected = contents(&engine);
            let newest = engine.snapshot().unwrap().revision();
            store.disk.set_fault(Box::new(move |operation, path| {
                let is_segment = path.extension().is_some_and(|e| e == "seg");
                let fails = is_segment && failing.contains(&operation);
                fails.then_some(ErrorKind::Other)
            }));
            let outcome = put(&engine, "small", &body(9, bytes));
            assert!(
                matches!(outcome, Err(Error::Poisoned { .. })),
                "{failing:?}"
            );
            let snapshot = engine.snapshot().unwrap();
            assert_eq!(snapshot.revision(), newest);
            let (_dir, copy) = copied(&snapshot);
            assert_eq!(contents(&copy), expected, "{failing:?}");
        }
    }
}

#[test]
fn a_failed_sync_of_earlier_writes_takes_none_of_them_out() {
    let (store, engine) = lived_in();
    let expected = contents(&engine);
    store.disk.set_fault(Box::new(|operation, _| {
        (operation == Operation::Sync).then_some(ErrorKind::Other)
    }));
    // Nothing is there to be deleted, but the answer waits for what is not synced.
    let outcome = delete(&engine, "absent");
    assert!(matches!(outcome, Err(Error::Poisoned { .. })));
    let (_dir, copy) = copied(&engine.snapshot().unwrap());
    assert_eq!(contents(&copy), expected);
}

#[test]
fn a_damaged_store_is_copied_with_its_damage() {
    let (store, engine) = lived_in();
    engine.close().unwrap();
    let segments = store.files("log", ".seg");
    let mut damaged = store.disk.bytes(&segments[0]);
    let end = damaged.len();
    damaged[end - 10] ^= 1;
    damaged[1_000] ^= 1;
    store.disk.overwrite(&segments[0], damaged);
    let mut short = store.disk.bytes(&segments[1]);
    short.truncate(2_000);
    store.disk.overwrite(&segments[1], short);
    let blob = store.files("blobs", ".blob").remove(0);
    store.disk.lose(&blob);
    let engine = store.open().unwrap();
    let states = |engine: &Engine| -> Vec<_> {
        let clients = (0..40).map(|index| format!("c{index}"));
        clients.map(|client| read(engine, &client).ok()).collect()
    };
    let expected = states(&engine);
    assert!(expected.contains(&None));
    let dir = lay(&files(&engine.snapshot().unwrap()));
    assert!(
        !dir.path()
            .join("blobs")
            .join(blob.file_name().unwrap())
            .exists()
    );
    let found = verified(dir.path());
    assert!(found.problems.len() > 2, "{:?}", found.problems);
    let copy = Engine::open(Config::new(dir.path())).unwrap();
    assert_eq!(states(&copy), expected);
}

/// Where the segments and blobs of a snapshot are on the simulated disk.
fn places(store: &Store, snapshot: &Snapshot) -> Vec<PathBuf> {
    let paths = snapshot.files().iter().map(SnapshotFile::path);
    let places = paths.map(|path| store.path(path));
    let is_kind = |path: &PathBuf| path.extension().is_some_and(|e| e == "seg" || e == "blob");
    places.filter(is_kind).collect()
}

#[test]
fn its_files_stay_until_the_last_that_needs_them_is_dropped() {
    let (store, engine) = lived_in();
    let expected = contents(&engine);
    let first = engine.snapshot().unwrap();
    let second = engine.snapshot().unwrap();
    let held = places(&store, &first);
    assert!(held.iter().any(|path| path.extension().unwrap() == "blob"));
    // Nothing of what is held is a part of the store afterwards.
    for client in expected.keys() {
        put(&engine, client, "{}").unwrap();
    }
    put(&engine, "filling", &body(1, 70_000)).unwrap();
    engine.compact().unwrap();
    let are_there = || held.iter().filter(|path| store.disk.files().contains(path));
    assert_eq!(are_there().count(), held.len());
    drop(first);
    engine.compact().unwrap();
    let (_dir, copy) = copied(&second);
    assert_eq!(contents(&copy), expected);
    let third = engine.snapshot().unwrap();
    drop(second);
    engine.compact().unwrap();
    let still = places(&store, &third);
    assert!(are_there().all(|path| still.contains(path)));
    drop(third);
    put(&engine, "filling", "{}").unwrap();
    engine.close().unwrap();
    let engine = store.open().unwrap();
    engine.compact().unwrap();
    assert_eq!(are_there().count(), 0);
}

#[test]
fn they_go_by_themselves_afterwards() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.inline_bytes = 2048;
    let engine = Engine::open(config).unwrap();
    fill(&engine, 1);
    let snapshot = engine.snapshot().unwrap();
    for life in 2..6 {
        fill(&engine, life);
    }
    engine.compact().unwrap();
    let is_there = |path: &&str| dir.path().join(path).exists();
    let paths = || snapshot.files().iter().map(SnapshotFile::path);
    assert!(paths().all(|path| is_there(&path)));
    let held: Vec<_> = paths().map(str::to_owned).collect();
    let held = held.iter().filter(|path| *path != "log/manifest");
    drop(snapshot);
    let deadline = Instant::now() + Duration::from_secs(60);
    while held.clone().any(|path| is_there(&path.as_str())) {
        assert!(Instant::now() < deadline, "they are there still");
        std::thread::yield_now();
    }
}

#[test]
fn closing_the_engine_ends_it() {
    let (store, engine) = lived_in();
    let snapshot = engine.snapshot().unwrap();
    let held = places(&store, &snapshot);
    let mut reader = snapshot.open(&snapshot.files()[0]).unwrap();
    reader.read_exact(&mut [0; 100]).unwrap();
    fill(&engine, 4);
    engine.compact().unwrap();
    engine.close().unwrap();
    assert!(matches!(engine.snapshot(), Err(Error::Closed)));
    for file in snapshot.files() {
        assert!(matches!(snapshot.open(file), Err(Error::Closed)));
    }
    let error = reader.read_exact(&mut [0; 100]).unwrap_err();
    let inner = error.get_ref().unwrap().downcast_ref::<Error>();
    assert!(matches!(inner, Some(Error::Closed)), "{error}");
    // What was held for it is nobody's any more.
    let first = &held[0];
    assert!(!store.disk.files().contains(first), "{}", first.display());
    store.open().unwrap();
}

#[test]
fn a_process_that_ends_with_one_leaves_nothing_behind() {
    let (store, engine) = lived_in();
    let snapshot = engine.snapshot().unwrap();
    fill(&engine, 4);
    engine.compact().unwrap();
    let expected = contents(&engine);
    let after = store.crashed(Unsynced::Kept);
    drop(snapshot);
    let held = after.files("log", ".seg").len() + after.files("blobs", ".blob").len();
    let reopened = after.open().unwrap();
    reopened.compact().unwrap();
    assert_eq!(contents(&reopened), expected);
    let usage = reopened.usage_on_disk();
    let blobs = after.files("blobs", ".blob").len();
    let segments = after.files("log", ".seg").len();
    assert_eq!(
        (blobs as u64, segments as u64),
        (usage.blobs, usage.segments)
    );
    assert!(blobs + segments < held);
}
