//! Forged files: their checksums are valid, but their contents break a rule of the format. No
//! version of prefd writes such files, and a failing disk does not produce them.

use std::fs;
use std::path::Path;

use prefd_engine::{Engine, Error};
use prefd_tests::golden::Golden;
use prefd_tests::layout::{change_head, frames, number, repair};
use prefd_tests::sim_disk::Unsynced;
use prefd_tests::sim_store::{Store, put, read};

/// Changes the contents of a file, and recomputes its checksums.
fn forge(store: &Store, file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = store.disk.bytes(file);
    change(&mut bytes);
    repair(&mut bytes);
    store.disk.overwrite(file, bytes);
}

/// Regression test, found by the fuzzer of segment replay. Recovery used to seal the segment at
/// the length that the forged watermark implies, and extended the file to that length.
#[test]
fn frame_with_watermark_before_its_segment_is_rejected() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "first", "{}").unwrap();
    put(&engine, "second", "{}").unwrap();
    let after = store.crashed(Unsynced::Lost);
    let unsealed = after.files("log", ".seg").pop().unwrap();
    let written = after.disk.used_bytes();
    // These values put the watermark before the start of the segment. The subtraction wraps
    // around, and recovery must not use the result as an offset.
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

/// Regression test, found by the fuzzer of segment replay. The first open used to accept the
/// store, and the second open then refused it because of a segment that the manifest did not
/// list.
#[test]
fn unreserved_revision_is_refused_at_the_first_open() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{}").unwrap();
    let after = store.crashed(Unsynced::Lost);
    let unsealed = after.files("log", ".seg").pop().unwrap();
    forge(&after, &unsealed, |bytes| {
        let first = frames(bytes)[0].bytes.start;
        change_head(bytes, first, |head| head.revision = 1 << 62);
    });
    let manifest = after.path("log/manifest");
    assert!(matches!(after.open(), Err(Error::Corrupt { path, .. }) if path == manifest));
}

/// Regression test, found by the fuzzer of damaged stores. A new segment used to get an id that
/// was already in use.
#[test]
fn manifest_with_unordered_segment_ids_is_refused() {
    let store = Store::new();
    for _ in 0..2 {
        let engine = store.open().unwrap();
        put(&engine, "c", "{}").unwrap();
        engine.close().unwrap();
    }
    // Offset 48 is the id of the next segment, which must be higher than 2, the id of the second
    // segment. Offset 76 is the id of the first segment, which must be lower than 2.
    for (at, id) in [(48, 0), (48, 2), (76, 2), (76, 3)] {
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

/// Regression test, found by the fuzzer of damaged stores. The frame used to be read as a
/// document of zero bytes.
#[test]
fn put_forged_into_a_delete_is_an_error() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{}").unwrap();
    engine.close().unwrap();
    let segment = store.files("log", ".seg").pop().unwrap();
    forge(&store, &segment, |bytes| {
        // Turn the header into that of a delete. The bytes of the document still follow it.
        let first = frames(bytes)[0].bytes.start;
        change_head(bytes, first, |head| {
            head.kind = 3;
            head.after_names.clear();
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

/// Regression test, found by the fuzzer of damaged stores. The last segment id used to be given
/// to two segments.
#[test]
fn write_fails_when_segment_ids_are_exhausted() {
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
fn manifest_with_exhausted_revisions_is_refused() {
    let store = Store::new();
    store.open().unwrap().close().unwrap();
    let manifest = store.path("log/manifest");
    forge(&store, &manifest, |bytes| bytes[52..60].fill(0xff));
    assert!(matches!(store.open(), Err(Error::Corrupt { path, .. }) if path == manifest));
}

/// Regression test, found by the fuzzer of the decoders. The decoder used to ignore this byte.
#[test]
fn manifest_with_nonzero_reserved_byte_is_refused() {
    let store = Store::new();
    store.open().unwrap().close().unwrap();
    let manifest = store.path("log/manifest");
    forge(&store, &manifest, |bytes| bytes[11] = 1);
    assert!(matches!(store.open(), Err(Error::Corrupt { path, .. }) if path == manifest));
}

/// Regression test for a panic. A document whose values are in a blob has no inline body, but the
/// forged metadata refers to one. The test uses format version 1, because only that version
/// records the location of each value.
#[test]
fn document_split_between_inline_body_and_blob_is_an_error() {
    let golden = Golden::of(1);
    let mut forged = Vec::new();
    for segment in golden.files("log", "seg") {
        let mut bytes = fs::read(&segment).unwrap();
        for location in frames(&bytes) {
            let frame = &mut bytes[location.bytes];
            let meta_end = 68 + number(frame, 48, 4) as usize;
            let Some(at) = frame.windows(11).position(|w| w == b"\"write\"\x01\0\0\0") else {
                continue;
            };
            // Replace the extent of the first value with a reference to the inline body, at offset
            // 7 and of length 5. The metadata becomes shorter; the bytes that are left over become
            // the inline body, so that the frame keeps its length.
            let value_at = at + 7;
            let extent_bytes = 36 + 4 * number(frame, value_at + 28, 8) as usize;
            frame[value_at..value_at + 12].copy_from_slice(&[0, 0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0]);
            let saved_bytes = extent_bytes - 12;
            frame.copy_within(value_at + extent_bytes..meta_end, value_at + 12);
            frame[48..52].copy_from_slice(&((meta_end - 68 - saved_bytes) as u32).to_le_bytes());
            frame[52..56].copy_from_slice(&(saved_bytes as u32).to_le_bytes());
            forged.push(number(frame, 24, 8));
        }
        repair(&mut bytes);
        fs::write(&segment, bytes).unwrap();
    }
    let engine = Engine::open(golden.config()).unwrap();
    let mut unreadable = 0;
    for listed in golden.listing() {
        let namespace = engine.namespace(&listed.user, &listed.client).unwrap();
        let found = namespace.get();
        if listed
            .revision
            .is_some_and(|revision| forged.contains(&revision))
        {
            assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
            unreadable += 1;
        } else {
            let found = found.unwrap().map(|document| document.read().unwrap());
            assert_eq!(found, listed.text.map(String::into_bytes));
        }
    }
    assert!(unreadable > 0, "no forged document was read");
}

#[test]
fn member_lengths_that_contradict_the_body_are_an_error() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"a\":1,\"bc\":23}").unwrap();
    put(&engine, "other", "{}").unwrap();
    engine.close().unwrap();
    let segment = store.files("log", ".seg").pop().unwrap();
    // The correct lengths are [3, 1, 4, 2]. The forged lengths have the same sum, but they put the
    // commas and colons at other offsets.
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
                    head.after_names.truncate(4);
                    head.after_names.extend(sizes);
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
fn summary_with_forged_fields_is_rebuilt_or_detected() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":1}").unwrap();
    put(&engine, "d", "{\"n\":2}").unwrap();
    engine.close().unwrap();
    let summary = store.files("log", ".sum").pop().unwrap();
    // Opening the store allocates memory for the counted entries. A count that the summary cannot
    // hold must be rejected before the allocation.
    for (at, len, what) in [
        (36, 1, "the number of entries"),
        (36, 4, "the maximum number of entries"),
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
            // A forged revision or length can be well-formed, but it differs from that of the
            // frame. Reading the frame then fails.
            match read(&engine, client) {
                Ok(found) => assert_eq!(found, Some(format!("{{\"n\":{n}}}")), "{what}"),
                Err(Error::Corrupt { .. }) => assert!(at > 64, "{what}"),
                Err(error) => panic!("{what}: expected Corrupt: {error:?}"),
            }
        }
    }
}
