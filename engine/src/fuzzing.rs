//! What the fuzzers reach inside for: each layout decoded and encoded again. Only with
//! the feature `fuzzing`; not a part of the API.
//!
//! Everything here takes bytes and answers; what must hold of the answers is said by
//! the tests.

use std::path::Path;

use crate::format::file_header;
use crate::format::frame::{v1, v2};
use crate::format::manifest::Manifest;
use crate::model::error::Result;
use crate::model::ids::SegmentId;
use crate::platform::fs::Fs;
use crate::storage::log::manifest_file;
use crate::storage::log::summary_file::SummaryReader;

/// The manifest of an empty store with this key and id, which would be drawn.
///
/// # Errors
/// Never, in fact: the lengths fit.
pub fn empty_manifest(hash_key: [u8; 16], store: u64) -> Result<Vec<u8>> {
    Manifest::new(hash_key, store).encode(Path::new("manifest"))
}

/// Decodes the head of the frame of version 2 that `bytes` begins with, and its metadata
/// if it has any, and encodes them again.
///
/// # Errors
/// What is wrong with the head. Metadata that does not decode is left out.
pub fn frame(bytes: &[u8]) -> Result<Vec<u8>> {
    v2::again(bytes).map_err(|no| no.at(Path::new("segment"), 0))
}

/// The same of the head of a frame of version 1.
///
/// # Errors
/// What is wrong with it.
pub fn frame_header_1(bytes: &[u8]) -> Result<Vec<u8>> {
    v1::head_again(bytes).map_err(|no| no.at(Path::new("segment"), 0))
}

/// The same of the metadata of a frame of version 1, its checksum taken as right.
///
/// # Errors
/// What is wrong with it.
pub fn frame_metadata_1(bytes: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
    v1::meta_again(bytes)
}

/// The same of the manifest in `dir`; `None` where there is none.
///
/// # Errors
/// What is wrong with it.
pub fn manifest(fs: &dyn Fs, dir: &Path) -> Result<Option<Vec<u8>>> {
    let manifest = manifest_file::read(fs, dir)?;
    manifest
        .map(|manifest| manifest.encode(&Manifest::path(dir)))
        .transpose()
}

/// The same of the summary of segment `id` in `dir`.
///
/// # Errors
/// What is wrong with it.
pub fn summary(fs: &dyn Fs, dir: &Path, id: u32, store: u64) -> Result<Vec<u8>> {
    let id = SegmentId::new(id);
    SummaryReader::open(fs, dir, id, store)?.reencode(id, store)
}

/// The header of a segment file, checked and encoded again.
///
/// # Errors
/// What is wrong with it.
pub fn segment_header(bytes: &[u8], id: u32, store: u64) -> Result<Vec<u8>> {
    let path = Path::new("segment");
    let version = file_header::check_header(path, bytes, file_header::KIND, id, store)?;
    let magic = file_header::KIND.magic;
    Ok(file_header::encode_header_of(magic, version, id, store))
}
