//! Verifies a token.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| prefd_tests::oracle::token::run(input));
