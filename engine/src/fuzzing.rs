//! What the fuzzers reach inside for: each layout decoded and encoded again. Only with
//! the feature `fuzzing`; not a part of the API.
//!
//! Everything here takes bytes and answers; what must hold of the answers is said by
//! the tests.

use std::path::Path;

use crate::codec;
use crate::error::Result;
use crate::fs::Fs;
use crate::log::frame::{Header, decode_meta};
use crate::log::manifest::Manifest;
use crate::log::segment;
use crate::log::summary::{Builder, Reader};

/// The manifest of an empty store with this key and id, which would be drawn.
///
/// # Errors
/// Never, in fact: the lengths fit.
pub fn empty_manifest(hash_key: [u8; 16], store: u64) -> Result<Vec<u8>> {
    Manifest::new(hash_key, store).encode(Path::new("manifest"))
}

/// Decodes the frame header that `bytes` begins with, and encodes it again.
///
/// # Errors
/// What is wrong with it.
pub fn frame_header(bytes: &[u8]) -> Result<Vec<u8>> {
    let header = Header::decode(bytes).map_err(|no| no.at(Path::new("segment"), 0))?;
    Ok(header.encode().to_vec())
}

/// The same of a frame's metadata, its checksum taken as right.
///
/// # Errors
/// What is wrong with it.
pub fn frame_metadata(bytes: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
    let meta = decode_meta(bytes, crc32fast::hash(bytes))?;
    codec::encode(&meta).map_err(|_| "it cannot be encoded")
}

/// The same of the manifest in `dir`; `None` where there is none.
///
/// # Errors
/// What is wrong with it.
pub fn manifest(fs: &dyn Fs, dir: &Path) -> Result<Option<Vec<u8>>> {
    let manifest = Manifest::read(fs, dir)?;
    manifest
        .map(|manifest| manifest.encode(&Manifest::path(dir)))
        .transpose()
}

/// The same of the summary of segment `id` in `dir`.
///
/// # Errors
/// What is wrong with it.
pub fn summary(fs: &dyn Fs, dir: &Path, id: u32, store: u64) -> Result<Vec<u8>> {
    let reader = Reader::open(fs, dir, id, store)?;
    let (summary, details) = (reader.summary()?, reader.details()?);
    let segment_bytes = summary.segment_bytes;
    Ok(Builder::of(summary, &details).encode(id, store, segment_bytes))
}

/// The header of a segment file, checked and encoded again.
///
/// # Errors
/// What is wrong with it.
pub fn segment_header(bytes: &[u8], id: u32, store: u64) -> Result<Vec<u8>> {
    let path = Path::new("segment");
    segment::check_header(path, bytes, segment::MAGIC, id, store)?;
    Ok(segment::encode_header(segment::MAGIC, id, store))
}
