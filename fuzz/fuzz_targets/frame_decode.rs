//! The decoders of what is on the disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| prefd_tests::oracle::frame::run(input));
