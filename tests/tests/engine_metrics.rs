//! The engine's metrics count exactly the operations that were done.

use std::io::ErrorKind;
use std::sync::mpsc::{channel, sync_channel};

use prefd_engine::{
    BATCH_WRITES_BOUNDS, Durability, Engine, Error, LOG_SYNC_BOUNDS_US, Peek, WriteOptions,
};
use prefd_tests::sim_disk::DiskOperation;
use prefd_tests::sim_store::{Store, body, delete, put, read};

fn buffered() -> WriteOptions {
    WriteOptions {
        durability: Some(Durability::Buffered),
        ..WriteOptions::default()
    }
}

#[test]
fn commits_are_counted_with_their_writes_bytes_and_syncs() {
    let store = Store::new();
    let engine = store.open().unwrap();
    let fresh = engine.metrics();
    assert_eq!(
        (fresh.commits(), fresh.writes(), fresh.log_bytes),
        (0, 0, 0)
    );
    assert_eq!(fresh.batch_writes.bounds, BATCH_WRITES_BOUNDS);
    assert_eq!(fresh.log_sync_us.bounds, LOG_SYNC_BOUNDS_US);
    assert!(fresh.is_writable);
    for index in 0..5 {
        put(&engine, &format!("c{index}"), &body(index, 100)).unwrap();
    }
    delete(&engine, "c1").unwrap();
    // Deleting an absent document writes and syncs nothing.
    delete(&engine, "c1").unwrap();
    let namespace = engine.namespace("u", "c2").unwrap();
    namespace.write(b"{}", buffered()).unwrap();
    let metrics = engine.metrics();
    assert_eq!((metrics.commits(), metrics.writes()), (7, 7));
    assert_eq!(metrics.batch_writes.counts[0], 7);
    assert_eq!(metrics.log_sync_us.count(), 6);
    // The header of the segment was synced too.
    assert_eq!(store.disk.syncs(".seg"), 7);
    let space = engine.usage_on_disk();
    assert_eq!(metrics.space, space);
    assert_eq!(metrics.log_bytes, space.live_bytes + space.dead_bytes);
    assert_eq!(
        (space.documents, space.tombstones, space.segments),
        (4, 1, 1)
    );
    assert_eq!((metrics.queued_writes, metrics.queued_bytes), (0, 0));
    assert!(metrics.catalogue_pending_bytes <= 7 * 200);
}

#[test]
fn writes_that_share_a_sync_are_counted_as_one_batch() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "first", "{}").unwrap();
    // Block the next sync until six more writes are queued.
    let (sync_start, sync_started) = sync_channel(1);
    let (resume, resumed) = channel::<()>();
    store.disk.set_fault(Box::new(move |operation, _| {
        if operation == DiskOperation::Sync && sync_start.try_send(()).is_ok() {
            let _ = resumed.recv();
        }
        None
    }));
    let submit = |engine: &Engine, client: &str| {
        let document = engine.prepare(b"{}").unwrap();
        let namespace = engine.namespace("u", client).unwrap();
        namespace.submit(document, WriteOptions::default())
    };
    let alone = submit(&engine, "alone");
    sync_started.recv().unwrap();
    let together: Vec<_> = (0..6).map(|n| submit(&engine, &format!("c{n}"))).collect();
    let waiting = engine.metrics();
    assert_eq!(waiting.queued_writes, 6);
    assert!(waiting.queued_bytes > 6 * 100);
    drop(resume);
    alone.wait().unwrap();
    for commit in together {
        commit.wait().unwrap();
    }
    let metrics = engine.metrics();
    assert_eq!((metrics.commits(), metrics.writes()), (3, 8));
    // The buckets are batches of up to 1, 2, 4 and 8 writes.
    assert_eq!(metrics.batch_writes.counts[..4], [2, 0, 0, 1]);
    assert_eq!(metrics.log_sync_us.count(), 3);
    assert!(metrics.log_sync_us.sum > 0);
}

#[test]
fn reads_from_memory_and_from_disk_are_counted_separately() {
    let store = Store::new();
    let mut config = store.config();
    config.cache_bytes = 1024 * 1024;
    let engine = Engine::open(config).unwrap();
    put(&engine, "c", &body(1, 1_000)).unwrap();
    put(&engine, "large", &body(2, 5_000)).unwrap();
    let counted = || {
        let metrics = engine.metrics();
        (metrics.reads_from_memory, metrics.reads_from_disk)
    };
    assert_eq!(counted(), (0, 0));
    let namespace = engine.namespace("u", "c").unwrap();
    namespace.stat().unwrap();
    assert!(matches!(namespace.peek().unwrap(), Peek::OnDisk(_)));
    read(&engine, "c").unwrap();
    assert_eq!(counted(), (0, 2));
    assert!(engine.metrics().cache_bytes > 1_000);
    assert!(matches!(namespace.peek().unwrap(), Peek::Resident(_)));
    read(&engine, "c").unwrap();
    namespace.stat().unwrap();
    assert_eq!(counted(), (3, 2));
    // A document in a blob is not cached. A read of an absent document is not counted.
    read(&engine, "large").unwrap();
    read(&engine, "large").unwrap();
    read(&engine, "absent").unwrap();
    assert_eq!(counted(), (3, 4));
    assert_eq!(engine.metrics().blob_syncs, 1);
}

#[test]
fn frames_copied_by_compaction_are_not_counted_as_commits() {
    let store = Store::new();
    for run in 0..2 {
        let engine = store.open().unwrap();
        for client in ["a", "b", "c"] {
            put(&engine, client, &body(run, 500)).unwrap();
        }
        if run == 0 {
            put(&engine, "kept", &body(7, 500)).unwrap();
        }
        engine.close().unwrap();
    }
    let engine = store.open().unwrap();
    engine.compact().unwrap();
    let metrics = engine.metrics();
    assert_eq!((metrics.segments_rewritten, metrics.copied_frames), (1, 1));
    let kept = metrics.space.live_bytes / 4;
    assert!(metrics.copied_bytes.abs_diff(kept) < 10);
    assert_eq!((metrics.commits(), metrics.log_bytes), (0, 0));
}

#[test]
fn failed_sync_is_reported_and_not_counted() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{}").unwrap();
    store.disk.set_fault(Box::new(|operation, _| {
        (operation == DiskOperation::Sync).then_some(ErrorKind::Other)
    }));
    let outcome = put(&engine, "c", "{}");
    assert!(matches!(outcome, Err(Error::Poisoned { .. })));
    let metrics = engine.metrics();
    assert!(!metrics.is_writable);
    assert_eq!((metrics.commits(), metrics.log_sync_us.count()), (1, 1));
}
