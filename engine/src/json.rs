//! The JSON layer: validates a document while it arrives, and splits it into members.
//!
//! The layer owns the enforcement of limits and the order in which violations are reported.
//!
//! **Architecture Invariant:** this layer knows bytes and limits. The layer does not know where a
//! document is stored. The memory of the scanner does not grow with the size of the values.

pub(crate) mod key;
pub(crate) mod scanner;
pub(crate) mod validate;
