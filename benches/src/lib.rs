//! The benchmark: it compares prefd with other storage engines and other servers.
//! `docs/performance.md` describes the durability and the cache size of each contender.
//!
//! - `contender` lists the engines and servers, `scenario` lists what is measured, and
//!   `documents` generates the stored data.
//! - `stores` opens each engine as its own documentation advises. `http` starts each server
//!   and sends it requests with wrk.
//! - `run` runs one scenario with one contender, phase by phase. `meter` measures what each
//!   phase uses with the counts of `processes`, and `phase_result` has the figures.
//! - `compare` runs each scenario of a `plan` in a child process. `syncs` counts the syncs of
//!   durable puts with strace.
//! - `report` computes medians, and writes tables, plots and prefd's targets.
//!
//! `docs/performance.md` says how to run the benchmark, and shows results.

pub mod cli;
pub mod compare;
pub mod contender;
pub mod documents;
mod http;
pub mod machine;
mod meter;
pub mod phase_result;
pub mod plan;
pub mod processes;
pub mod report;
pub mod run;
pub mod scenario;
pub mod stores;
pub mod syncs;

/// The result of any fallible function here. Every error ends the run, so callers only need
/// its message.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
