//! Documents against every limit, whole and in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| prefd_tests::oracle::document::run(input));
