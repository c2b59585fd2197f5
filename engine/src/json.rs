//! The JSON layer: validates a document while it arrives, and splits it into members.
//!
//! The JSON layer enforces the limits on documents, and determines which violation of a document is
//! reported first.
//!
//! **Architecture Invariant:** this layer handles only bytes and limits, and is independent of
//! where a document is stored. The memory of the scanner does not grow with the size of the values.

pub(crate) mod key;
pub(crate) mod key_set;
pub(crate) mod scanner;
pub(crate) mod validate;
