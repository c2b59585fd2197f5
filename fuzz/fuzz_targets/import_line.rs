//! Reads a line of `prefd import`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| prefd_tests::oracle::import_line::run(input));
