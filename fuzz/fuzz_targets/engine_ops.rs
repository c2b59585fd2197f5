//! Sequences of operations, reopenings and crashes against a model.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| prefd_tests::oracle::operations::run(input));
