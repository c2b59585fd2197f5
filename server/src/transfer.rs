//! Documents out of stores and into them: backups, and lines of JSON.
//!
//! It reads and writes streams, wherever these come from and go to. It must not know
//! whether a server runs, who asks, or how files are named.
//!
//! **Architecture Invariant:** it imports only `store` and what lies below it, and neither
//! `net` nor `auth`.

pub(crate) mod archive;
mod export;
mod import;
mod lines;

pub(crate) use export::write_lines;
pub(crate) use import::{READ_BYTES, RefusedLine, read_lines};
#[cfg(feature = "fuzzing")]
pub(crate) use lines::Lines;
pub(crate) use lines::{Fault, LineError};
