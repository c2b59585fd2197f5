//! What is read of a line of an import.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| prefd_tests::oracle::import_line::run(input));
