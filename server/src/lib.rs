//! prefd: the preferences server, as a library behind a thin binary.
//!
//! # Layout
//!
//! Each folder is a layer. Imports go down only, and no two files import each other. From
//! the top:
//!
//! | folder | owns |
//! | --- | --- |
//! | `commands` | the command line |
//! | `serve` | from settings to a listening server, and back to a closed store |
//! | `admin` | what the admin listener answers |
//! | `api` | the operations on a document, and the document that describes them |
//! | `telemetry` | metrics and health |
//! | `auth`, `net`, `transfer` | who asks; sockets and connections; backups and lines of JSON |
//! | `http` | bodies, errors, entity tags, conditional requests |
//! | `store` | where documents are kept |
//! | `settings`, `counters` | what `serve` can be told; what can be counted |
//!
//! A request passes `net`, which accepts and carries its connection, then `api`, which
//! judges it with `http` and `auth`, and then `store`.
//!
//! The store is `prefd-engine`: the server never opens a data file. Async workers never
//! block: what touches the disk runs on blocking threads, a bounded piece at a time.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "a test says what it expects by unwrapping it"
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
mod net;
mod serve;
mod settings;
mod store;
mod telemetry;
mod transfer;

pub use commands::main;
