//! Sends bytes to the server on a connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| prefd_tests::oracle::http::run(input));
