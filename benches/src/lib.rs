//! The benchmark: one harness for prefd and its peers, storage engines and servers, with
//! the same documents, the same durability and the same caches.
//!
//! - `contender` names who is measured, `scenario` what is measured, `documents` what is
//!   stored.
//! - `stores` opens each engine, as its own documentation advises; `http` starts each
//!   server, and has wrk ask it.
//! - `play` plays one scenario with one contender, phase by phase; `measure` reads what
//!   that used.
//! - `compare` has every contender play, in turn and over again; `syncs` proves by strace
//!   which of them sync.
//! - `report` makes medians, tables and plots of it, and holds them against the targets.
//!
//! `docs/performance.md` says how to run it, and what came of it.

pub mod cli;
pub mod compare;
pub mod contender;
pub mod documents;
mod http;
pub mod measure;
pub mod play;
pub mod report;
pub mod scenario;
pub mod stores;
pub mod syncs;

/// Whatever goes wrong ends the run, with a word on why.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
