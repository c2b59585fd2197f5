//! Compares sequences of engine operations, reopens and crashes with a model.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| prefd_tests::oracle::operations::run(input));
