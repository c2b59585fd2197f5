//! The JSON layer: splitting a body into members while it arrives, and checking values.
//!
//! It owns the limits' enforcement and the order in which violations are reported.
//!
//! **Architecture Invariant:** it knows bytes and limits, and nothing about where a
//! document is stored. Its memory does not grow with the document.

pub(crate) mod key;
pub(crate) mod scanner;
pub(crate) mod validate;
