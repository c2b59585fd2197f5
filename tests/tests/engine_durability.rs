//! Durability: after a power cut, after a failed sync and on a full disk, no acknowledged write
//! is lost, and no refused write becomes visible.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use prefd_engine::{Durability, Engine, Error, WriteOptions};
use prefd_tests::put_ext::PutExt;
use prefd_tests::random::seeds;
use prefd_tests::sim_disk::{DiskOperation, Unsynced};
use prefd_tests::sim_store::{Store, body, put, read};

/// Maximum time to wait for an action of another thread.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

fn buffered() -> WriteOptions {
    WriteOptions {
        durability: Some(Durability::Buffered),
        ..WriteOptions::default()
    }
}

#[test]
fn put_is_synced_before_its_acknowledgement() {
    let store = Store::new();
    let engine = store.open().unwrap();
    for write in 0..20 {
        let syncs = store.disk.syncs(".seg");
        let size = if write % 4 == 0 { 5_000 } else { 10 };
        put(&engine, &format!("c{}", write % 7), &body(write, size)).unwrap();
        assert!(
            store.disk.syncs(".seg") > syncs,
            "the write must be synced before it is acknowledged"
        );
        // A write without a sync would be lost by this power cut.
        let after = store.crashed(Unsynced::Lost);
        let reopened = after.open().unwrap();
        assert_eq!(
            read(&reopened, &format!("c{}", write % 7)).unwrap(),
            Some(body(write, size))
        );
    }
}

#[test]
fn buffered_put_is_durable_after_a_later_synced_put() {
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
fn blob_is_removed_only_after_its_successor_is_synced() {
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
fn revisions_of_lost_writes_are_not_reused() {
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

#[test]
fn failed_log_sync_stops_all_writes_but_not_reads() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":1}").unwrap();
    store.disk.set_fault(Box::new(|operation, path| {
        (operation == DiskOperation::Sync && path.to_string_lossy().ends_with(".seg"))
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
        "a failed sync must not be retried"
    );
    assert_eq!(read(&engine, "c").unwrap().as_deref(), Some("{\"n\":1}"));
    assert!(engine.close().is_err());
    let after = store.crashed(Unsynced::Lost);
    assert_eq!(
        read(&after.open().unwrap(), "c").unwrap().as_deref(),
        Some("{\"n\":1}")
    );
}

/// After a failed sync, the kernel may have dropped bytes of earlier writes to the same file.
/// The engine must therefore write nothing more, not even for the compaction or erasure jobs
/// that share the batch.
#[test]
fn nothing_is_written_after_a_failed_log_sync() {
    let mut stopped = 0;
    for _ in 0..20 {
        let store = Store::without_catalogue();
        let engine = store.open().unwrap();
        put(&engine, "c", "{}").unwrap();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let syncs = AtomicU64::new(0);
        let later_changes = Arc::new(Mutex::new(Vec::new()));
        let changes = Arc::clone(&later_changes);
        store.disk.set_fault(Box::new(move |operation, path| {
            // Fail only syncs of the first segment, which has the frames. A failure to create a
            // further segment does not poison the engine.
            let is_sync = operation == DiskOperation::Sync && path.ends_with("log/00000001.seg");
            let is_read = matches!(
                operation,
                DiskOperation::Read | DiskOperation::Open | DiskOperation::Other
            );
            match syncs.fetch_add(u64::from(is_sync), Ordering::SeqCst) {
                0 if is_sync => {
                    let _ = released.lock().unwrap().recv();
                    None
                }
                1 if is_sync => Some(io::ErrorKind::Other),
                2.. if !is_read => {
                    changes.lock().unwrap().push((operation, path.to_owned()));
                    None
                }
                _ => None,
            }
        }));
        std::thread::scope(|scope| {
            let first = scope.spawn(|| put(&engine, "c", "{\"n\":1}"));
            let erasing = scope.spawn(|| engine.erase("nobody", &mut |_| {}));
            let second = scope.spawn(|| put(&engine, "c", "{\"n\":2}"));
            let start = Instant::now();
            while engine.metrics().queued_writes == 0 {
                assert!(start.elapsed() < WAIT_TIMEOUT, "no write was queued");
                std::thread::yield_now();
            }
            // The test cannot observe when the erasure submits its job. Usually, this pause is
            // long enough.
            std::thread::sleep(Duration::from_millis(2));
            release.send(()).unwrap();
            // The order of the threads decides which call gets the sync error, and whether a
            // sync fails at all.
            let _ = (first.join().unwrap(), second.join().unwrap());
            let _ = erasing.join().unwrap();
        });
        stopped += u32::from(engine.writable().is_err());
        assert_eq!(*later_changes.lock().unwrap(), []);
    }
    assert!(stopped > 0, "no sync failed in any round");
}

/// Puts documents without a sync, until write-behind has synced the log. `syncs` counts the
/// syncs of the log.
fn put_until_write_behind(engine: &Engine, syncs: &AtomicU64) {
    let namespace = engine.namespace("u", "c").unwrap();
    let before = syncs.load(Ordering::SeqCst);
    // These puts are several times as long as the threshold of write-behind (8 MiB), and fit
    // into one segment.
    for write in 0..30 {
        let large = body(write, 1_000_000);
        namespace.put(large.as_bytes(), buffered()).unwrap();
    }
    let start = Instant::now();
    while syncs.load(Ordering::SeqCst) == before {
        assert!(start.elapsed() < WAIT_TIMEOUT, "write-behind did not sync");
        std::thread::yield_now();
    }
}

#[test]
fn write_behind_syncs_buffered_puts_and_ignores_failures() {
    let store = Store::without_catalogue();
    let mut config = store.config();
    config.segment_bytes = 64 * 1024 * 1024;
    config.inline_bytes = 2 * 1024 * 1024;
    let engine = Engine::open(config).unwrap();
    put(&engine, "first", "{}").unwrap();
    let syncs = Arc::new(AtomicU64::new(0));
    let fails = Arc::new(AtomicBool::new(false));
    let (counted, failing) = (Arc::clone(&syncs), Arc::clone(&fails));
    store.disk.set_fault(Box::new(move |operation, path| {
        let is_log = path.to_string_lossy().ends_with(".seg");
        if operation != DiskOperation::Sync || !is_log {
            return None;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        let fails = failing.load(Ordering::SeqCst);
        fails.then_some(io::ErrorKind::Other)
    }));
    put_until_write_behind(&engine, &syncs);
    let after = store.crashed(Unsynced::Lost);
    let found = prefd_engine::verify(&after.config(), &mut |_| {}).unwrap();
    assert_eq!((found.problems, found.documents), (vec![], 2));
    // A failure of write-behind is ignored. The next put that requires a sync reports it.
    fails.store(true, Ordering::SeqCst);
    put_until_write_behind(&engine, &syncs);
    engine.writable().unwrap();
    assert!(matches!(
        put(&engine, "last", "{}"),
        Err(Error::Poisoned { op: "sync", .. })
    ));
    assert!(engine.close().is_err());
}

#[test]
fn failed_blob_sync_fails_only_its_put() {
    let store = Store::new();
    let engine = store.open().unwrap();
    store.disk.set_fault(Box::new(|operation, path| {
        (operation == DiskOperation::Sync && path.to_string_lossy().ends_with(".blob"))
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

/// A blob with a large value is synced twice: while the value is validated, and at the end of
/// the blob. If either sync fails, the put must fail. The kernel reports a failure only once, and
/// may have dropped the bytes that were not written.
#[test]
fn failed_blob_sync_during_validation_fails_only_its_put() {
    for chunk_bytes in [usize::MAX, 100_000] {
        for failing in [0, 1] {
            let store = Store::new();
            let engine = store.open().unwrap();
            let large = body(1, 3_000_000);
            let mut syncs = 0;
            store.disk.set_fault(Box::new(move |operation, path| {
                let is_blob = path.to_string_lossy().ends_with(".blob");
                let is_sync = operation == DiskOperation::Sync && is_blob;
                syncs += u32::from(is_sync);
                (is_sync && syncs == failing + 1).then_some(io::ErrorKind::Other)
            }));
            let write_large = || {
                let mut writer = engine.writer();
                for piece in large.as_bytes().chunks(chunk_bytes) {
                    writer.write(piece)?;
                }
                writer.finish().map(drop)
            };
            assert!(
                matches!(write_large(), Err(Error::Io { op: "sync", .. })),
                "sync {failing} with chunks of {chunk_bytes} bytes must fail the put"
            );
            write_large().unwrap();
            engine.close().unwrap();
            assert_eq!(store.files("blobs", ".blob").len(), 0);
        }
    }
}

#[test]
fn full_disk_refuses_puts_and_accepts_them_once_it_has_room() {
    for free_bytes in [0, 1, 60, 100, 700, 1_500, 3_000] {
        let store = Store::new();
        let engine = store.open().unwrap();
        put(&engine, "c", &body(1, 100)).unwrap();
        store
            .disk
            .set_capacity(store.disk.used_bytes() + free_bytes);
        let mut refused = 0;
        let mut last = body(1, 100);
        for write in 2..12 {
            let next = body(write, 400);
            match put(&engine, "c", &next) {
                Ok(()) => last = next,
                Err(Error::StorageFull { .. }) => refused += 1,
                Err(other) => panic!("expected StorageFull: {other}"),
            }
            assert_eq!(read(&engine, "c").unwrap(), Some(last.clone()));
        }
        assert!(refused >= 4);
        assert!(matches!(
            put(&engine, "large", &body(1, 9_000)),
            Err(Error::StorageFull { .. })
        ));
        // A refused write must not become visible after a crash.
        let after = store.crashed(Unsynced::Some { seed: free_bytes });
        assert_eq!(read(&after.open().unwrap(), "c").unwrap(), Some(last));
        store.disk.set_capacity(u64::MAX);
        put(&engine, "c", "{\"n\":3}").unwrap();
        put(&engine, "large", &body(1, 9_000)).unwrap();
        assert_eq!(read(&engine, "c").unwrap().as_deref(), Some("{\"n\":3}"));
    }
}

#[test]
fn refused_batch_is_not_visible_after_a_crash() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c0", &body(0, 100)).unwrap();
    // Leave room for one small frame, the zeros preallocated behind it, and a part of the next
    // batch.
    store.disk.set_capacity(store.disk.used_bytes() + 2_500);
    let (entered, syncing) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let mut first = true;
    store.disk.set_fault(Box::new(move |operation, _| {
        if operation == DiskOperation::Sync && std::mem::take(&mut first) {
            entered.send(()).unwrap();
            released.recv().unwrap();
        }
        None
    }));
    let submit = |client: &str, bytes: usize| {
        let mut writer = engine.writer();
        writer.write(body(1, bytes).as_bytes()).unwrap();
        let namespace = engine.namespace("u", client).unwrap();
        namespace.submit(writer.finish().unwrap(), WriteOptions::default())
    };
    let alone = submit("c1", 100);
    syncing
        .recv_timeout(WAIT_TIMEOUT)
        .expect("the first put must sync the log");
    // These writes are queued while the first sync is blocked, so they form one batch.
    let together = ["c2", "c3", "c4", "c5"].map(|client| submit(client, 900));
    release.send(()).unwrap();
    alone.wait().unwrap();
    for commit in together {
        assert!(matches!(commit.wait(), Err(Error::StorageFull { .. })));
    }
    for seed in seeds(20) {
        let after = store.crashed(Unsynced::Some { seed });
        let engine = after.open().unwrap();
        assert_eq!(
            read(&engine, "c1").unwrap(),
            Some(body(1, 100)),
            "seed {seed}"
        );
        for refused in ["c2", "c3", "c4", "c5"] {
            assert_eq!(
                read(&engine, refused).unwrap(),
                None,
                "seed {seed}: {refused}"
            );
        }
    }
}

/// Number of preallocated zero bytes at the end of the store's first segment, as it is in
/// `copy`. The copy may be the store itself.
fn preallocated_bytes(store: &Store, copy: &Store) -> usize {
    let segment = store.files("log", ".seg").remove(0);
    let bytes = copy.disk.bytes(&copy.moved(store, &segment));
    bytes.iter().rev().take_while(|byte| **byte == 0).count()
}

#[test]
fn preallocated_zeros_are_not_reported_as_a_torn_tail() {
    let store = Store::without_catalogue();
    let engine = store.open().unwrap();
    let namespace = engine.namespace("u", "c").unwrap();
    for write in 0..6 {
        namespace
            .put(body(write, 1_000).as_bytes(), buffered())
            .unwrap();
    }
    assert_eq!(
        store.disk.syncs(".seg"),
        1,
        "only the header of the segment must be synced"
    );
    assert!(preallocated_bytes(&store, &store) > 0);
    // Unsynced writes survive the end of the process, but not a power cut.
    let killed = store.crashed(Unsynced::Kept);
    let found = prefd_engine::verify(&killed.config(), &mut |_| {}).unwrap();
    assert_eq!((found.problems, found.torn_bytes), (vec![], 0));
    let engine = killed.open().unwrap();
    assert_eq!(read(&engine, "c").unwrap(), Some(body(5, 1_000)));
}

#[test]
fn full_disk_prevents_preallocation_but_not_puts() {
    let store = Store::without_catalogue();
    let engine = store.open().unwrap();
    for write in 0..6 {
        put(&engine, "c", &body(write, 1_000)).unwrap();
    }
    let preallocated = |copy: &Store| preallocated_bytes(&store, copy);
    assert!(preallocated(&store) > 0);
    // Frames that overwrite preallocated zeros need no further space on a full disk.
    let full = store.disk.used_bytes();
    store.disk.set_capacity(full);
    let mut write = 100;
    while preallocated(&store) > 2_000 {
        put(&engine, "c", &body(write, 1_000)).unwrap();
        assert_eq!(store.disk.used_bytes(), full);
        write += 1;
    }
    // A frame that ends beyond the preallocated zeros still fits on the disk, but new zeros
    // behind it do not. The put must succeed.
    store.disk.set_capacity(full + 1_500);
    for write in 200..203 {
        put(&engine, "c", &body(write, 1_000)).unwrap();
        let after = store.crashed(Unsynced::Lost);
        let reopened = after.open().unwrap();
        assert_eq!(read(&reopened, "c").unwrap(), Some(body(write, 1_000)));
        if preallocated(&store) == 0 {
            break;
        }
    }
    assert_eq!(preallocated(&store), 0);
    assert!(store.disk.used_bytes() > full);
    // Once the disk has room, zeros are preallocated again. Sealing the segment removes them.
    store.disk.set_capacity(u64::MAX);
    for write in 300..340 {
        put(&engine, "c", &body(write, 1_000)).unwrap();
    }
    assert!(preallocated(&store) > 0);
    engine.close().unwrap();
    let after = store.crashed(Unsynced::Lost);
    assert_eq!(
        preallocated(&after),
        0,
        "a sealed segment must end with its last frame"
    );
}
