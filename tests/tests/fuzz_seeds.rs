//! Runs the fuzzers' oracles on the committed corpus and on random inputs from seeds, so that
//! `cargo test` checks them on every change.

use std::path::Path;

use prefd_tests::oracle;
use prefd_tests::random::{Random, seeds};

/// The committed inputs of a fuzz target: paths and contents.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = format!("../fuzz/corpus/{target}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert!(
        !files.is_empty(),
        "expected committed inputs in {}",
        folder.display()
    );
    let read = |path: std::path::PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        (path.display().to_string(), bytes)
    };
    files.into_iter().map(read).collect()
}

/// Runs an oracle on the committed inputs of a target, and then on `count` inputs from seeds.
/// Inputs from even seeds are random, with fewer than `bytes` bytes. Inputs from odd seeds are
/// mutations of committed inputs.
fn run(target: &str, count: u64, bytes: u64, oracle: fn(&[u8])) {
    let corpus = corpus(target);
    for (file, bytes) in &corpus {
        println!("{file}");
        oracle(bytes);
    }
    for seed in seeds(count) {
        // The output is shown only if the test fails.
        println!("PREFD_TEST_SEED={seed}");
        let mut random = Random::new(seed);
        let input = if seed % 2 == 0 {
            random_input(&mut random, bytes)
        } else {
            mutated(&mut random, corpus_input(seed, &corpus))
        };
        oracle(&input);
    }
}

/// A random list of choices, with fewer than `bytes` bytes.
fn random_input(random: &mut Random, bytes: u64) -> Vec<u8> {
    let len = random.below(bytes);
    let mut input: Vec<u8> = (0..len).map(|_| random.draw() as u8).collect();
    if let Some(first) = input.first_mut() {
        *first %= oracle::STRUCTURED;
    }
    input
}

fn corpus_input(seed: u64, corpus: &[(String, Vec<u8>)]) -> &[u8] {
    &corpus[usize::try_from(seed / 2).unwrap() % corpus.len()].1
}

/// A committed input with up to four random edits.
fn mutated(random: &mut Random, input: &[u8]) -> Vec<u8> {
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
fn document_verdicts_match_serde_json_and_the_limits() {
    run("document_limits", 4_000, 300, oracle::document::run);
}

/// If the format changes, write the corpus again with `tests/examples/fuzz_corpus.rs`.
#[test]
fn committed_store_files_can_be_decoded() {
    for (file, bytes) in corpus("frame_decode") {
        assert!(oracle::frame::decode(&bytes), "{file}");
    }
}

#[test]
fn decoded_files_and_frames_encode_to_the_same_bytes() {
    run("frame_decode", 20_000, 300, oracle::frame::run);
}

#[test]
fn damaged_store_gives_right_bytes_or_errors_on_every_open() {
    run("segment_replay", 500, 120, oracle::replay::run);
}

#[test]
fn engine_operations_agree_with_the_model() {
    run("engine_ops", 300, 200, oracle::operations::run);
}

#[test]
fn token_is_accepted_only_with_a_valid_signature_and_claims() {
    run("token", 2_000, 100, oracle::token::run);
}

#[test]
fn http_responses_are_valid_however_the_requests_are_split() {
    run("http_request", 1_500, 400, oracle::http::run);
}

#[test]
fn import_line_is_parsed_as_serde_json_parses_it() {
    run("import_line", 20_000, 60, oracle::import_line::run);
}
