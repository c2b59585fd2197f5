//! Forged files of a store: checksums are right, and what they cover is what no writer
//! would write. Nothing here is damage that a disk does; it is what the format rules out.

use std::fs;
use std::path::Path;

use prefd_engine::{Engine, Error};
use prefd_tests::golden::Golden;
use prefd_tests::layout::{change_head, frames, number, repair};
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
    // Before the segment, which must not come out as far behind it.
    for unsynced_bytes in [200, 1_000_000, u32::MAX] {
        let forged = after.crashed(Unsynced::Kept);
        forge(&forged, &forged.moved(&after, &unsealed), |bytes| {
            let second = frames(bytes)[1].bytes.start;
            change_head(bytes, second, |head| head.unsynced_bytes = unsynced_bytes);
        });
        let engine = forged.open().unwrap();
        assert_eq!(read(&engine, "first").unwrap().as_deref(), Some("{}"));
        assert!(forged.disk.used_bytes() < written + 1_000);
    }
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
        let first = frames(bytes)[0].bytes.start;
        change_head(bytes, first, |head| head.revision = 1 << 56);
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
        // Nothing says that there is a document, and its bytes are left as they are.
        let first = frames(bytes)[0].bytes.start;
        change_head(bytes, first, |head| {
            head.kind = 3;
            head.behind.clear();
        });
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

/// Found by reading the code: what was said to lie in the frame was looked for in inline
/// bytes that a document in a blob does not have, and that was a panic. Of version 1,
/// where each value says where it lies.
#[test]
fn a_document_that_lies_in_two_places_is_an_error() {
    let golden = Golden::of(1);
    let mut forged = Vec::new();
    for segment in golden.files("log", "seg") {
        let mut bytes = fs::read(&segment).unwrap();
        for place in frames(&bytes) {
            let frame = &mut bytes[place.bytes];
            let meta_end = 68 + number(frame, 48, 4) as usize;
            let Some(at) = frame.windows(11).position(|w| w == b"\"write\"\x01\0\0\0") else {
                continue;
            };
            // The first value, as five inline bytes from the seventh on; what that is
            // shorter by becomes inline bytes, so that the frame is as long as before.
            let place = at + 7;
            let extent_bytes = 36 + 4 * number(frame, place + 28, 8) as usize;
            frame[place..place + 12].copy_from_slice(&[0, 0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0]);
            let less = extent_bytes - 12;
            frame.copy_within(place + extent_bytes..meta_end, place + 12);
            frame[48..52].copy_from_slice(&((meta_end - 68 - less) as u32).to_le_bytes());
            frame[52..56].copy_from_slice(&(less as u32).to_le_bytes());
            forged.push(number(frame, 24, 8));
        }
        repair(&mut bytes);
        fs::write(&segment, bytes).unwrap();
    }
    let engine = Engine::open(golden.config()).unwrap();
    let mut refused = 0;
    for listed in golden.listing() {
        let namespace = engine.namespace(&listed.user, &listed.client).unwrap();
        let found = namespace.get();
        if listed
            .revision
            .is_some_and(|revision| forged.contains(&revision))
        {
            assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
            refused += 1;
        } else {
            let found = found.unwrap().map(|document| document.read().unwrap());
            assert_eq!(found, listed.text.map(String::into_bytes));
        }
    }
    assert!(refused > 0);
}

/// The frame is not what was written there, whatever the checksums say.
#[test]
fn lengths_of_members_that_the_body_does_not_have_are_an_error() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"a\":1,\"bc\":23}").unwrap();
    put(&engine, "other", "{}").unwrap();
    engine.close().unwrap();
    let segment = store.files("log", ".seg").pop().unwrap();
    // Three and one, four and two: the same sum, with each comma and colon elsewhere.
    for sizes in [
        [4, 1, 3, 2],
        [3, 2, 4, 1],
        [3, 1, 5, 1],
        [2, 2, 4, 2],
        [0, 4, 4, 2],
    ] {
        for is_sealed in [true, false] {
            let forged = store.crashed(Unsynced::Kept);
            let segment = forged.moved(&store, &segment);
            forge(&forged, &segment, |bytes| {
                let first = frames(bytes)[0].bytes.start;
                change_head(bytes, first, |head| {
                    head.behind.truncate(4);
                    head.behind.extend(sizes);
                });
            });
            if !is_sealed {
                forged.disk.lose(&segment.with_extension("sum"));
            }
            let engine = forged.open().unwrap();
            let found = read(&engine, "c");
            assert!(
                matches!(&found, Err(Error::Corrupt { path, .. }) if *path == segment),
                "{sizes:?}: {found:?}"
            );
            assert_eq!(read(&engine, "other").unwrap().as_deref(), Some("{}"));
            drop(engine);
            let found = prefd_engine::verify(&forged.config(), &mut |_| {}).unwrap();
            assert!(!found.problems.is_empty(), "{sizes:?}");
        }
    }
}

#[test]
fn a_summary_that_counts_more_than_it_holds_is_made_again() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":1}").unwrap();
    put(&engine, "d", "{\"n\":2}").unwrap();
    engine.close().unwrap();
    let summary = store.files("log", ".sum").pop().unwrap();
    // A start makes room for as many entries as are counted: of all that can be counted,
    // no memory has it.
    for (at, len, what) in [
        (36, 1, "entries"),
        (36, 4, "entries, as many as can be"),
        (64, 1, "a kind"),
        (81, 1, "a revision"),
        (82, 1, "a length"),
    ] {
        let forged = store.crashed(Unsynced::Kept);
        forge(&forged, &forged.moved(&store, &summary), |bytes| {
            bytes[at..at + len].fill(0xff);
        });
        let engine = forged.open().unwrap();
        for (client, n) in [("c", 1), ("d", 2)] {
            // A revision or a length of the right form is not that of the frame.
            match read(&engine, client) {
                Ok(found) => assert_eq!(found, Some(format!("{{\"n\":{n}}}")), "{what}"),
                Err(Error::Corrupt { .. }) => assert!(at > 64, "{what}"),
                Err(error) => panic!("{what}: {error:?}"),
            }
        }
    }
}
