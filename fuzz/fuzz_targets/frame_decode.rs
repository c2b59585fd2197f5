//! Runs the decoders of the on-disk format.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| prefd_tests::oracle::frame::run(input));
