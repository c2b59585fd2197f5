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

/// Runs an oracle over the committed inputs of a target, and over as many others: random
/// choices of up to `bytes` bytes, and committed ones that were changed.
fn run(target: &str, count: u64, bytes: u64, oracle: fn(&[u8])) {
    let corpus = corpus(target);
    for (file, bytes) in &corpus {
        println!("{file}");
        oracle(bytes);
    }
    for seed in seeds(count) {
        // Shown only where the test fails.
        println!("PREFD_TEST_SEED={seed}");
        let mut random = Random::new(seed);
        let input = if seed % 2 == 0 {
            drawn(&mut random, bytes)
        } else {
            changed(&mut random, one(seed, &corpus))
        };
        oracle(&input);
    }
}

/// Choices, of up to `bytes` bytes.
fn drawn(random: &mut Random, bytes: u64) -> Vec<u8> {
    let len = random.below(bytes);
    let mut input: Vec<u8> = (0..len).map(|_| random.draw() as u8).collect();
    if let Some(first) = input.first_mut() {
        *first %= oracle::STRUCTURED;
    }
    input
}

fn one(seed: u64, corpus: &[(String, Vec<u8>)]) -> &[u8] {
    &corpus[usize::try_from(seed / 2).unwrap() % corpus.len()].1
}

/// A committed input with some of its bytes changed.
fn changed(random: &mut Random, input: &[u8]) -> Vec<u8> {
    let mut input = input.to_vec();
    for _ in 0..=random.below(3) {
        let at = usize::try_from(random.below(input.len() as u64 + 1)).unwrap();
        match random.below(4) {
            0 => input.insert(at, random.draw() as u8),
            1 if at < input.len() => drop(input.remove(at)),
            2 if at < input.len() => input[at] = random.draw() as u8,
            _ if at < input.len() => input[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
    input
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
    run("frame_decode", 20_000, 300, oracle::frame::run);
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

#[test]
fn a_line_of_an_import_says_what_serde_json_reads_in_it() {
    run("import_line", 20_000, 60, oracle::import_line::run);
}
