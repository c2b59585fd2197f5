//! Opens a store with one damaged or forged file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| prefd_tests::oracle::replay::run(input));
