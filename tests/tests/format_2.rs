//! A directory that was written once, in format version 2, by the program in
//! `examples/make_golden.rs`: every later version reads it, and goes on with it.
//!
//! Should this fail, it is the engine that has to change, and never the directory.

use std::fs;

use prefd_engine::{Engine, Precondition, WriteOptions};
use prefd_tests::golden::{Golden, check_all, listing_of, sweep_bits};

#[test]
fn it_holds_what_makes_it_worth_keeping() {
    let golden = Golden::of(2);
    let listing = listing_of(2);
    let segments = golden.files("log", "seg").len();
    assert!(segments >= 4, "{segments} segments");
    assert_eq!(
        golden.files("log", "sum").len(),
        segments - 1,
        "one is unsealed"
    );
    assert!(golden.files("blobs", "blob").len() >= 2);
    assert!(listing.iter().any(|listed| listed.text.is_none()));
    assert!(
        listing
            .iter()
            .any(|listed| listed.text.as_deref() == Some("{}"))
    );
    let bytes: usize = golden.image().values().map(Vec::len).sum();
    assert!(bytes < 300 * 1024, "{bytes} bytes");
    for path in golden.image().keys() {
        let header = fs::read(path).unwrap();
        let is_of_2 = path.extension().is_some_and(|e| e == "seg" || e == "sum");
        let version: u16 = if is_of_2 { 2 } else { 1 };
        assert_eq!(header[8..10], version.to_le_bytes(), "{}", path.display());
    }
}

#[test]
fn every_document_is_read_as_it_was_written() {
    let golden = Golden::of(2);
    let engine = Engine::open(golden.config()).unwrap();
    check_all(&engine, &listing_of(2));
    engine.close().unwrap();
    let engine = Engine::open(golden.config()).unwrap();
    check_all(&engine, &listing_of(2));
}

#[test]
fn the_frames_alone_tell_the_same() {
    let golden = Golden::of(2);
    for summary in golden.files("log", "sum") {
        fs::remove_file(summary).unwrap();
    }
    let engine = Engine::open(golden.config()).unwrap();
    check_all(&engine, &listing_of(2));
}

#[test]
fn it_is_written_to_and_opened_again() {
    let golden = Golden::of(2);
    let mut all = listing_of(2);
    let newest = all.iter().filter_map(|listed| listed.revision).max();
    let engine = Engine::open(golden.config()).unwrap();
    for (index, listed) in all.iter_mut().enumerate() {
        let namespace = engine.namespace(&listed.user, &listed.client).unwrap();
        if index % 4 == 0 {
            namespace.delete(WriteOptions::default()).unwrap();
            (listed.revision, listed.text) = (None, None);
        } else if index % 4 < 3 {
            // Under the condition that what was listed is still there.
            let precondition = namespace
                .revision()
                .unwrap()
                .map_or(Precondition::absent(), Precondition::matches);
            let options = WriteOptions {
                precondition,
                ..WriteOptions::default()
            };
            let text = format!(
                "{{\"again\":{index},\"pad\":\"{}\"}}",
                "x".repeat(index * 200)
            );
            let revision = namespace.put(text.as_bytes(), options).unwrap().get();
            assert!(Some(revision) > newest, "a revision is never used twice");
            (listed.revision, listed.text) = (Some(revision), Some(text));
        }
    }
    check_all(&engine, &all);
    engine.close().unwrap();
    let engine = Engine::open(golden.config()).unwrap();
    check_all(&engine, &all);
}

#[test]
fn compaction_keeps_every_document() {
    let golden = Golden::of(2);
    let engine = Engine::open(golden.config()).unwrap();
    engine.compact().unwrap();
    check_all(&engine, &listing_of(2));
    engine.close().unwrap();
    let engine = Engine::open(golden.config()).unwrap();
    check_all(&engine, &listing_of(2));
}

#[test]
fn verify_finds_nothing_wrong_with_it() {
    let golden = Golden::of(2);
    let found = prefd_engine::verify(&golden.config(), &mut |_| {}).unwrap();
    assert_eq!(found.problems, []);
    assert!(found.torn_bytes > 0);
}

#[test]
fn a_flipped_bit_of_it_gives_right_bytes_or_an_error() {
    sweep_bits(2);
}
