//! The store: where documents are kept.
//!
//! It knows nothing about HTTP, tokens or the network. It decides which calls touch the
//! disk, and runs those on blocking threads.
//!
//! **Architecture Invariant:** it imports only `settings` and `counters`.

mod blocking;
mod cause;
mod data_dir;
mod limits;

pub(crate) use blocking::blocking;
pub(crate) use cause::cause;
pub(crate) use data_dir::{UNFINISHED, UnfinishedRestore, refuse_unfinished};
pub(crate) use limits::limits;
