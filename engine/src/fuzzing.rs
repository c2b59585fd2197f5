//! Entry points for the fuzzers. Each function except [`empty_manifest`] decodes one layout of the
//! on-disk format, and encodes the result again. The module `fuzzing` exists only if the feature
//! `fuzzing` is enabled, and is not part of the API.
//!
//! The oracles in `tests/src/oracle/` compare the encoded results with the input.

use std::path::Path;

use crate::format::file_header;
use crate::format::frame::{compact, v1};
use crate::format::manifest::Manifest;
use crate::model::error::Result;
use crate::model::ids::SegmentId;
use crate::platform::fs::Fs;
use crate::storage::log::manifest_file;
use crate::storage::log::summary_file::SummaryReader;

/// Encodes the manifest of an empty store with the given hash key and store id. (The engine
/// generates the hash key and the store id randomly.)
///
/// # Errors
/// In practice, encoding an empty manifest does not fail.
pub fn empty_manifest(hash_key: [u8; 16], store: u64) -> Result<Vec<u8>> {
    Manifest::new(hash_key, store).encode(Path::new("manifest"))
}

/// Decodes and re-encodes the header and the metadata of a version 2 or version 3 frame at the
/// start of `bytes`. If the frame has metadata that is missing or invalid, the result contains no
/// metadata.
///
/// # Errors
/// [`Error::Corrupt`](crate::Error::Corrupt) or
/// [`Error::UnsupportedFormat`](crate::Error::UnsupportedFormat) if the header is not valid.
pub fn frame(bytes: &[u8]) -> Result<Vec<u8>> {
    compact::reencode(bytes).map_err(|error| error.into_error(Path::new("segment"), 0))
}

/// Decodes and re-encodes the header of a version 1 frame.
///
/// # Errors
/// [`Error::Corrupt`](crate::Error::Corrupt) or
/// [`Error::UnsupportedFormat`](crate::Error::UnsupportedFormat) if the header is not valid.
pub fn frame_header_1(bytes: &[u8]) -> Result<Vec<u8>> {
    v1::reencode_header(bytes).map_err(|error| error.into_error(Path::new("segment"), 0))
}

/// Decodes and re-encodes the metadata of a version 1 frame. The checksum of the metadata is not
/// verified.
///
/// # Errors
/// The error is a description of the first defect.
pub fn frame_metadata_1(bytes: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
    v1::reencode_metadata(bytes)
}

/// Decodes and re-encodes the manifest in `dir`. Returns `None` if the directory has no manifest.
///
/// # Errors
/// [`Error`](crate::Error) if the manifest cannot be read or decoded.
pub fn manifest(fs: &dyn Fs, dir: &Path) -> Result<Option<Vec<u8>>> {
    let manifest = manifest_file::read(fs, dir)?;
    manifest
        .map(|manifest| manifest.encode(&Manifest::path(dir)))
        .transpose()
}

/// Decodes and re-encodes the summary of segment `id` in `dir`.
///
/// # Errors
/// [`Error`](crate::Error) if the summary cannot be read or decoded.
pub fn summary(fs: &dyn Fs, dir: &Path, id: u32, store: u64) -> Result<Vec<u8>> {
    let id = SegmentId::new(id);
    SummaryReader::open(fs, dir, id, store)?.reencode(id, store)
}

/// Decodes and re-encodes the file header of segment `id`. `store` is the id of the store.
///
/// # Errors
/// [`Error::Corrupt`](crate::Error::Corrupt) or
/// [`Error::UnsupportedFormat`](crate::Error::UnsupportedFormat) if the header is not valid.
pub fn segment_header(bytes: &[u8], id: u32, store: u64) -> Result<Vec<u8>> {
    let path = Path::new("segment");
    let version = file_header::check_header(path, bytes, file_header::SEGMENT, id, store)?;
    let magic = file_header::SEGMENT.magic;
    Ok(file_header::encode_header_of(magic, version, id, store))
}
