//! The oracles of the fuzzers: what must hold of any bytes, whoever made them up.
//!
//! Each takes bytes, and panics where prefd does what it must not. `fuzz/` feeds them
//! with what libFuzzer finds, `tests/fuzz_*.rs` with seeded random bytes and with the
//! committed corpus, so that `cargo test` runs each on every change.
//!
//! Most inputs can be written in two ways, told apart by the first byte: below
//! [`STRUCTURED`] the bytes are choices from which something nearly right is built;
//! otherwise they are the thing itself, as a person would write it.

pub mod document;
mod document_shape;
pub mod frame;
pub mod http;
mod http_shape;
pub mod import_line;
mod judgement;
pub mod operations;
pub mod replay;
mod stage;
pub mod token;

/// An input whose first byte is below this is a list of choices.
pub const STRUCTURED: u8 = 8;

/// The choices in an input, if it is a list of them, and the byte that says so.
fn choices(input: &[u8]) -> Option<(u8, arbitrary::Unstructured<'_>)> {
    let (first, rest) = input.split_first()?;
    (*first < STRUCTURED).then(|| (*first, arbitrary::Unstructured::new(rest)))
}

/// Draws from what is left of the choices. Where nothing is left, the first choice is
/// taken: every input says something.
trait Choices {
    /// A number in the range.
    fn upto(&mut self, last: usize) -> usize;

    /// One of several.
    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T;

    /// True in about one of `of` cases, and where nothing is left, never.
    fn rarely(&mut self, of: usize) -> bool;

    /// Some bytes as they come.
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
