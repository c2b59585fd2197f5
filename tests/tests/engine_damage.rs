//! Specific kinds of damage: which documents become unreadable, which error a read returns, and
//! what makes the documents readable again. `engine_damage_sweep.rs` damages every offset of a
//! store.

use std::io::ErrorKind;
use std::path::Path;

use prefd_engine::{Error, Impact, Precondition, WriteOptions, stats, verify};
use prefd_tests::layout::{crc32, frames};
use prefd_tests::sim_disk::{DiskOperation, Unsynced};
use prefd_tests::sim_store::{Store, put, read};

/// A store with one sealed segment for each of the given clients.
fn store_with_one_segment_per_client(clients: &[&str]) -> Store {
    let store = Store::new();
    for client in clients {
        let engine = store.open().unwrap();
        put(&engine, client, "{}").unwrap();
        engine.close().unwrap();
    }
    store
}

#[test]
fn missing_segment_affects_only_its_documents_until_a_put() {
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

/// Regression test, found by the fuzzer of segment replay. Recovery used to attribute all bytes
/// from a damaged header to the next valid frame to a single namespace.
#[test]
fn adjacent_damaged_frames_never_expose_older_revisions() {
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
    // Damage the same byte of both headers. With one wrong bit, the checksum still identifies
    // the namespace. With two wrong bits (0x11), the namespaces are unknown.
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

/// docs/operations.md guarantees that a wrong bit in a frame makes only one document unreadable.
#[test]
fn single_bit_error_in_a_frame_affects_only_its_document() {
    let store = Store::new();
    let engine = store.open().unwrap();
    for client in ["older", "bad", "newer"] {
        put(&engine, client, "{\"n\":1}").unwrap();
    }
    let after = store.crashed(Unsynced::Lost);
    let unsealed = after.files("log", ".seg").pop().unwrap();
    let bytes = after.disk.bytes(&unsealed);
    let damaged = frames(&bytes)[1].bytes.clone();
    for at in damaged {
        let copy = after.crashed(Unsynced::Kept);
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        copy.disk.overwrite(&copy.moved(&after, &unsealed), changed);
        let engine = copy.open().unwrap();
        assert!(
            read(&engine, "bad").is_err(),
            "the frame damaged at {at} must be unreadable"
        );
        for client in ["older", "newer"] {
            let found = read(&engine, client).unwrap();
            assert_eq!(found.as_deref(), Some("{\"n\":1}"), "{at}: {client}");
        }
        assert_eq!(read(&engine, "never-set").unwrap(), None, "{at}");
    }
}

#[test]
fn segment_lost_with_its_summary_never_exposes_older_revisions() {
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
fn unreadable_summary_is_rebuilt() {
    let clients = ["first", "second"];
    let store = store_with_one_segment_per_client(&clients);
    for summary in store.files("log", ".sum") {
        store.disk.fail_reads(summary);
    }
    let engine = store.open().unwrap();
    for client in clients {
        assert_eq!(read(&engine, client).unwrap().as_deref(), Some("{}"));
    }
}

#[test]
fn unreadable_segment_is_read_again_after_the_disk_recovers() {
    let store = store_with_one_segment_per_client(&["bad", "good"]);
    store.disk.set_fault(Box::new(|operation, path| {
        let is_bad = path.file_stem().is_some_and(|stem| stem == "00000001");
        (operation == DiskOperation::Read && is_bad).then_some(ErrorKind::Other)
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

/// The summary knows to which document a damaged frame belongs, even if the frame does not.
#[test]
fn summary_that_is_unreadable_for_a_time_is_kept_if_a_frame_is_damaged() {
    let store = Store::new();
    let engine = store.open().unwrap();
    for client in ["bad", "good", "newest"] {
        put(&engine, client, "{}").unwrap();
    }
    engine.close().unwrap();
    let segment = store.files("log", ".seg").remove(0);
    let summary = segment.with_extension("sum");
    let summary_bytes = store.disk.bytes(&summary);
    let mut bytes = store.disk.bytes(&segment);
    let bad = frames(&bytes)[0].bytes.start;
    bytes[bad] ^= 1;
    store.disk.overwrite(&segment, bytes);
    store.disk.fail_reads(summary.clone());
    let engine = store.open().unwrap();
    assert!(read(&engine, "bad").is_err());
    engine.close().unwrap();
    store.disk.clear_fault();
    assert!(store.disk.bytes(&summary) == summary_bytes);
    let engine = store.open().unwrap();
    assert!(matches!(read(&engine, "bad"), Err(Error::Corrupt { .. })));
    assert_eq!(read(&engine, "never-set").unwrap(), None);
    for client in ["good", "newest"] {
        assert_eq!(read(&engine, client).unwrap().as_deref(), Some("{}"));
    }
}

/// The damaged frame does not say that it refers to the blob. If the disk returned wrong bytes only
/// for a time, the document must still be there.
#[test]
fn blob_of_a_damaged_frame_is_kept() {
    let store = Store::new();
    let large = format!("{{\"k\":\"{}\"}}", "x".repeat(5000));
    let engine = store.open().unwrap();
    put(&engine, "large", &large).unwrap();
    engine.close().unwrap();
    let segment = store.files("log", ".seg").remove(0);
    let intact = store.disk.bytes(&segment);
    let mut damaged = intact.clone();
    let last = frames(&intact)[0].bytes.end - 1;
    damaged[last] ^= 1;
    store.disk.overwrite(&segment, damaged);
    store.disk.lose(&segment.with_extension("sum"));
    let engine = store.open().unwrap();
    assert!(matches!(read(&engine, "large"), Err(Error::Corrupt { .. })));
    assert_eq!(read(&engine, "never-set").unwrap(), None);
    engine.compact().unwrap();
    engine.close().unwrap();
    store.disk.overwrite(&segment, intact);
    store.disk.lose(&segment.with_extension("sum"));
    let engine = store.open().unwrap();
    assert_eq!(read(&engine, "large").unwrap(), Some(large));
}

#[test]
fn verify_reports_an_unreadable_segment_and_continues() {
    let store = store_with_one_segment_per_client(&["bad", "good"]);
    let segment = store.files("log", ".seg").remove(0);
    store.disk.fail_reads(segment.clone());
    let found = verify(&store.config(), &mut |_| {}).unwrap();
    assert_eq!(found.documents, 1);
    let problems: Vec<_> = found
        .problems
        .iter()
        .map(|p| (&p.path, p.impact, p.namespace.clone()))
        .collect();
    let namespace = Some(("u".to_owned(), "bad".to_owned()));
    assert_eq!(problems, [(&segment, Impact::Document, namespace)]);
    // Only the first read of the segment fails, so every document can still be read.
    let mut is_first_read = true;
    store.disk.set_fault(Box::new(move |operation, path| {
        let fails = operation == DiskOperation::Read && path == segment && is_first_read;
        is_first_read &= !fails;
        fails.then_some(ErrorKind::Other)
    }));
    let found = verify(&store.config(), &mut |_| {}).unwrap();
    let impacts: Vec<_> = found.problems.iter().map(|p| p.impact).collect();
    assert_eq!((found.documents, impacts), (2, vec![Impact::Nothing]));
}

#[test]
fn refused_write_does_not_hide_writes_after_a_lost_segment() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "lost", "{}").unwrap();
    store.disk.set_fault(Box::new(|operation, _| {
        (operation == DiskOperation::Write).then_some(ErrorKind::StorageFull)
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
fn damaged_frame_does_not_hide_later_writes() {
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

/// Expects that neither an open nor an inspection accepts the store.
fn expect_outdated_manifest(store: &Store, manifest: &Path) {
    let outcomes = [
        store.open().map(drop),
        verify(&store.config(), &mut |_| {}).map(drop),
        stats(&store.config()).map(drop),
    ];
    for outcome in outcomes {
        assert!(
            matches!(&outcome, Err(Error::Corrupt { path, .. }) if path == manifest),
            "{outcome:?}"
        );
    }
}

#[test]
fn outdated_manifest_is_refused_and_no_file_is_removed() {
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
    expect_outdated_manifest(&store, &manifest);
    assert_eq!(store.disk.files(), files);
}

#[test]
fn manifest_from_before_a_compaction_is_refused() {
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
    expect_outdated_manifest(&store, &manifest);
    assert_eq!(store.disk.files(), files);
}

#[test]
fn newer_manifest_version_is_refused() {
    let store = Store::new();
    store.open().unwrap().close().unwrap();
    let manifest = store.path("log/manifest");
    let mut bytes = store.disk.bytes(&manifest);
    bytes[8] = 4;
    let crc = crc32(&bytes[..20]);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    store.disk.overwrite(&manifest, bytes);
    assert!(matches!(
        store.open(),
        Err(Error::UnsupportedFormat {
            found: 4,
            supported: 3,
            ..
        })
    ));
}
