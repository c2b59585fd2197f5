//! The API layer: the types that callers of the engine use.
//!
//! The layer owns [`engine::Engine`] and [`namespace::Namespace`], the opening and closing of a
//! store, and the read path.
//!
//! **Architecture Invariant:** no other layer imports this one.

pub(crate) mod engine;
pub(crate) mod handle;
pub(crate) mod maintenance;
pub(crate) mod namespace;
mod open;
pub(crate) mod read;
