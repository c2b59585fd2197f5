//! The API layer: the types that callers of the engine use.
//!
//! It owns [`engine::Engine`] and [`namespace::Namespace`], opening and closing a store, and
//! the read path.
//!
//! **Architecture Invariant:** no other layer imports this one.

pub(crate) mod engine;
pub(crate) mod handle;
pub(crate) mod maintenance;
pub(crate) mod namespace;
pub(crate) mod read;
