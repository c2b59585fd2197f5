//! A full disk: deletes work, in the space that is kept for them, what they give back is
//! used, and a store opens.

use prefd_engine::{Engine, Error};
use prefd_tests::sim_disk::Unsynced;
use prefd_tests::sim_store::{Store, body, delete, put, read};

/// Lets the disk grow no more, and writes until what was prepared for frames is used up.
fn fill(store: &Store, engine: &Engine) {
    store.disk.set_capacity(store.disk.used_bytes());
    let mut writes = 0_u64;
    while put(engine, "filling", &body(writes, 1_500)).is_ok() {
        writes += 1;
        assert!(writes < 1000);
    }
    store.disk.set_capacity(store.disk.used_bytes());
}

#[test]
fn on_a_full_disk_deletes_work_and_what_they_give_back_is_used() {
    let store = Store::new();
    let engine = store.open().unwrap();
    for index in 0..80 {
        put(&engine, &format!("c{index}"), &body(index, 1_500)).unwrap();
    }
    put(&engine, "large", &body(1, 100_000)).unwrap();
    put(&engine, "filling", "{}").unwrap();
    fill(&store, &engine);
    for index in 0..80 {
        let refused = put(&engine, &format!("c{index}"), &body(1_000 + index, 1_500));
        assert!(matches!(refused, Err(Error::StorageFull { .. })));
        delete(&engine, &format!("c{index}")).unwrap();
        assert_eq!(read(&engine, &format!("c{index}")).unwrap(), None);
    }
    // What was refused is not there, and what was deleted neither.
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
fn room_for_deletes_comes_before_room_for_puts() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":1}").unwrap();
    fill(&store, &engine);
    let full = store.disk.used_bytes();
    delete(&engine, "c").unwrap();
    // It took its own bytes of what the reserve gave, and none for frames to come.
    let reserve = store.config().reserve_bytes;
    assert!(store.disk.used_bytes() + reserve < full + 200);
    // The reserve is in use: there is room for a put, and it is kept for deletes. (What
    // the delete took is not free.)
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
fn a_crashed_store_opens_on_a_full_disk() {
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
