//! The oracles of the fuzzers.
//!
//! Each oracle accepts any bytes, and panics if prefd breaks a guarantee. The fuzz targets in
//! `fuzz/` call the oracles with inputs from libFuzzer. `tests/fuzz_seeds.rs` calls them with
//! random bytes from a seed and with the committed corpus, so `cargo test` runs every oracle.
//!
//! Most oracles accept two kinds of input. If the first byte is below [`STRUCTURED`], the other
//! bytes are a list of choices, from which the oracle builds a nearly valid input. Otherwise the
//! bytes are the input itself, as a person would write it.

pub mod document;
mod document_generator;
pub mod frame;
pub mod http;
mod http_generator;
pub mod import_line;
pub mod operations;
mod reference_validator;
pub mod replay;
mod reusable_store;
pub mod token;

/// An input whose first byte is below this is a list of choices.
pub const STRUCTURED: u8 = 8;

/// Returns the first byte and the choices of an input, or `None` if the input is not a list of
/// choices.
fn choices(input: &[u8]) -> Option<(u8, arbitrary::Unstructured<'_>)> {
    let (first, rest) = input.split_first()?;
    (*first < STRUCTURED).then(|| (*first, arbitrary::Unstructured::new(rest)))
}

/// Makes choices from the remaining bytes. After the last byte, every choice is the first option,
/// so every input is valid.
trait Choices {
    /// Chooses a number from 0 to `last`.
    fn upto(&mut self, last: usize) -> usize;

    /// Chooses an element of a list.
    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T;

    /// Returns true in about one of `of` cases. Returns false after the last byte.
    fn rarely(&mut self, of: usize) -> bool;

    /// Takes up to `last` raw bytes.
    fn some_bytes(&mut self, last: usize) -> Vec<u8>;
}

impl Choices for arbitrary::Unstructured<'_> {
    fn upto(&mut self, last: usize) -> usize {
        self.int_in_range(0..=last).unwrap_or(0)
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.upto(of.len() - 1)]
    }

    fn rarely(&mut self, of: usize) -> bool {
        self.upto(of - 1) == of - 1
    }

    fn some_bytes(&mut self, last: usize) -> Vec<u8> {
        let len = self.upto(last).min(self.len());
        self.bytes(len).unwrap_or_default().to_vec()
    }
}
