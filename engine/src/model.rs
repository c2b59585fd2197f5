//! The model layer: the words that the rest of the engine speaks.
//!
//! It owns the configuration, errors, limits, names, revisions, and the plain data that
//! the engine reports.
//!
//! **Architecture Invariant:** plain data and rules on it. No I/O, no locks, no threads.

pub(crate) mod config;
pub(crate) mod damage;
pub(crate) mod error;
pub(crate) mod ids;
pub(crate) mod limits;
pub(crate) mod metrics;
pub(crate) mod names;
pub(crate) mod progress;
pub(crate) mod revision;
pub(crate) mod stat;
