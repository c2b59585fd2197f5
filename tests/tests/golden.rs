//! Directories that were written once, one in each version of the format, by the program
//! in `examples/make_golden.rs`: every later version reads them, and goes on with them.
//!
//! Should this fail, it is the engine that has to change, and never the directory.

use std::fs;

use prefd_engine::{Change, Engine, Precondition, WriteOptions};
use prefd_tests::golden::{FORMATS, Golden, check_all, check_opened, sweep_bits};
use prefd_tests::put::Put;

/// The version that is written.
const CURRENT: u32 = 2;

#[test]
fn each_holds_what_makes_it_worth_keeping() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let listing = golden.listing();
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
            let is_manifest_or_blob = !path.extension().is_some_and(|e| e == "seg" || e == "sum");
            // Of those there has been one version only.
            let version = if is_manifest_or_blob { 1 } else { format };
            let found = u16::from_le_bytes([header[8], header[9]]);
            assert_eq!(u32::from(found), version, "{}", path.display());
        }
    }
}

#[test]
fn every_document_is_read_as_it_was_written() {
    for format in FORMATS {
        let golden = Golden::of(format);
        for _ in 0..2 {
            check_opened(&golden, &golden.listing());
        }
    }
}

#[test]
fn the_frames_alone_tell_the_same() {
    for format in FORMATS {
        let golden = Golden::of(format);
        golden.remove_summaries();
        check_opened(&golden, &golden.listing());
    }
}

#[test]
fn each_is_written_to_and_opened_again() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let mut all = golden.listing();
        let newest = all.iter().filter_map(|listed| listed.revision).max();
        let engine = Engine::open(golden.config()).unwrap();
        for (index, listed) in all.iter_mut().enumerate() {
            let namespace = engine.namespace(&listed.user, &listed.client).unwrap();
            if index % 4 == 0 {
                namespace
                    .write(Change::Delete, WriteOptions::default())
                    .unwrap();
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
        check_opened(&golden, &all);
    }
}

/// The version in each file's header.
fn versions(golden: &Golden, extension: &str) -> Vec<u32> {
    let files = golden.files("log", extension);
    let version = |path: &std::path::PathBuf| u32::from(fs::read(path).unwrap()[8]);
    files.iter().map(version).collect()
}

#[test]
fn compaction_writes_the_current_version_and_every_document_stays() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let all = golden.listing();
        let engine = Engine::open(golden.config()).unwrap();
        // What was being written was copied; what is sealed is as it was.
        let found = versions(&golden, "seg");
        assert!(
            found.contains(&format) && found.contains(&CURRENT),
            "{found:?}"
        );
        check_all(&engine, &all);
        engine.compact().unwrap();
        check_all(&engine, &all);
        engine.close().unwrap();
        for extension in ["seg", "sum"] {
            let versions = versions(&golden, extension);
            assert!(versions.contains(&CURRENT), "{versions:?}");
        }
        let found = prefd_engine::verify(&golden.config(), &mut |_| {}).unwrap();
        assert_eq!(found.problems, []);
        check_opened(&golden, &all);
        golden.remove_summaries();
        check_opened(&golden, &all);
    }
}

#[test]
fn verify_finds_nothing_wrong_with_them() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let found = prefd_engine::verify(&golden.config(), &mut |_| {}).unwrap();
        assert_eq!(found.problems, []);
        assert!(found.torn_bytes > 0);
    }
}

#[test]
fn a_flipped_bit_of_version_1_gives_right_bytes_or_an_error() {
    sweep_bits(1);
}

#[test]
fn a_flipped_bit_of_version_2_gives_right_bytes_or_an_error() {
    sweep_bits(2);
}
