//! The storage benchmark: one harness for prefd's engine and its peers, with the same
//! documents, the same durability and the same caches.
//!
//! - `stores` opens each engine, as its own documentation advises.
//! - `scenario` says what is measured, `documents` what is stored.
//! - `play` plays one scenario with one engine, phase by phase; `measure` reads what that used.
//! - `compare` has every engine play, in turn and over again; `syncs` proves by strace
//!   which of them sync.
//! - `report` makes medians, tables and plots of it, and holds them against the targets.
//!
//! `docs/performance.md` says how to run it, and what came of it.

pub mod cli;
pub mod compare;
pub mod documents;
pub mod measure;
pub mod play;
pub mod report;
pub mod scenario;
pub mod stores;
pub mod syncs;

/// Whatever goes wrong ends the run, with a word on why.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
