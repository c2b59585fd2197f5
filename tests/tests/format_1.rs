//! A directory that was written once, in format version 1, by the program in
//! `examples/make_golden.rs`: every later version reads it, and goes on with it.
//!
//! Should this fail, it is the engine that has to change, and never the directory.

use std::collections::BTreeSet;
use std::fs;

use prefd_engine::{Engine, Precondition, WriteOptions};
use prefd_tests::golden::{Golden, Listed, listing};

fn check(engine: &Engine, listed: &Listed) {
    let namespace = engine.namespace(&listed.user, &listed.client).unwrap();
    let found = namespace.get().unwrap();
    let revision = found
        .as_ref()
        .map(|document| document.stat().revision.get());
    assert_eq!(revision, listed.revision, "{listed:?}");
    let bytes = found.map(|document| document.read().unwrap());
    let expected = listed.text.as_ref().map(String::as_bytes);
    assert!(bytes.as_deref() == expected, "{listed:?}");
}

/// Every document by its bytes, and every listing.
fn check_all(engine: &Engine, all: &[Listed]) {
    for listed in all {
        check(engine, listed);
    }
    let users: BTreeSet<&str> = all.iter().map(|listed| listed.user.as_str()).collect();
    for user in users {
        let mut expected: Vec<_> = all
            .iter()
            .filter(|listed| listed.user == user)
            .filter_map(|listed| Some((listed.client.clone(), listed.text.as_ref()?.len() as u64)))
            .collect();
        expected.sort();
        let entries = engine.list(user, None, usize::MAX).unwrap();
        let found: Vec<_> = entries
            .into_iter()
            .map(|entry| (entry.client, entry.stat.usage.bytes))
            .collect();
        assert_eq!(found, expected, "{user}");
    }
}

#[test]
fn it_holds_what_makes_it_worth_keeping() {
    let golden = Golden::new();
    let listing = listing();
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
        assert_eq!(header[8..10], 1_u16.to_le_bytes(), "{}", path.display());
    }
}

#[test]
fn every_document_is_read_as_it_was_written() {
    let golden = Golden::new();
    let engine = Engine::open(golden.config()).unwrap();
    check_all(&engine, &listing());
    engine.close().unwrap();
    let engine = Engine::open(golden.config()).unwrap();
    check_all(&engine, &listing());
}

#[test]
fn the_frames_alone_tell_the_same() {
    let golden = Golden::new();
    for summary in golden.files("log", "sum") {
        fs::remove_file(summary).unwrap();
    }
    let engine = Engine::open(golden.config()).unwrap();
    check_all(&engine, &listing());
}

#[test]
fn it_is_written_to_and_opened_again() {
    let golden = Golden::new();
    let mut all = listing();
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
