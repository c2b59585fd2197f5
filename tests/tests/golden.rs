//! Golden data directories, one for each format version. Each directory was written once, by
//! `examples/make_golden.rs`. Every later version must be able to read and write the directory.
//!
//! If one of these tests fails, change the engine, and never the directory.

use std::fs;

use prefd_engine::{Change, Engine, Precondition, WriteOptions};
use prefd_tests::golden::{FORMATS, Golden, check_all, check_opened, sweep_bits};
use prefd_tests::put_ext::PutExt;

/// The format version that the engine writes.
const CURRENT_FORMAT: u32 = 3;

#[test]
fn golden_directories_have_every_kind_of_file_and_document() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let listing = golden.listing();
        let segments = golden.files("log", "seg").len();
        assert!(segments >= 4, "{segments} segments");
        assert_eq!(
            golden.files("log", "sum").len(),
            segments - 1,
            "expected a summary for each segment except the unsealed one"
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
            // Blobs have version 1 in every format, and there is no manifest of version 2.
            let is_blob = path.extension().is_some_and(|e| e == "blob");
            let is_manifest = path.extension().is_none();
            let version = match format {
                2 if is_manifest => 1,
                _ if is_blob => 1,
                _ => format,
            };
            let found = u16::from_le_bytes([header[8], header[9]]);
            assert_eq!(u32::from(found), version, "{}", path.display());
        }
    }
}

#[test]
fn golden_documents_are_read_unchanged() {
    for format in FORMATS {
        let golden = Golden::of(format);
        for _ in 0..2 {
            check_opened(&golden, &golden.listing());
        }
    }
}

#[test]
fn golden_documents_are_read_unchanged_without_summaries() {
    for format in FORMATS {
        let golden = Golden::of(format);
        golden.remove_summaries();
        check_opened(&golden, &golden.listing());
    }
}

#[test]
fn golden_directories_accept_writes_and_reopen() {
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
                // The write requires that the listed document is still current.
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
                assert!(
                    Some(revision) > newest,
                    "expected a revision above those of the listing"
                );
                (listed.revision, listed.text) = (Some(revision), Some(text));
            }
        }
        check_all(&engine, &all);
        engine.close().unwrap();
        check_opened(&golden, &all);
    }
}

/// The version in the header of each file in `log/` with this extension.
fn versions(golden: &Golden, extension: &str) -> Vec<u32> {
    let files = golden.files("log", extension);
    let version = |path: &std::path::PathBuf| u32::from(fs::read(path).unwrap()[8]);
    files.iter().map(version).collect()
}

#[test]
fn compaction_writes_the_current_format_and_keeps_documents() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let all = golden.listing();
        let mut config = golden.config();
        // Otherwise it could remove a segment between the listing and the reading of the files.
        config.background_compaction = false;
        let engine = Engine::open(config).unwrap();
        // Opening rewrites the unsealed segment in the current format, and leaves sealed segments
        // unchanged.
        let found = versions(&golden, "seg");
        assert!(
            found.contains(&format) && found.contains(&CURRENT_FORMAT),
            "{found:?}"
        );
        check_all(&engine, &all);
        engine.compact().unwrap();
        check_all(&engine, &all);
        engine.close().unwrap();
        for extension in ["seg", "sum"] {
            let versions = versions(&golden, extension);
            assert!(versions.contains(&CURRENT_FORMAT), "{versions:?}");
        }
        let found = prefd_engine::verify(&golden.config(), &mut |_| {}).unwrap();
        assert_eq!(found.problems, []);
        check_opened(&golden, &all);
        golden.remove_summaries();
        check_opened(&golden, &all);
    }
}

#[test]
fn verify_finds_no_problem_in_golden_directories() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let found = prefd_engine::verify(&golden.config(), &mut |_| {}).unwrap();
        assert_eq!(found.problems, []);
        assert!(found.torn_bytes > 0);
    }
}

#[test]
fn flipped_bit_in_format_1_gives_right_bytes_or_an_error() {
    sweep_bits(1);
}

#[test]
fn flipped_bit_in_format_2_gives_right_bytes_or_an_error() {
    sweep_bits(2);
}

#[test]
fn flipped_bit_in_format_3_gives_right_bytes_or_an_error() {
    sweep_bits(3);
}
