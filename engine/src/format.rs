//! The format layer: how bytes are laid out in the files of log and blobs.
//!
//! It owns encoding and decoding of file headers, frames, summaries and the manifest, in
//! each version of the format. docs/format.md describes the same layouts for readers.
//!
//! **Architecture Invariant:** bytes only, no I/O. Decoding never trusts a length or an
//! offset: what does not fit is an error, never a panic or a large allocation.

pub(crate) mod checksums;
pub(crate) mod codec;
pub(crate) mod fields;
pub(crate) mod file_header;
pub(crate) mod frame;
pub(crate) mod location;
pub(crate) mod manifest;
pub(crate) mod summary;
