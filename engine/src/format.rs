//! The format layer: the layout of the bytes in segments, summary files, blobs and the
//! manifest.
//!
//! The layer owns encoding and decoding of file headers, frames, summary files and the manifest, in
//! each version of the format. docs/format.md describes these layouts.
//!
//! **Architecture Invariant:** this layer handles bytes and does no I/O. A decoded length or offset
//! is checked before it is used. Invalid input causes an error, never a panic or a large
//! allocation.

pub(crate) mod checksums;
pub(crate) mod codec;
pub(crate) mod fields;
pub(crate) mod file_header;
pub(crate) mod frame;
pub(crate) mod location;
pub(crate) mod manifest;
pub(crate) mod revision_time;
pub(crate) mod summary;
