//! Compares the validation of documents with a reference, in one piece and split.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| prefd_tests::oracle::document::run(input));
