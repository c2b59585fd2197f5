//! The model layer: the types that the rest of the engine shares.
//!
//! The layer owns the configuration, errors, limits, names, revisions, and the plain data that the
//! engine reports.
//!
//! **Architecture Invariant:** this layer contains only plain data and functions that check or
//! convert this data. The layer does no I/O, acquires no locks and starts no threads.

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
