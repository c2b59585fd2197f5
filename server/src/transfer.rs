//! Backups of a store, and export and import of documents as JSON Lines.
//!
//! This layer reads and writes streams. It must not know whether a server is running, which
//! client sent a request, or how files are named.
//!
//! **Architecture Invariant:** this layer imports only `store` and the layers below `store`. In
//! particular, it does not import `http`, `net` or `auth`.

pub(crate) mod archive;
mod export;
mod import;
mod lines;

pub(crate) use export::export_lines;
pub(crate) use import::{ImportError, READ_BYTES, import_lines};
#[cfg(feature = "fuzzing")]
pub(crate) use lines::NdjsonReader;
pub(crate) use lines::{ExportError, LineFault};
