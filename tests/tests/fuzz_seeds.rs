//! The fuzzers' oracles over seeded random inputs and over the committed corpus, so
//! that each holds on every change, and is seen to tell right from wrong.

use std::path::Path;

use prefd_tests::oracle;
use prefd_tests::random::{Random, seeds};

/// The committed inputs of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = format!("../fuzz/corpus/{target}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "nothing in {}", folder.display());
    let read = |path: std::path::PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        (path.display().to_string(), bytes)
    };
    files.into_iter().map(read).collect()
}

/// Runs an oracle over the committed inputs of a target, and over random ones of up to
/// `bytes` bytes.
fn run(target: &str, count: u64, bytes: u64, oracle: fn(&[u8])) {
    for (file, bytes) in corpus(target) {
        println!("{file}");
        oracle(&bytes);
    }
    for seed in seeds(count) {
        // Shown only where the test fails.
        println!("PREFD_TEST_SEED={seed}");
        let mut random = Random::new(seed);
        let len = random.below(bytes);
        let mut input: Vec<u8> = (0..len).map(|_| random.draw() as u8).collect();
        // Random bytes are a poor text, and fair choices.
        if let Some(first) = input.first_mut().filter(|_| seed % 16 > 0) {
            *first %= oracle::STRUCTURED;
        }
        oracle(&input);
    }
}

#[test]
fn documents_are_judged_as_serde_json_and_the_limits_say() {
    run("document_limits", 4_000, 300, oracle::document::run);
}

/// Were the format another, the corpus would have to be written again: see
/// `tests/examples/fuzz_corpus.rs`.
#[test]
fn the_committed_files_of_a_store_decode() {
    for (file, bytes) in corpus("frame_decode") {
        assert!(oracle::frame::decode(&bytes), "{file}");
    }
}

#[test]
fn what_decodes_from_the_disk_encodes_to_the_same_bytes() {
    run("frame_decode", 2_000, 300, oracle::frame::run);
}

#[test]
fn a_damaged_store_gives_right_bytes_or_an_error_and_the_same_again() {
    run("segment_replay", 500, 120, oracle::replay::run);
}

#[test]
fn operations_do_what_the_model_says() {
    run("engine_ops", 300, 200, oracle::operations::run);
}

#[test]
fn tokens_are_believed_only_where_a_key_and_the_claims_say_so() {
    run("token", 2_000, 100, oracle::token::run);
}

#[test]
fn connections_are_answered_in_order_however_they_are_cut() {
    run("http_request", 1_500, 400, oracle::http::run);
}
