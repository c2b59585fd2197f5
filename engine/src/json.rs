//! The JSON layer: validates a document while it arrives, and splits it into members.
//!
//! The layer enforces the limits, and defines the order in which violations are reported.
//!
//! **Architecture Invariant:** this layer knows only bytes and limits, and does not know where a
//! document is stored. The memory of the scanner does not grow with the size of the values.

pub(crate) mod key;
pub(crate) mod scanner;
pub(crate) mod validate;
