//! The API layer: what callers of the engine hold.
//!
//! It owns [`engine::Engine`] and [`namespace::Namespace`], opening and closing a store, and
//! the read path.
//!
//! **Architecture Invariant:** nothing below imports it.

pub(crate) mod engine;
pub(crate) mod handle;
pub(crate) mod maintenance;
pub(crate) mod namespace;
pub(crate) mod read;
