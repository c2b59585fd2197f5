//! The JSON layer: checking a document while it arrives, and splitting it into members.
//!
//! It owns the enforcement of limits and the order in which violations are reported.
//!
//! **Architecture Invariant:** this layer knows bytes and limits. It does not know where a
//! document is stored. The memory of the scanner does not grow with the size of the values.

pub(crate) mod key;
pub(crate) mod scanner;
pub(crate) mod validate;
