//! A full disk: deletes succeed because space is reserved for them, the space that they free
//! is reused, and a store can be opened, even if nothing can be written.

use prefd_engine::{Durability, Engine, Error, WriteOptions, stats, verify};
use prefd_tests::sim_disk::Unsynced;
use prefd_tests::sim_store::{Store, body, delete, put, read};

/// A reserve that is released in several steps.
const RESERVE_BYTES: u64 = 4 << 20;
/// Number of documents in the stores of the tests below.
const DOCUMENTS: u64 = 10;

/// What a disk lacks.
#[derive(Debug, Clone, Copy)]
enum Lack {
    Space,
    Inodes,
    Both,
}

const LACKS: [Lack; 3] = [Lack::Space, Lack::Inodes, Lack::Both];

/// Lets every write fail that needs more space or another file, except on the files of the reserve
/// if `has_reserve` is set.
fn exhaust(store: &Store, lack: Lack, has_reserve: bool) {
    if !has_reserve {
        for file in store.disk.files() {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("reserve") {
                store.disk.lose(&file);
            }
        }
    }
    if matches!(lack, Lack::Space | Lack::Both) {
        store.disk.set_capacity(store.disk.used_bytes());
    }
    if matches!(lack, Lack::Inodes | Lack::Both) {
        store.disk.set_max_files(store.disk.files().len());
    }
}

fn relieve(store: &Store) {
    store.disk.set_capacity(u64::MAX);
    store.disk.set_max_files(usize::MAX);
}

fn open(store: &Store) -> Result<Engine, Error> {
    let mut config = store.config();
    config.reserve_bytes = RESERVE_BYTES;
    Engine::open(config)
}

/// A store with [`DOCUMENTS`] documents, whose process has crashed.
fn crashed_store() -> Store {
    let store = Store::without_catalogue();
    let engine = open(&store).unwrap();
    for index in 0..DOCUMENTS {
        put(&engine, &format!("c{index}"), &body(index, 1_500)).unwrap();
    }
    put(&engine, "large", &body(1, 100_000)).unwrap();
    store.crashed(Unsynced::Kept)
}

fn check_documents(engine: &Engine, context: &str) {
    for index in 0..DOCUMENTS {
        let found = read(engine, &format!("c{index}")).unwrap();
        assert_eq!(found, Some(body(index, 1_500)), "{context}: {index}");
    }
    let large = read(engine, "large").unwrap();
    assert_eq!(large, Some(body(1, 100_000)), "{context}");
}

fn expect_full<T>(outcome: Result<T, Error>, context: &str) {
    match outcome {
        Err(Error::StorageFull { .. }) => {}
        Err(error) => panic!("{context}: expected StorageFull: {error:?}"),
        Ok(_) => panic!("{context}: expected StorageFull"),
    }
}

/// Limits the disk to the space that is in use, and writes until the preallocated space of
/// the segment is used up.
fn fill_disk(store: &Store, engine: &Engine) {
    store.disk.set_capacity(store.disk.used_bytes());
    let mut writes = 0_u64;
    while put(engine, "filling", &body(writes, 1_500)).is_ok() {
        writes += 1;
        assert!(writes < 1000);
    }
    store.disk.set_capacity(store.disk.used_bytes());
}

/// An open store with the document `c` on a full disk.
fn full_store() -> (Store, Engine) {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":1}").unwrap();
    fill_disk(&store, &engine);
    (store, engine)
}

#[test]
fn full_disk_accepts_deletes_and_their_space_is_reused() {
    let store = Store::new();
    let engine = store.open().unwrap();
    for index in 0..80 {
        put(&engine, &format!("c{index}"), &body(index, 1_500)).unwrap();
    }
    put(&engine, "large", &body(1, 100_000)).unwrap();
    put(&engine, "filling", "{}").unwrap();
    fill_disk(&store, &engine);
    for index in 0..80 {
        let refused = put(&engine, &format!("c{index}"), &body(1_000 + index, 1_500));
        assert!(matches!(refused, Err(Error::StorageFull { .. })));
        delete(&engine, &format!("c{index}")).unwrap();
        assert_eq!(read(&engine, &format!("c{index}")).unwrap(), None);
    }
    // After a crash, the store has neither the refused puts nor the deleted documents.
    let after = store.crashed(Unsynced::Lost);
    let reopened = after.open().unwrap();
    assert_eq!(reopened.documents(), 2);
    assert_eq!(read(&reopened, "c3").unwrap(), None);
    engine.compact().unwrap();
    for index in 0..20 {
        put(&engine, &format!("d{index}"), &body(index, 1_500)).unwrap();
    }
    assert_eq!(read(&engine, "large").unwrap(), Some(body(1, 100_000)));
    assert_eq!(engine.documents(), 22);
}

#[test]
fn reserve_for_deletes_is_refilled_before_a_put_is_accepted() {
    let (store, engine) = full_store();
    let full = store.disk.used_bytes();
    delete(&engine, "c").unwrap();
    // The delete released the reserve and used only the bytes of its own frame: the segment was
    // not preallocated further.
    let reserve = store.config().reserve_bytes;
    assert!(store.disk.used_bytes() + reserve < full + 100);
    // The free space would hold the put, but the reserve must be refilled first. The free space
    // is smaller than the reserve, because the delete used some of it.
    store.disk.set_capacity(full + 10);
    assert!(matches!(
        put(&engine, "d", "{}"),
        Err(Error::StorageFull { .. })
    ));
    store.disk.set_capacity(full + 10_000);
    put(&engine, "d", "{}").unwrap();
    store.disk.set_capacity(store.disk.used_bytes());
    delete(&engine, "d").unwrap();
}

#[test]
fn crashed_store_opens_on_a_full_disk() {
    let store = Store::new();
    let engine = store.open().unwrap();
    for index in 0..10 {
        put(&engine, &format!("c{index}"), &body(index, 1_500)).unwrap();
    }
    let after = store.crashed(Unsynced::Kept);
    after.disk.set_capacity(after.disk.used_bytes());
    let engine = after.open().unwrap();
    assert_eq!(engine.documents(), 10);
    assert_eq!(read(&engine, "c9").unwrap(), Some(body(9, 1_500)));
}

#[test]
fn store_is_closed_cleanly_on_a_full_disk() {
    let (_store, engine) = full_store();
    engine.close().unwrap();
}

/// A start serves documents that the previous process has not synced. After that, a power cut must
/// not lose them, so the start must write them again.
#[test]
fn documents_served_on_a_full_disk_survive_a_power_cut() {
    for lack in LACKS {
        let store = Store::without_catalogue();
        let engine = open(&store).unwrap();
        for index in 0..DOCUMENTS {
            let options = WriteOptions {
                durability: Some(Durability::Buffered),
                ..WriteOptions::default()
            };
            let namespace = engine.namespace("u", format!("c{index}")).unwrap();
            let body = body(index, 1_500);
            namespace.write(body.as_bytes(), options).unwrap();
        }
        let killed = store.crashed(Unsynced::Kept);
        exhaust(&killed, lack, false);
        let engine = open(&killed).unwrap();
        assert_eq!(engine.documents(), DOCUMENTS, "{lack:?}");
        let after = killed.crashed(Unsynced::Lost);
        let engine = open(&after).unwrap();
        assert_eq!(engine.documents(), DOCUMENTS, "{lack:?}");
        assert_eq!(read(&engine, "c9").unwrap(), Some(body(9, 1_500)));
    }
}

#[test]
fn full_store_without_a_reserve_opens_again_and_again() {
    for lack in LACKS {
        let context = format!("{lack:?}");
        let mut store = crashed_store();
        for _ in 0..3 {
            exhaust(&store, lack, false);
            let engine = open(&store).unwrap();
            check_documents(&engine, &context);
            expect_full(put(&engine, "new", &body(0, 1_500)), &context);
            expect_full(put(&engine, "new", &body(0, 50_000)), &context);
            check_documents(&engine, &context);
            store = store.crashed(Unsynced::Lost);
        }
        // A store that was closed on the full disk opens too.
        exhaust(&store, lack, false);
        let engine = open(&store).unwrap();
        let _ = engine.close();
        exhaust(&store, lack, false);
        let engine = open(&store).unwrap();
        check_documents(&engine, &context);
        relieve(&store);
        put(&engine, "new", "{}").unwrap();
        engine.close().unwrap();
        let engine = open(&store).unwrap();
        check_documents(&engine, &context);
        assert_eq!(read(&engine, "new").unwrap().as_deref(), Some("{}"));
        engine.close().unwrap();
        let report = verify(&store.config(), &mut |_| {}).unwrap();
        assert!(report.problems.is_empty(), "{lack:?}: {report:?}");
    }
}

#[test]
fn deletes_free_space_after_many_starts_on_a_full_disk() {
    for lack in LACKS {
        let context = format!("{lack:?}");
        let mut store = crashed_store();
        // The delete after each start needs a new segment, and thus an inode of the reserve.
        let starts = match lack {
            Lack::Space => DOCUMENTS,
            Lack::Inodes | Lack::Both => 4,
        };
        for index in 0..starts {
            // Another program uses up all space that the last start has freed.
            exhaust(&store, lack, true);
            let engine = open(&store).unwrap();
            fill_disk(&store, &engine);
            let deleted = delete(&engine, &format!("c{index}"));
            deleted.unwrap_or_else(|error| panic!("{context}: {index}: {error:?}"));
            assert_eq!(read(&engine, &format!("c{index}")).unwrap(), None);
            store = store.crashed(Unsynced::Lost);
        }
        relieve(&store);
        let engine = open(&store).unwrap();
        assert_eq!(read(&engine, "large").unwrap(), Some(body(1, 100_000)));
        put(&engine, "new", "{}").unwrap();
    }
}

#[test]
fn clean_closes_keep_the_reserved_inodes_that_they_do_not_need() {
    for lack in [Lack::Inodes, Lack::Both] {
        let store = crashed_store();
        // The deletes and closes of two starts use up the space of the reserve.
        for index in 0..2 {
            let context = format!("{lack:?}: {index}");
            // Another program uses up all that the last close has released.
            exhaust(&store, lack, true);
            let engine = open(&store).unwrap();
            let deleted = delete(&engine, &format!("c{index}"));
            deleted.unwrap_or_else(|error| panic!("{context}: {error:?}"));
            engine.close().unwrap();
        }
        relieve(&store);
        let engine = open(&store).unwrap();
        assert_eq!(read(&engine, "large").unwrap(), Some(body(1, 100_000)));
    }
}

#[test]
fn power_cut_during_a_start_on_a_full_disk_loses_nothing() {
    for lack in LACKS {
        let crashed = crashed_store();
        exhaust(&crashed, lack, false);
        let mut operations = 0;
        loop {
            let store = crashed.crashed(Unsynced::Kept);
            exhaust(&store, lack, false);
            store.disk.cut_power_after(operations);
            let opened = open(&store);
            let is_complete = opened.is_ok();
            drop(opened);
            for seed in 0..4 {
                let after = store.crashed(Unsynced::Some { seed });
                let engine = open(&after).unwrap();
                check_documents(&engine, &format!("{lack:?}: {operations}: {seed}"));
            }
            if is_complete {
                break;
            }
            operations += 1;
            assert!(operations < 200, "{lack:?}: the store does not open");
        }
        assert!(operations > 20, "{lack:?}: {operations}");
    }
}

#[test]
fn full_disk_is_no_obstacle_for_commands_that_only_read() {
    for lack in LACKS {
        let store = crashed_store();
        exhaust(&store, lack, false);
        let found = stats(&store.config()).unwrap();
        assert_eq!(found.documents, DOCUMENTS + 1, "{lack:?}");
        let report = verify(&store.config(), &mut |_| {}).unwrap();
        assert!(report.problems.is_empty(), "{lack:?}: {report:?}");
        // A snapshot of the store contains all documents.
        let engine = open(&store).unwrap();
        let snapshot = engine.snapshot().unwrap();
        assert_eq!(snapshot.documents(), DOCUMENTS + 1, "{lack:?}");
    }
}

#[test]
fn compaction_and_erasure_work_after_a_start_on_a_full_disk() {
    for lack in LACKS {
        let store = crashed_store();
        exhaust(&store, lack, true);
        let manifest = store.path("log/manifest");
        let before = store.disk.bytes(&manifest);
        let engine = open(&store).unwrap();
        // The start has recorded where the log of the previous process ends.
        assert_ne!(store.disk.bytes(&manifest), before, "{lack:?}");
        for index in 0..DOCUMENTS {
            delete(&engine, &format!("c{index}")).unwrap();
        }
        let compacted = engine.compact();
        compacted.unwrap_or_else(|error| panic!("{lack:?}: {error:?}"));
        let erased = engine.erase("u", &mut |_| {});
        let erased = erased.unwrap_or_else(|error| panic!("{lack:?}: {error:?}"));
        assert!(erased.is_complete(), "{lack:?}: {erased:?}");
        assert_eq!(engine.documents(), 0, "{lack:?}");
        engine.close().unwrap();
    }
}
