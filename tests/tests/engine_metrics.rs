//! Metrics: what is counted is what was done, exactly.

use std::io::ErrorKind;
use std::sync::mpsc::{channel, sync_channel};

use prefd_engine::{
    BATCH_WRITES_BOUNDS, Durability, Engine, Error, LOG_SYNC_BOUNDS_US, Peek, WriteOptions,
};
use prefd_tests::sim_disk::Operation;
use prefd_tests::sim_store::{Store, body, delete, put, read};

fn without_sync() -> WriteOptions {
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
    // Nothing is there: there is nothing to write, nor to sync.
    delete(&engine, "c1").unwrap();
    let namespace = engine.namespace("u", "c2").unwrap();
    namespace.write(b"{}", without_sync()).unwrap();
    let metrics = engine.metrics();
    assert_eq!((metrics.commits(), metrics.writes()), (7, 7));
    assert_eq!(metrics.batch_writes.counts[0], 7);
    assert_eq!(metrics.log_sync_us.count(), 6);
    // One more for the header of the segment.
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
fn writes_that_share_a_sync_are_one_batch() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "first", "{}").unwrap();
    // The next sync waits until others have been queued.
    let (begun, is_begun) = sync_channel(1);
    let (go_on, may_go_on) = channel::<()>();
    store.disk.set_fault(Box::new(move |operation, _| {
        if operation == Operation::Sync && begun.try_send(()).is_ok() {
            let _ = may_go_on.recv();
        }
        None
    }));
    let submit = |engine: &Engine, client: &str| {
        let document = engine.prepare(b"{}").unwrap();
        let namespace = engine.namespace("u", client).unwrap();
        namespace.submit(document, WriteOptions::default())
    };
    let alone = submit(&engine, "alone");
    is_begun.recv().unwrap();
    let together: Vec<_> = (0..6).map(|n| submit(&engine, &format!("c{n}"))).collect();
    let waiting = engine.metrics();
    assert_eq!(waiting.queued_writes, 6);
    assert!(waiting.queued_bytes > 6 * 100);
    drop(go_on);
    alone.wait().unwrap();
    for commit in together {
        commit.wait().unwrap();
    }
    let metrics = engine.metrics();
    assert_eq!((metrics.commits(), metrics.writes()), (3, 8));
    // Up to 1, up to 2, up to 4, up to 8.
    assert_eq!(metrics.batch_writes.counts[..4], [2, 0, 0, 1]);
    assert_eq!(metrics.log_sync_us.count(), 3);
    assert!(metrics.log_sync_us.sum > 0);
}

#[test]
fn reads_are_told_apart_by_where_they_are_answered() {
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
    // A large one does not stay, and of nothing there is nothing to read.
    read(&engine, "large").unwrap();
    read(&engine, "large").unwrap();
    read(&engine, "absent").unwrap();
    assert_eq!(counted(), (3, 4));
    assert_eq!(engine.metrics().blob_syncs, 1);
}

#[test]
fn what_compaction_has_copied_is_counted_apart() {
    let store = Store::new();
    for life in 0..2 {
        let engine = store.open().unwrap();
        for client in ["a", "b", "c"] {
            put(&engine, client, &body(life, 500)).unwrap();
        }
        if life == 0 {
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
fn a_failed_sync_is_told_and_not_counted() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{}").unwrap();
    store.disk.set_fault(Box::new(|operation, _| {
        (operation == Operation::Sync).then_some(ErrorKind::Other)
    }));
    let outcome = put(&engine, "c", "{}");
    assert!(matches!(outcome, Err(Error::Poisoned { .. })));
    let metrics = engine.metrics();
    assert!(!metrics.is_writable);
    assert_eq!((metrics.commits(), metrics.log_sync_us.count()), (1, 1));
}
