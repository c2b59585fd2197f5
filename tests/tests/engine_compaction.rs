//! Compaction removes stale frames and obsolete blobs. It must not change a current document,
//! and it must not disturb concurrent reads and writes.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prefd_engine::{Config, Durability, Engine, Error, Precondition, SpaceUsage, WriteOptions};
use prefd_tests::random::Random;
use prefd_tests::sim_disk::{DiskOperation, Unsynced};
use prefd_tests::sim_store::{Store, body, delete, put, read};

/// A store that was opened four times, and its current documents. Each time, most older
/// documents were replaced and some were deleted.
fn store_with_stale_frames() -> (Store, BTreeMap<String, String>) {
    let store = Store::new();
    let mut contents = BTreeMap::new();
    for life in 0..4 {
        let engine = store.open().unwrap();
        for index in 0..60 {
            let stamp = life * 100 + index;
            let client = format!("c{}", (index * 7 + life) % 40);
            if index % 9 == 4 {
                delete(&engine, &client).unwrap();
                contents.remove(&client);
            } else {
                let size = if index % 10 == 3 { 3_000 } else { 1_500 };
                let body = body(stamp, size);
                put(&engine, &client, &body).unwrap();
                contents.insert(client, body);
            }
        }
        engine.close().unwrap();
    }
    (store, contents)
}

fn assert_holds(engine: &Engine, contents: &BTreeMap<String, String>, context: &str) {
    for index in 0..40 {
        let client = format!("c{index}");
        let found = read(engine, &client).unwrap_or_else(|e| panic!("{context}: {client}: {e}"));
        assert_eq!(found.as_ref(), contents.get(&client), "{context}: {client}");
    }
    let listed = engine.list("u", None, usize::MAX).unwrap();
    let listed: Vec<_> = listed.iter().map(|entry| &*entry.client).collect();
    assert_eq!(listed, contents.keys().collect::<Vec<_>>(), "{context}");
}

/// Total size of all segments.
fn log_bytes(store: &Store) -> u64 {
    let files = store.files("log", ".seg");
    files.iter().map(|f| store.disk.bytes(f).len() as u64).sum()
}

#[test]
fn compaction_removes_stale_frames_and_keeps_documents() {
    let (store, contents) = store_with_stale_frames();
    let engine = store.open().unwrap();
    let before = engine.usage_on_disk();
    let stat = |client| engine.namespace("u", client).unwrap().stat().unwrap();
    let stats: Vec<_> = contents.keys().map(&stat).collect();
    assert!(before.dead_bytes > before.live_bytes && before.segments > 4);
    engine.compact().unwrap();
    let after = engine.usage_on_disk();
    assert_eq!((after.dead_bytes, after.tombstones), (0, 0));
    let kept = |usage: &SpaceUsage| (usage.documents, usage.live_bytes, usage.blobs);
    assert_eq!(kept(&after), kept(&before));
    assert!(after.segments <= 2);
    // Compaction keeps the revision, the time and the size of each document.
    let kept: Vec<_> = contents.keys().map(stat).collect();
    assert_eq!(kept, stats);
    assert_holds(&engine, &contents, "compacted");
    engine.compact().unwrap();
    assert_eq!(engine.usage_on_disk(), after);
    engine.close().unwrap();
    assert!(log_bytes(&store) < after.live_bytes + 100);
    assert_eq!(store.files("blobs", ".blob").len() as u64, after.blobs);
    let engine = store.open().unwrap();
    assert_eq!(engine.usage_on_disk(), after);
    assert_holds(&engine, &contents, "reopened");
    let (_, kept_revision) = (engine.compact(), stats[0].unwrap().revision);
    let client = contents.keys().next().unwrap();
    engine
        .namespace("u", client)
        .unwrap()
        .write(
            b"{}",
            WriteOptions {
                precondition: Precondition::matches(kept_revision),
                ..WriteOptions::default()
            },
        )
        .unwrap();
}

#[test]
fn usage_on_disk_is_unchanged_by_a_reopen() {
    let (store, _) = store_with_stale_frames();
    let engine = store.open().unwrap();
    put(&engine, "c1", &body(1, 5_000)).unwrap();
    delete(&engine, "c1").unwrap();
    put(&engine, "c2", &body(2, 100)).unwrap();
    let counted = engine.usage_on_disk();
    engine.close().unwrap();
    assert_eq!(store.open().unwrap().usage_on_disk(), counted);
}

#[test]
fn segment_emptied_by_recovery_is_not_counted() {
    let store = Store::new();
    let engine = store.open().unwrap();
    // Recovery copies the last batch to a new segment. The last batch is all that the first
    // segment contains.
    put(&engine, "c1", "{}").unwrap();
    let store = store.crashed(Unsynced::Kept);
    let engine = store.open().unwrap();
    assert_eq!(store.files("log", ".seg").len(), 1);
    assert_eq!(engine.usage_on_disk().segments, 1);
    engine.compact().unwrap();
    assert_eq!(engine.usage_on_disk().damaged_frames, 0);
}

#[test]
fn delete_is_kept_while_it_hides_an_older_frame() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "hidden", &body(1, 50_000)).unwrap();
    for index in 0..36 {
        put(&engine, &format!("kept{index}"), &body(2, 1_900)).unwrap();
    }
    put(&engine, "later", "{}").unwrap();
    delete(&engine, "hidden").unwrap();
    engine.close().unwrap();
    // Damage a current frame of the first segment, so that the segment cannot be rewritten.
    let first = store.files("log", ".seg").remove(0);
    let intact = store.disk.bytes(&first);
    let mut damaged = intact.clone();
    let at = damaged.len() - 1_000;
    damaged[at] ^= 1;
    store.disk.overwrite(&first, damaged);
    let engine = store.open().unwrap();
    assert!(matches!(engine.compact(), Err(Error::Corrupt { path, .. }) if path == first));
    let usage = engine.usage_on_disk();
    assert_eq!((usage.tombstones, usage.damaged_frames), (1, 1));
    engine.close().unwrap();
    let engine = store.open().unwrap();
    assert_eq!(read(&engine, "hidden").unwrap(), None);
    assert_eq!(read(&engine, "later").unwrap().as_deref(), Some("{}"));
    assert_eq!(read(&engine, "kept1").unwrap(), Some(body(2, 1_900)));
    engine.close().unwrap();
    store.disk.overwrite(&first, intact);
    let engine = store.open().unwrap();
    engine.compact().unwrap();
    assert_eq!(engine.usage_on_disk().tombstones, 0);
    assert_eq!(read(&engine, "hidden").unwrap(), None);
    engine.close().unwrap();
    assert_eq!(read(&store.open().unwrap(), "hidden").unwrap(), None);
}

#[test]
fn compaction_of_a_replaced_document_syncs_its_successor() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":1}").unwrap();
    engine.close().unwrap();
    let engine = store.open().unwrap();
    put(&engine, "other", "{}").unwrap();
    let buffered = WriteOptions {
        durability: Some(Durability::Buffered),
        ..WriteOptions::default()
    };
    let namespace = engine.namespace("u", "c").unwrap();
    namespace.write(b"{\"n\":2}", buffered).unwrap();
    // The first segment has no current frame now. If compaction removed the segment before the
    // newer frame is synced, a crash would lose both versions of the document.
    engine.compact().unwrap();
    let after = store.crashed(Unsynced::Lost);
    let found = read(&after.open().unwrap(), "c").unwrap();
    assert_eq!(found.as_deref(), Some("{\"n\":2}"));
    assert_eq!(
        after.files("log", "1.seg"),
        Vec::<std::path::PathBuf>::new()
    );
}

#[test]
fn read_in_progress_survives_compaction() {
    let (store, contents) = store_with_stale_frames();
    let engine = store.open().unwrap();
    let large = engine.namespace("u", "large").unwrap();
    let text = body(7, 300_000);
    large
        .write(text.as_bytes(), WriteOptions::default())
        .unwrap();
    let mut chunks = large.get().unwrap().unwrap().chunks();
    let mut received = chunks.next().unwrap().unwrap().to_vec();
    let client = contents.keys().next().unwrap();
    let small = engine
        .namespace("u", client)
        .unwrap()
        .get()
        .unwrap()
        .unwrap();
    large.write(b"{}", WriteOptions::default()).unwrap();
    delete(&engine, client).unwrap();
    engine.compact().unwrap();
    assert!(engine.usage_on_disk().blobs < store.disk.files().len() as u64);
    for chunk in chunks {
        received.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(received, text.as_bytes());
    assert_eq!(small.read().unwrap(), contents[client].as_bytes());
}

#[test]
fn damaged_segment_is_kept_and_other_documents_stay_readable() {
    let (store, contents) = store_with_stale_frames();
    // The last frame of the last segment is current.
    let last = store.files("log", ".seg").pop().unwrap();
    let mut bytes = store.disk.bytes(&last);
    let end = bytes.len();
    bytes[end - 10] ^= 1;
    store.disk.overwrite(&last, bytes);
    let engine = store.open().unwrap();
    assert!(matches!(engine.compact(), Err(Error::Corrupt { path, .. }) if path == last));
    let usage = engine.usage_on_disk();
    assert_eq!(usage.damaged_frames, 1);
    let mut errors = 0;
    for (client, expected) in &contents {
        match read(&engine, client) {
            Ok(found) => assert_eq!(found.as_ref(), Some(expected)),
            Err(Error::Corrupt { path, .. }) => {
                assert_eq!(path, last);
                errors += 1;
            }
            Err(other) => panic!("expected Corrupt: {other}"),
        }
    }
    assert_eq!(errors, 1);
}

/// A store of six segments, and its current documents. Each segment has a current frame, and the
/// first five segments also have stale frames.
fn store_of_partly_stale_segments() -> (Store, BTreeMap<String, String>) {
    let store = Store::new();
    let mut contents = BTreeMap::new();
    for life in 0..6 {
        let engine = store.open().unwrap();
        for index in life..20 {
            let (client, body) = (format!("c{index}"), body(life * 20 + index, 1_500));
            put(&engine, &client, &body).unwrap();
            contents.insert(client, body);
        }
        engine.close().unwrap();
    }
    (store, contents)
}

#[test]
fn unreadable_segment_does_not_stop_compaction_of_others() {
    let (store, contents) = store_of_partly_stale_segments();
    let engine = store.open().unwrap();
    let unreadable = store.files("log", ".seg").remove(0);
    let unreadable_bytes = store.disk.bytes(&unreadable).len() as u64;
    store.disk.fail_reads(unreadable.clone());
    let outcome = engine.compact();
    assert!(
        matches!(&outcome, Err(Error::Unreadable { path, .. }) if *path == unreadable),
        "{outcome:?}"
    );
    let left = engine.usage_on_disk().dead_bytes;
    assert!(
        0 < left && left < unreadable_bytes,
        "reclaimable bytes left: {left}"
    );
    store.disk.clear_fault();
    engine.compact().unwrap();
    assert_eq!(engine.usage_on_disk().dead_bytes, 0);
    assert_holds(&engine, &contents, "done");
}

#[test]
fn unreadable_segment_does_not_stop_background_compaction() {
    let (store, contents) = store_of_partly_stale_segments();
    let before = store.files("log", ".seg");
    // All reads of the segment that is read first fail.
    let mut unreadable = None;
    store.disk.set_fault(Box::new(move |operation, path| {
        let is_segment = path.extension().is_some_and(|e| e == "seg");
        if operation != DiskOperation::Read || !is_segment {
            return None;
        }
        (unreadable.get_or_insert_with(|| path.to_owned()) == path).then_some(ErrorKind::Other)
    }));
    let mut config = store.config();
    config.background_compaction = true;
    let engine = Engine::open(config).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while before.iter().all(|path| store.disk.files().contains(path)) {
        assert!(Instant::now() < deadline, "no segment was rewritten");
        std::thread::sleep(Duration::from_millis(1));
    }
    store.disk.clear_fault();
    assert_holds(&engine, &contents, "done");
}

#[test]
fn failed_compaction_is_completed_by_the_next() {
    for operation in [
        DiskOperation::Create,
        DiskOperation::Write,
        DiskOperation::Read,
    ] {
        let (store, contents) = store_with_stale_frames();
        let engine = store.open().unwrap();
        let mut seen = 0;
        store.disk.set_fault(Box::new(move |now, _| {
            seen += usize::from(now == operation);
            (now == operation && seen > 2).then_some(ErrorKind::Other)
        }));
        let outcome = engine.compact();
        assert!(
            matches!(outcome, Err(Error::Io { .. } | Error::Unreadable { .. })),
            "{operation:?}: {outcome:?}"
        );
        store.disk.clear_fault();
        assert_holds(&engine, &contents, &format!("failed {operation:?}"));
        engine.compact().unwrap();
        assert_eq!(engine.usage_on_disk().dead_bytes, 0);
        assert_holds(&engine, &contents, "done");
    }
}

#[test]
fn catalogue_rebuilt_during_compaction_is_complete() {
    for _ in 0..10 {
        let (store, contents) = store_with_stale_frames();
        // Without a clean close, the catalogue is rebuilt, and reads the segments that are
        // compacted at the same time.
        let store = store.crashed(Unsynced::Lost);
        let engine = store.open().unwrap();
        engine.compact().unwrap();
        assert_holds(&engine, &contents, "rebuilt");
    }
}

#[test]
fn concurrent_writes_and_compaction_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.cache_bytes = 0;
    config.open_segments = 2;
    let engine = Engine::open(config.clone()).unwrap();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let engine = engine.clone();
                scope.spawn(move || {
                    let mut random = Random::new(writer);
                    for round in 0..400 {
                        let client = format!("{writer}-{}", random.below(30));
                        let text = body(round, 800);
                        put(&engine, &client, &text).unwrap();
                        assert_eq!(read(&engine, &client).unwrap(), Some(text));
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                engine.compact().unwrap();
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
    let documents = engine.documents();
    engine.compact().unwrap();
    engine.close().unwrap();
    let engine = Engine::open(config).unwrap();
    assert_eq!(engine.documents(), documents);
    assert_eq!(engine.usage_on_disk().documents, documents);
}

fn bytes_in(dir: &Path) -> u64 {
    std::fs::read_dir(dir)
        .unwrap()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

#[test]
fn log_under_steady_overwriting_stays_below_twice_live_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = 256 * 1024;
    config.reserve_bytes = 0;
    let engine = Engine::open(config).unwrap();
    let mut random = Random::new(1);
    let buffered = || WriteOptions {
        durability: Some(Durability::Buffered),
        ..WriteOptions::default()
    };
    for stamp in 0..20_000 {
        let client = format!("c{}", random.below(1_000));
        let namespace = engine.namespace("u", &client).unwrap();
        let text = body(stamp, 1_000);
        namespace.write(text.as_bytes(), buffered()).unwrap();
    }
    // Twice the size of 1,000 documents of 1,025 bytes, plus two segments of 256 KiB.
    let allowed = 2 * 1_025_000 + 2 * 256 * 1024;
    let is_below = || bytes_in(&dir.path().join("log")) < allowed;
    let began = Instant::now();
    while !is_below() && began.elapsed() < Duration::from_secs(60) {
        std::thread::yield_now();
    }
    assert!(
        is_below(),
        "the log has {} bytes, more than {allowed}",
        bytes_in(&dir.path().join("log"))
    );
    // Background compaction rewrites only as much as it needs to.
    assert!(engine.usage_on_disk().dead_bytes > 0);
}

#[test]
fn short_segments_of_many_restarts_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path());
    for life in 0..40 {
        let engine = Engine::open(config.clone()).unwrap();
        put(&engine, &format!("c{life}"), "{}").unwrap();
        let began = Instant::now();
        while engine.usage_on_disk().segments > 10 && began.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        assert!(engine.usage_on_disk().segments <= 10);
        engine.close().unwrap();
    }
    let engine = Engine::open(config).unwrap();
    assert_eq!(engine.documents(), 40);
    assert_eq!(read(&engine, "c0").unwrap().as_deref(), Some("{}"));
}
