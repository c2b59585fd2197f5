//! Damage worth a name: what it takes from whom, what mends it, and what the errors say.
//! `engine_bits.rs` has damage at any place.

use std::io::ErrorKind;

use prefd_engine::{Error, Impact, Precondition, WriteOptions};
use prefd_tests::layout::{crc32, frames};
use prefd_tests::sim_disk::{Operation, Unsynced};
use prefd_tests::sim_store::{Store, put, read};

/// A store with one sealed segment for each of these documents.
fn in_segments_of_their_own(clients: &[&str]) -> Store {
    let store = Store::new();
    for client in clients {
        let engine = store.open().unwrap();
        put(&engine, client, "{}").unwrap();
        engine.close().unwrap();
    }
    store
}

#[test]
fn a_sealed_segment_that_is_gone_takes_only_its_own_documents_and_a_put_mends_them() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "old", "{\"n\":1}").unwrap();
    put(&engine, "moved", "{\"n\":1}").unwrap();
    engine.close().unwrap();
    let first = store.files("log", ".seg").pop().unwrap();
    let engine = store.open().unwrap();
    put(&engine, "moved", "{\"n\":2}").unwrap();
    engine.close().unwrap();
    store.disk.lose(&first);
    let engine = store.open().unwrap();
    assert_eq!(
        read(&engine, "moved").unwrap().as_deref(),
        Some("{\"n\":2}")
    );
    assert!(matches!(read(&engine, "old"), Err(Error::Corrupt { path, .. }) if path == first));
    let clients: Vec<_> = engine
        .list("u", None, 9)
        .unwrap()
        .into_iter()
        .map(|e| e.client)
        .collect();
    assert_eq!(clients, ["moved", "old"]);
    put(&engine, "old", "{\"n\":3}").unwrap();
    assert_eq!(read(&engine, "old").unwrap().as_deref(), Some("{\"n\":3}"));
}

/// Found by the fuzzer of segment replay: what lay behind a damaged header up to the
/// next frame that checked out was taken for one frame of one namespace.
#[test]
fn two_damaged_frames_side_by_side_never_make_older_revisions_visible() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "second", "{\"n\":1}").unwrap();
    engine.close().unwrap();
    let engine = store.open().unwrap();
    put(&engine, "first", "{\"n\":2}").unwrap();
    put(&engine, "second", "{\"n\":2}").unwrap();
    put(&engine, "third", "{\"n\":2}").unwrap();
    let after = store.crashed(Unsynced::Lost);
    let unsealed = after.files("log", ".seg").pop().unwrap();
    let bytes = after.disk.bytes(&unsealed);
    let frames = frames(&bytes);
    // One bit in the head of each, so that nothing but its checksum fails; and more than
    // one, so that it cannot be told whose they were.
    for at in 0..frames[0].head_bytes {
        for wrong in [0x01, 0x80, 0x11] {
            let copy = after.crashed(Unsynced::Kept);
            let mut bytes = bytes.clone();
            bytes[frames[0].bytes.start + at] ^= wrong;
            bytes[frames[1].bytes.start + at] ^= wrong;
            copy.disk.overwrite(&copy.moved(&after, &unsealed), bytes);
            let engine = copy.open().unwrap();
            for client in ["first", "second"] {
                let found = read(&engine, client);
                assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
            }
            if wrong != 0x11 {
                let third = read(&engine, "third").unwrap();
                assert_eq!(third.as_deref(), Some("{\"n\":2}"), "{at}");
            }
        }
    }
}

/// What operations.md promises of one bad bit, wherever it is.
#[test]
fn one_bad_bit_of_a_frame_takes_the_document_in_it_and_no_other() {
    let store = Store::new();
    let engine = store.open().unwrap();
    for client in ["older", "bad", "newer"] {
        put(&engine, client, "{\"n\":1}").unwrap();
    }
    let after = store.crashed(Unsynced::Lost);
    let unsealed = after.files("log", ".seg").pop().unwrap();
    let bytes = after.disk.bytes(&unsealed);
    let bad = frames(&bytes)[1].bytes.clone();
    for at in bad {
        let copy = after.crashed(Unsynced::Kept);
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        copy.disk.overwrite(&copy.moved(&after, &unsealed), changed);
        let engine = copy.open().unwrap();
        assert!(read(&engine, "bad").is_err(), "{at}");
        for client in ["older", "newer"] {
            let found = read(&engine, client).unwrap();
            assert_eq!(found.as_deref(), Some("{\"n\":1}"), "{at}: {client}");
        }
        assert_eq!(read(&engine, "never-set").unwrap(), None, "{at}");
    }
}

#[test]
fn a_segment_lost_with_its_summary_never_makes_older_revisions_visible() {
    let store = Store::new();
    for n in 1..=3 {
        let engine = store.open().unwrap();
        put(&engine, "c", &format!("{{\"n\":{n}}}")).unwrap();
        if n == 3 {
            put(&engine, "untouched", "{}").unwrap();
        }
        engine.close().unwrap();
    }
    let engine = store.open().unwrap();
    put(&engine, "newer", "{}").unwrap();
    engine.close().unwrap();
    for file in store.files("log", "") {
        if file.to_string_lossy().contains("00000003.") {
            store.disk.lose(&file);
        }
    }
    for _ in 0..2 {
        let engine = store.open().unwrap();
        for client in ["c", "untouched", "never-set"] {
            assert!(
                matches!(read(&engine, client), Err(Error::Corrupt { .. })),
                "{client}"
            );
        }
        assert_eq!(read(&engine, "newer").unwrap().as_deref(), Some("{}"));
        assert!(matches!(
            engine.list("u", None, 9),
            Err(Error::Corrupt { .. })
        ));
        let conditional = WriteOptions {
            precondition: Precondition::absent(),
            ..WriteOptions::default()
        };
        let outcome = engine
            .namespace("u", "c")
            .unwrap()
            .write(b"{}", conditional);
        assert!(matches!(outcome, Err(Error::Corrupt { .. })));
        engine.close().unwrap();
    }
}

#[test]
fn a_summary_that_the_disk_does_not_give_back_is_made_again() {
    let clients = ["first", "second"];
    let store = in_segments_of_their_own(&clients);
    for summary in store.files("log", ".sum") {
        store.disk.fail_reads(summary);
    }
    let engine = store.open().unwrap();
    for client in clients {
        assert_eq!(read(&engine, client).unwrap().as_deref(), Some("{}"));
    }
}

#[test]
fn a_segment_that_the_disk_does_not_give_back_at_all_is_there_once_it_does() {
    let store = in_segments_of_their_own(&["bad", "good"]);
    store.disk.set_fault(Box::new(|operation, path| {
        let is_bad = path.file_stem().is_some_and(|stem| stem == "00000001");
        (operation == Operation::Read && is_bad).then_some(ErrorKind::Other)
    }));
    let engine = store.open().unwrap();
    let bad = read(&engine, "bad");
    assert!(matches!(bad, Err(Error::Corrupt { .. })), "{bad:?}");
    assert_eq!(read(&engine, "good").unwrap().as_deref(), Some("{}"));
    engine.close().unwrap();
    store.disk.clear_fault();
    let engine = store.open().unwrap();
    for client in ["bad", "good"] {
        assert_eq!(read(&engine, client).unwrap().as_deref(), Some("{}"));
    }
}

#[test]
fn verify_names_what_the_disk_does_not_give_back_and_goes_on() {
    let store = in_segments_of_their_own(&["bad", "good"]);
    let segment = store.files("log", ".seg").remove(0);
    store.disk.fail_reads(segment.clone());
    let found = prefd_engine::verify(&store.config(), &mut |_| {}).unwrap();
    assert_eq!(found.documents, 1);
    let problems: Vec<_> = found
        .problems
        .iter()
        .map(|p| (&p.path, p.impact, p.namespace.clone()))
        .collect();
    let whose = Some(("u".to_owned(), "bad".to_owned()));
    assert_eq!(problems, [(&segment, Impact::Document, whose)]);
    // One sector is bad, and no document lies in it.
    let mut is_first = true;
    store.disk.set_fault(Box::new(move |operation, path| {
        let fails = operation == Operation::Read && path == segment && is_first;
        is_first &= !fails;
        fails.then_some(ErrorKind::Other)
    }));
    let found = prefd_engine::verify(&store.config(), &mut |_| {}).unwrap();
    let harms: Vec<_> = found.problems.iter().map(|p| p.impact).collect();
    assert_eq!((found.documents, harms), (2, vec![Impact::Nothing]));
}

#[test]
fn a_refused_write_does_not_widen_what_a_lost_segment_hides() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "lost", "{}").unwrap();
    store.disk.set_fault(Box::new(|operation, _| {
        (operation == Operation::Write).then_some(ErrorKind::StorageFull)
    }));
    let refused = put(&engine, "newer", "{}");
    assert!(matches!(refused, Err(Error::StorageFull { .. })));
    store.disk.clear_fault();
    engine.close().unwrap();
    let engine = store.open().unwrap();
    put(&engine, "newer", "{}").unwrap();
    engine.close().unwrap();
    for file in store.files("log", "") {
        if file.to_string_lossy().contains("00000001.") {
            store.disk.lose(&file);
        }
    }
    let engine = store.open().unwrap();
    let lost = read(&engine, "lost");
    assert!(matches!(lost, Err(Error::Corrupt { .. })), "{lost:?}");
    assert_eq!(read(&engine, "newer").unwrap().as_deref(), Some("{}"));
}

#[test]
fn a_damaged_frame_hides_nothing_that_was_written_after_it() {
    for is_sealed in [false, true] {
        let store = Store::new();
        let engine = store.open().unwrap();
        put(&engine, "c", "{\"n\":1}").unwrap();
        put(&engine, "other", "{}").unwrap();
        put(&engine, "c", "{\"n\":2}").unwrap();
        put(&engine, "last", "{}").unwrap();
        let segment = store.files("log", ".seg").pop().unwrap();
        let store = if is_sealed {
            engine.close().unwrap();
            store.disk.lose(&segment.with_extension("sum"));
            store
        } else {
            store.crashed(Unsynced::Lost)
        };
        let segment = store.files("log", ".seg").pop().unwrap();
        let mut bytes = store.disk.bytes(&segment);
        let body = bytes.windows(6).position(|w| w == b"{\"n\":1").unwrap();
        bytes[body + 5] = b'7';
        store.disk.overwrite(&segment, bytes);
        let engine = store.open().unwrap();
        for (client, expected) in [("c", "{\"n\":2}"), ("other", "{}"), ("last", "{}")] {
            assert_eq!(read(&engine, client).unwrap().as_deref(), Some(expected));
        }
    }
}

#[test]
fn an_out_of_date_manifest_is_refused_and_nothing_removed() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":1}").unwrap();
    engine.close().unwrap();
    let manifest = store.path("log/manifest");
    let old = store.disk.bytes(&manifest);
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":2}").unwrap();
    engine.close().unwrap();
    let files = store.disk.files();
    store.disk.overwrite(&manifest, old);
    assert!(matches!(store.open(), Err(Error::Corrupt { path, .. }) if path == manifest));
    assert_eq!(store.disk.files(), files);
}

#[test]
fn nor_one_from_before_a_compaction() {
    let store = Store::new();
    for n in 0..3 {
        let engine = store.open().unwrap();
        put(&engine, "c", &format!("{{\"n\":{n}}}")).unwrap();
        put(&engine, &format!("d{n}"), "{}").unwrap();
        engine.close().unwrap();
    }
    let manifest = store.path("log/manifest");
    let old = store.disk.bytes(&manifest);
    let engine = store.open().unwrap();
    engine.compact().unwrap();
    engine.close().unwrap();
    let files = store.disk.files();
    store.disk.overwrite(&manifest, old);
    assert!(matches!(store.open(), Err(Error::Corrupt { path, .. }) if path == manifest));
    assert_eq!(store.disk.files(), files);
}

#[test]
fn a_newer_format_is_refused_by_its_version() {
    let store = Store::new();
    store.open().unwrap().close().unwrap();
    let manifest = store.path("log/manifest");
    let mut bytes = store.disk.bytes(&manifest);
    bytes[8] = 2;
    let crc = crc32(&bytes[..20]);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    store.disk.overwrite(&manifest, bytes);
    assert!(matches!(
        store.open(),
        Err(Error::UnsupportedFormat {
            found: 2,
            supported: 1,
            ..
        })
    ));
}
