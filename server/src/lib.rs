//! prefd, the preferences server, as a library. The binary only calls [`main`].
//!
//! # Layout
//!
//! Each folder is a layer. A file imports only from its own layer and the layers below, and no two
//! files import each other. The layers, highest first:
//!
//! | folder | owns |
//! | --- | --- |
//! | `commands` | the command line |
//! | `serve` | starting a server from its settings, and shutting it down |
//! | `admin` | the admin listener: metrics, backup, export, import and erasure |
//! | `api` | the operations on a document, and the OpenAPI document |
//! | `telemetry` | metrics and health |
//! | `auth`, `net`, `transfer` | authentication; sockets and connections; backup archives and JSON lines |
//! | `http` | bodies, errors, entity tags, conditional requests |
//! | `store`, `log` | access to the stored documents; the server log |
//! | `settings`, `counters`, `io_error` | the settings of `prefd serve`; counters for metrics; errors of file operations |
//! | `small_file` | reading the files that settings name |
//!
//! A request first reaches `net`, which accepts and serves the connection. The layer `api` checks
//! the request with `http` and `auth`, and runs the request on the `store`.
//!
//! The storage engine is the crate `prefd-engine`. A running server accesses the files of the log
//! and the blobs only through the engine. Every disk access of a request runs on a blocking thread
//! or on a thread of the engine, so async workers never wait for the disk.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "in a test, a panic reports the failed expectation"
    )
)]

mod admin;
mod api;
mod auth;
mod commands;
mod counters;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod io_error;
mod log;
mod net;
mod serve;
mod settings;
mod small_file;
mod store;
mod telemetry;
mod transfer;

pub use commands::main;
