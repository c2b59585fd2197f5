//! Forged files of a store: checksums are right, and what they cover is what no writer
//! would write. Nothing here is damage that a disk does; it is what the format rules out.

use std::path::Path;

use prefd_engine::Error;
use prefd_tests::layout::{frames, repair};
use prefd_tests::sim_disk::Unsynced;
use prefd_tests::sim_store::{Store, put, read};

/// Changes a file, and makes its checksums right again.
fn forge(store: &Store, file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = store.disk.bytes(file);
    change(&mut bytes);
    repair(&mut bytes);
    store.disk.overwrite(file, bytes);
}

/// Found by the fuzzer of segment replay, which makes checksums right: the segment was
/// sealed at that length, and its file extended to it.
#[test]
fn a_watermark_beyond_its_own_frame_is_not_believed() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "first", "{}").unwrap();
    put(&engine, "second", "{}").unwrap();
    let after = store.crashed(Unsynced::Lost);
    let unsealed = after.files("log", ".seg").pop().unwrap();
    let written = after.disk.used_bytes();
    forge(&after, &unsealed, |bytes| {
        let watermark = frames(bytes)[1].bytes.start + 40;
        bytes[watermark..watermark + 4].copy_from_slice(&1_000_000_u32.to_le_bytes());
    });
    let engine = after.open().unwrap();
    assert_eq!(read(&engine, "first").unwrap().as_deref(), Some("{}"));
    assert!(after.disk.used_bytes() < written + 1_000);
}

/// Found by the fuzzer of segment replay, which makes checksums right: the first open
/// went well, and the second one found the segment unlisted and refused it.
#[test]
fn a_revision_that_was_never_reserved_is_refused_at_the_first_open() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{}").unwrap();
    let after = store.crashed(Unsynced::Lost);
    let unsealed = after.files("log", ".seg").pop().unwrap();
    forge(&after, &unsealed, |bytes| {
        let revision = frames(bytes)[0].bytes.start + 24;
        bytes[revision + 7] = 1;
    });
    let manifest = after.path("log/manifest");
    assert!(matches!(after.open(), Err(Error::Corrupt { path, .. }) if path == manifest));
}

/// Found by the fuzzer of damaged stores: the next segment got an id that was taken.
#[test]
fn a_manifest_whose_segments_are_in_no_order_is_refused() {
    let store = Store::new();
    for _ in 0..2 {
        let engine = store.open().unwrap();
        put(&engine, "c", "{}").unwrap();
        engine.close().unwrap();
    }
    // The id of the next segment, which the second one has or is behind; the id of the
    // first one, which the second one has too or is before.
    for (at, id) in [(48, 0), (48, 2), (68, 2), (68, 3)] {
        let forged = store.crashed(Unsynced::Kept);
        let manifest = forged.path("log/manifest");
        forge(&forged, &manifest, |bytes| {
            assert_ne!(bytes[at], id);
            bytes[at] = id;
        });
        let opened = forged.open();
        assert!(
            matches!(&opened, Err(Error::Corrupt { path, .. }) if *path == manifest),
            "{at}: {opened:?}"
        );
    }
}

/// Found by the fuzzer of damaged stores: it was read as a document of no bytes.
#[test]
fn a_put_that_has_become_a_delete_is_an_error() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{}").unwrap();
    engine.close().unwrap();
    let segment = store.files("log", ".seg").pop().unwrap();
    forge(&store, &segment, |bytes| {
        let kind = frames(bytes)[0].bytes.start + 6;
        bytes[kind] = 2;
    });
    let engine = store.open().unwrap();
    let found = read(&engine, "c");
    assert!(
        matches!(&found, Err(Error::Corrupt { path, .. }) if *path == segment),
        "{found:?}"
    );
    let stat = engine.namespace("u", "c").unwrap().stat();
    assert!(matches!(stat, Err(Error::Corrupt { .. })), "{stat:?}");
}

/// Found by the fuzzer of damaged stores: the last one was given twice.
#[test]
fn where_no_segment_id_is_left_nothing_is_written() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{}").unwrap();
    engine.close().unwrap();
    let manifest = store.path("log/manifest");
    forge(&store, &manifest, |bytes| bytes[48..52].fill(0xff));
    for _ in 0..2 {
        let engine = store.open().unwrap();
        let refused = put(&engine, "c", "{\"n\":1}");
        assert!(
            matches!(&refused, Err(Error::Corrupt { path, .. }) if *path == manifest),
            "{refused:?}"
        );
        assert_eq!(read(&engine, "c").unwrap().as_deref(), Some("{}"));
    }
}

#[test]
fn a_manifest_whose_revisions_come_to_an_end_is_refused() {
    let store = Store::new();
    store.open().unwrap().close().unwrap();
    let manifest = store.path("log/manifest");
    forge(&store, &manifest, |bytes| bytes[52..60].fill(0xff));
    assert!(matches!(store.open(), Err(Error::Corrupt { path, .. }) if path == manifest));
}

/// Found by the fuzzer of the decoders: the byte was not looked at.
#[test]
fn a_manifest_with_something_where_zero_belongs_is_refused() {
    let store = Store::new();
    store.open().unwrap().close().unwrap();
    let manifest = store.path("log/manifest");
    forge(&store, &manifest, |bytes| bytes[11] = 1);
    assert!(matches!(store.open(), Err(Error::Corrupt { path, .. }) if path == manifest));
}
