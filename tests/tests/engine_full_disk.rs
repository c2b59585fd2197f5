//! A full disk: deletes succeed because space is reserved for them, the space that they free
//! is reused, and a store can be opened.

use prefd_engine::{Engine, Error};
use prefd_tests::sim_disk::Unsynced;
use prefd_tests::sim_store::{Store, body, delete, put, read};

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
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":1}").unwrap();
    fill_disk(&store, &engine);
    let full = store.disk.used_bytes();
    delete(&engine, "c").unwrap();
    // The delete released the reserve and used only the bytes of its own frame: the segment was
    // not preallocated further.
    let reserve = store.config().reserve_bytes;
    assert!(store.disk.used_bytes() + reserve < full + 200);
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
