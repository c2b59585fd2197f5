//! What an acknowledgement means, case by case: after a power cut, a failed sync or on a
//! full disk nothing that was acknowledged is lost, and nothing that was refused is left.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prefd_engine::{Durability, Engine, Error, WriteOptions};
use prefd_tests::put::Put;
use prefd_tests::sim_disk::{Operation, Unsynced};
use prefd_tests::sim_store::{Store, body, put, read};

/// For what another thread will do.
const PATIENCE: Duration = Duration::from_secs(20);

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

/// A sync that fails may have dropped what an earlier write has in the same files, so not
/// even compaction's or erasure's part of the batch may be carried out.
#[test]
fn behind_a_failed_log_sync_nothing_is_written_whatever_came_with_it() {
    let mut stopped = 0;
    for _ in 0..20 {
        let store = Store::without_catalogue();
        let engine = store.open().unwrap();
        put(&engine, "c", "{}").unwrap();
        let (open_gate, gate) = std::sync::mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let syncs = AtomicU64::new(0);
        let later = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&later);
        store.disk.set_fault(Box::new(move |operation, path| {
            // Of the segment that has frames: one that cannot be begun is given up.
            let is_sync = operation == Operation::Sync && path.ends_with("log/00000001.seg");
            let is_read = matches!(
                operation,
                Operation::Read | Operation::Open | Operation::Other
            );
            match syncs.fetch_add(u64::from(is_sync), Ordering::SeqCst) {
                0 if is_sync => {
                    let _ = gate.lock().unwrap().recv();
                    None
                }
                1 if is_sync => Some(io::ErrorKind::Other),
                2.. if !is_read => {
                    written.lock().unwrap().push((operation, path.to_owned()));
                    None
                }
                _ => None,
            }
        }));
        std::thread::scope(|scope| {
            let first = scope.spawn(|| put(&engine, "c", "{\"n\":1}"));
            let erasing = scope.spawn(|| engine.erase("nobody", &mut |_| {}));
            let second = scope.spawn(|| put(&engine, "c", "{\"n\":2}"));
            let begun = Instant::now();
            while engine.metrics().queued_writes == 0 {
                assert!(begun.elapsed() < PATIENCE, "nothing is queued");
                std::thread::yield_now();
            }
            // That erasing has asked by now cannot be seen: mostly it has.
            std::thread::sleep(Duration::from_millis(2));
            open_gate.send(()).unwrap();
            // Whom the failed sync is for is not the same each time, nor whether there is one.
            let _ = (first.join().unwrap(), second.join().unwrap());
            let _ = erasing.join().unwrap();
        });
        stopped += u32::from(engine.writable().is_err());
        assert_eq!(*later.lock().unwrap(), []);
    }
    assert!(stopped > 0, "no sync failed");
}

/// Puts without sync until there was one more sync of the log than before.
fn put_until_written_behind(engine: &Engine, syncs: &AtomicU64) {
    let namespace = engine.namespace("u", "c").unwrap();
    let before = syncs.load(Ordering::SeqCst);
    // A multiple of what is written behind at a time, in less than a segment.
    for write in 0..30 {
        let large = body(write, 1_000_000);
        namespace.put(large.as_bytes(), buffered()).unwrap();
    }
    let begun = Instant::now();
    while syncs.load(Ordering::SeqCst) == before {
        assert!(begun.elapsed() < PATIENCE, "nothing was written behind");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_not_synced_is_written_behind_and_nothing_rests_on_that() {
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
        if operation != Operation::Sync || !is_log {
            return None;
        }
        counted.fetch_add(1, Ordering::SeqCst);
        let fails = failing.load(Ordering::SeqCst);
        fails.then_some(io::ErrorKind::Other)
    }));
    put_until_written_behind(&engine, &syncs);
    let after = store.crashed(Unsynced::Lost);
    let found = prefd_engine::verify(&after.config(), &mut |_| {}).unwrap();
    assert_eq!((found.problems, found.documents), (vec![], 2));
    // A failure is for those whom an answer is promised by.
    fails.store(true, Ordering::SeqCst);
    put_until_written_behind(&engine, &syncs);
    engine.writable().unwrap();
    assert!(matches!(
        put(&engine, "last", "{}"),
        Err(Error::Poisoned { op: "sync", .. })
    ));
    assert!(engine.close().is_err());
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

/// The file is synced once while its value is judged, and once at its end. Whichever
/// fails: the system reports it once, and may have let go of what it could not write.
#[test]
fn a_blob_sync_that_fails_while_a_value_is_judged_fails_its_put_only() {
    for cut in [usize::MAX, 100_000] {
        for failing in [0, 1] {
            let store = Store::new();
            let engine = store.open().unwrap();
            let large = body(1, 3_000_000);
            let mut syncs = 0;
            store.disk.set_fault(Box::new(move |operation, path| {
                let is_blob = path.to_string_lossy().ends_with(".blob");
                let is_sync = operation == Operation::Sync && is_blob;
                syncs += u32::from(is_sync);
                (is_sync && syncs == failing + 1).then_some(io::ErrorKind::Other)
            }));
            let written = || {
                let mut writer = engine.writer();
                for piece in large.as_bytes().chunks(cut) {
                    writer.write(piece)?;
                }
                writer.finish().map(drop)
            };
            assert!(
                matches!(written(), Err(Error::Io { op: "sync", .. })),
                "sync {failing} of what is cut at {cut}"
            );
            written().unwrap();
            engine.close().unwrap();
            assert_eq!(store.files("blobs", ".blob").len(), 0);
        }
    }
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
    put(&engine, "c0", &body(0, 100)).unwrap();
    // Room for a small frame and what is prepared behind it, and for a part of the batch
    // that comes then.
    store.disk.set_capacity(store.disk.used_bytes() + 2_500);
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
    let submit = |client: &str, bytes: usize| {
        let mut writer = engine.writer();
        writer.write(body(1, bytes).as_bytes()).unwrap();
        let namespace = engine.namespace("u", client).unwrap();
        namespace.submit(writer.finish().unwrap(), WriteOptions::default())
    };
    let alone = submit("c1", 100);
    syncing.recv_timeout(PATIENCE).expect("a sync");
    // Queued while the committer is held in its sync: one batch.
    let together = ["c2", "c3", "c4", "c5"].map(|client| submit(client, 900));
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
        for refused in ["c2", "c3", "c4", "c5"] {
            assert_eq!(
                read(&engine, refused).unwrap(),
                None,
                "seed {seed}: {refused}"
            );
        }
    }
}

/// Bytes that are prepared for frames behind those of the first segment of a store, in a
/// copy of it or in itself.
fn blank(store: &Store, copy: &Store) -> usize {
    let segment = store.files("log", ".seg").remove(0);
    let bytes = copy.disk.bytes(&copy.moved(store, &segment));
    bytes.iter().rev().take_while(|byte| **byte == 0).count()
}

#[test]
fn room_is_prepared_for_frames_that_are_not_synced_and_is_no_torn_tail() {
    let store = Store::without_catalogue();
    let engine = store.open().unwrap();
    let namespace = engine.namespace("u", "c").unwrap();
    for write in 0..6 {
        namespace
            .put(body(write, 1_000).as_bytes(), buffered())
            .unwrap();
    }
    assert_eq!(store.disk.syncs(".seg"), 1, "of the header");
    assert!(blank(&store, &store) > 0);
    // What the system was handed outlives the process.
    let killed = store.crashed(Unsynced::Kept);
    let found = prefd_engine::verify(&killed.config(), &mut |_| {}).unwrap();
    assert_eq!((found.problems, found.torn_bytes), (vec![], 0));
    let engine = killed.open().unwrap();
    assert_eq!(read(&engine, "c").unwrap(), Some(body(5, 1_000)));
}

#[test]
fn room_is_prepared_for_frames_only_where_there_is_room() {
    let store = Store::without_catalogue();
    let engine = store.open().unwrap();
    for write in 0..6 {
        put(&engine, "c", &body(write, 1_000)).unwrap();
    }
    let blank = |copy: &Store| blank(&store, copy);
    let prepared = blank(&store);
    assert!(prepared > 0);
    // Within what is prepared nothing grows, on a full disk either.
    let full = store.disk.used_bytes();
    store.disk.set_capacity(full);
    let mut write = 100;
    while blank(&store) > 2_000 {
        put(&engine, "c", &body(write, 1_000)).unwrap();
        assert_eq!(store.disk.used_bytes(), full);
        write += 1;
    }
    // A frame that reaches beyond it fits, and the zeros behind it do not: it is taken.
    store.disk.set_capacity(full + 1_500);
    for write in 200..203 {
        put(&engine, "c", &body(write, 1_000)).unwrap();
        let after = store.crashed(Unsynced::Lost);
        let reopened = after.open().unwrap();
        assert_eq!(read(&reopened, "c").unwrap(), Some(body(write, 1_000)));
        if blank(&store) == 0 {
            break;
        }
    }
    assert_eq!(blank(&store), 0);
    assert!(store.disk.used_bytes() > full);
    // With room again it is prepared again, and given back when the segment is sealed.
    store.disk.set_capacity(u64::MAX);
    for write in 300..340 {
        put(&engine, "c", &body(write, 1_000)).unwrap();
    }
    assert!(blank(&store) > 0);
    engine.close().unwrap();
    let after = store.crashed(Unsynced::Lost);
    assert_eq!(
        blank(&after),
        0,
        "the end of a sealed segment is its last frame"
    );
}
