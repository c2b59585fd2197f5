//! Opening a store of which one file is not what was written.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| prefd_tests::oracle::replay::run(input));
