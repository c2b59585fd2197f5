//! Snapshots. A snapshot copies the store at one moment, while the store is written to or
//! compacted, and also if it is damaged, full or poisoned.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use prefd_engine::{Config, Durability, Engine, Error, Snapshot, SnapshotFile, WriteOptions};
use prefd_tests::sim_disk::{DiskOperation, Unsynced};
use prefd_tests::sim_store::{Store, body, delete, put, read};
use prefd_tests::snapshot_copy::{files, open_copy, verify_dir, write_dir};

/// The documents of the user `u`, by client.
fn contents(engine: &Engine) -> BTreeMap<String, String> {
    let listed = engine.list("u", None, usize::MAX).unwrap();
    let content = |client: String| {
        let text = read(engine, &client).unwrap().unwrap();
        (client, text)
    };
    listed.into_iter().map(|e| content(e.client)).collect()
}

/// Writes small and large documents, replaces some, deletes some, and leaves the last two
/// writes unsynced.
fn fill(engine: &Engine, run: u64) {
    for index in 0..60 {
        let client = format!("c{}", (index * 7 + run) % 40);
        if index % 9 == 4 {
            delete(engine, &client).unwrap();
            continue;
        }
        let size = if index % 10 == 3 { 5_000 } else { 1_500 };
        put(engine, &client, &body(run * 100 + index, size)).unwrap();
    }
    let unsynced = WriteOptions {
        durability: Some(Durability::Buffered),
        ..WriteOptions::default()
    };
    for (client, size) in [("small", 10), ("large", 5_000)] {
        let text = body(run, size);
        let namespace = engine.namespace("u", client).unwrap();
        namespace.write(text.as_bytes(), unsynced.clone()).unwrap();
    }
}

/// A store that was filled and closed three times, and is now open and filled again.
fn reopened_store() -> (Store, Engine) {
    let store = Store::new();
    for run in 0..3 {
        let engine = store.open().unwrap();
        fill(&engine, run);
        engine.close().unwrap();
    }
    let engine = store.open().unwrap();
    fill(&engine, 3);
    (store, engine)
}

#[test]
fn snapshot_ignores_later_writes_and_its_copy_accepts_writes() {
    let (_store, engine) = reopened_store();
    let expected = contents(&engine);
    let newest = engine.namespace("u", "large").unwrap().revision().unwrap();
    let snapshot = engine.snapshot().unwrap();
    assert_eq!(snapshot.revision(), newest);
    assert_eq!(snapshot.documents(), expected.len() as u64);
    let last = snapshot.files().last().unwrap();
    assert_eq!(last.path(), "log/manifest");
    // A segment is copied up to the end of its frames, without its preallocated space.
    let usage = engine.usage_on_disk();
    let is_segment = |file: &&SnapshotFile| file.path().ends_with("seg");
    let segments = snapshot.files().iter().filter(is_segment);
    let bytes: u64 = segments.map(SnapshotFile::bytes).sum();
    let frames = usage.live_bytes + usage.dead_bytes;
    assert_eq!(bytes, frames + 28 * usage.segments);
    fill(&engine, 4);
    let (_dir, copy) = open_copy(&snapshot);
    assert_eq!(contents(&copy), expected);
    // The copy accepts writes, and does not assign a revision that the original store has assigned
    // in the meantime.
    put(&copy, "c1", "{}").unwrap();
    let revision = |engine: &Engine| {
        let revision = engine.namespace("u", "c1").unwrap().revision();
        revision.unwrap().expect("the document was put").get()
    };
    let next = revision(&copy);
    assert!(next > revision(&engine));
    fill(&copy, 5);
    // A copy of the copy accepts writes as well, and can be reopened.
    let (again_dir, again) = open_copy(&copy.snapshot().unwrap());
    put(&again, "c1", "{}").unwrap();
    let third = revision(&again);
    assert!(third > next && third > revision(&copy));
    again.close().unwrap();
    assert_eq!(verify_dir(again_dir.path()).problems, []);
    let again = Engine::open(Config::new(again_dir.path())).unwrap();
    assert_eq!(revision(&again), third);
    copy.close().unwrap();
}

#[test]
fn snapshot_of_an_empty_store_has_only_the_manifest() {
    let store = Store::new();
    let engine = store.open().unwrap();
    let check = |documents| {
        let snapshot = engine.snapshot().unwrap();
        assert_eq!((snapshot.revision(), snapshot.documents()), (None, 0));
        let paths: Vec<_> = snapshot.files().iter().map(SnapshotFile::path).collect();
        assert_eq!(paths, ["log/manifest"]);
        let (_dir, copy) = open_copy(&snapshot);
        put(&copy, "c", "{}").unwrap();
        assert_eq!(copy.documents(), documents);
    };
    check(1);
    // A put that fails while it creates the first segment leaves no frame.
    store.disk.set_fault(Box::new(|operation, path| {
        let is_segment = path.extension().is_some_and(|e| e == "seg");
        let fails = operation == DiskOperation::Write && is_segment;
        fails.then_some(ErrorKind::StorageFull)
    }));
    assert!(put(&engine, "c", "{}").is_err());
    store.disk.clear_fault();
    check(1);
}

#[test]
fn snapshot_writes_nothing_to_the_disk() {
    let (store, engine) = reopened_store();
    let expected = contents(&engine);
    store.disk.set_fault(Box::new(|operation, _| {
        let reads = [
            DiskOperation::Open,
            DiskOperation::Read,
            DiskOperation::Other,
        ];
        (!reads.contains(&operation)).then_some(ErrorKind::StorageFull)
    }));
    let snapshot = engine.snapshot().unwrap();
    let (_dir, copy) = open_copy(&snapshot);
    assert_eq!(contents(&copy), expected);
    store.disk.clear_fault();
    fill(&engine, 5);
}

#[test]
fn snapshot_succeeds_on_a_full_disk() {
    let (store, engine) = reopened_store();
    store.disk.set_capacity(store.disk.used_bytes());
    let full = put(&engine, "more", &body(1, 70_000));
    assert!(matches!(full, Err(Error::StorageFull { .. })), "{full:?}");
    let expected = contents(&engine);
    let (_dir, copy) = open_copy(&engine.snapshot().unwrap());
    assert_eq!(contents(&copy), expected);
}

#[test]
fn snapshot_of_a_poisoned_store_has_only_acknowledged_writes() {
    for failing in [
        &[DiskOperation::Sync][..],
        &[DiskOperation::Write, DiskOperation::SetLen],
        &[DiskOperation::Write, DiskOperation::Sync],
    ] {
        for bytes in [100, 1_900, 5_000] {
            let (store, engine) = reopened_store();
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
            let (_dir, copy) = open_copy(&snapshot);
            assert_eq!(contents(&copy), expected, "{failing:?}");
        }
    }
}

#[test]
fn snapshot_after_a_failed_sync_includes_buffered_writes() {
    let (store, engine) = reopened_store();
    let expected = contents(&engine);
    store.disk.set_fault(Box::new(|operation, _| {
        (operation == DiskOperation::Sync).then_some(ErrorKind::Other)
    }));
    // Deleting an absent document writes nothing, but it syncs the buffered writes before it.
    let outcome = delete(&engine, "absent");
    assert!(matches!(outcome, Err(Error::Poisoned { .. })));
    let (_dir, copy) = open_copy(&engine.snapshot().unwrap());
    assert_eq!(contents(&copy), expected);
}

#[test]
fn snapshot_of_a_damaged_store_copies_the_damage() {
    let (store, engine) = reopened_store();
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
    let dir = write_dir(&files(&engine.snapshot().unwrap()));
    assert!(
        !dir.path()
            .join("blobs")
            .join(blob.file_name().unwrap())
            .exists()
    );
    let found = verify_dir(dir.path());
    assert!(found.problems.len() > 2, "{:?}", found.problems);
    let copy = Engine::open(Config::new(dir.path())).unwrap();
    assert_eq!(states(&copy), expected);
}

/// The paths of a snapshot's segments and blobs on the simulated disk.
fn segment_and_blob_paths(store: &Store, snapshot: &Snapshot) -> Vec<PathBuf> {
    let paths = snapshot.files().iter().map(SnapshotFile::path);
    let paths = paths.map(|path| store.path(path));
    let is_segment_or_blob =
        |path: &PathBuf| path.extension().is_some_and(|e| e == "seg" || e == "blob");
    paths.filter(is_segment_or_blob).collect()
}

#[test]
fn snapshot_files_stay_until_their_last_snapshot_is_dropped() {
    let (store, engine) = reopened_store();
    let expected = contents(&engine);
    let first = engine.snapshot().unwrap();
    let second = engine.snapshot().unwrap();
    let held = segment_and_blob_paths(&store, &first);
    assert!(held.iter().any(|path| path.extension().unwrap() == "blob"));
    // Replace every document, so that only the snapshots need the old files.
    for client in expected.keys() {
        put(&engine, client, "{}").unwrap();
    }
    put(&engine, "filling", &body(1, 70_000)).unwrap();
    engine.compact().unwrap();
    let existing = || held.iter().filter(|path| store.disk.files().contains(path));
    assert_eq!(existing().count(), held.len());
    drop(first);
    engine.compact().unwrap();
    let (_dir, copy) = open_copy(&second);
    assert_eq!(contents(&copy), expected);
    let third = engine.snapshot().unwrap();
    drop(second);
    engine.compact().unwrap();
    let still_needed = segment_and_blob_paths(&store, &third);
    assert!(existing().all(|path| still_needed.contains(path)));
    drop(third);
    put(&engine, "filling", "{}").unwrap();
    engine.close().unwrap();
    let engine = store.open().unwrap();
    engine.compact().unwrap();
    assert_eq!(existing().count(), 0);
}

#[test]
fn snapshot_files_are_removed_in_the_background_after_its_drop() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.inline_bytes = 2048;
    let engine = Engine::open(config).unwrap();
    fill(&engine, 1);
    let snapshot = engine.snapshot().unwrap();
    for run in 2..6 {
        fill(&engine, run);
    }
    engine.compact().unwrap();
    let exists = |path: &&str| dir.path().join(path).exists();
    let paths = || snapshot.files().iter().map(SnapshotFile::path);
    assert!(paths().all(|path| exists(&path)));
    let held: Vec<_> = paths().map(str::to_owned).collect();
    let held = held.iter().filter(|path| *path != "log/manifest");
    drop(snapshot);
    let deadline = Instant::now() + Duration::from_secs(60);
    while held.clone().any(|path| exists(&path.as_str())) {
        assert!(
            Instant::now() < deadline,
            "the files of the dropped snapshot were not removed within 60 s"
        );
        std::thread::yield_now();
    }
}

#[test]
fn closing_the_engine_closes_its_snapshots() {
    let (store, engine) = reopened_store();
    let snapshot = engine.snapshot().unwrap();
    let held = segment_and_blob_paths(&store, &snapshot);
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
    // The close removed the files that only the snapshot needed.
    let first = &held[0];
    assert!(
        !store.disk.files().contains(first),
        "{} still exists",
        first.display()
    );
    store.open().unwrap();
}

#[test]
fn crash_with_an_open_snapshot_leaves_no_obsolete_files() {
    let (store, engine) = reopened_store();
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
