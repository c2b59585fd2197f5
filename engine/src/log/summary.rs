//! A summary: what a sealed segment holds, so that opening reads some bytes for
//! each frame and not the frames.
//!
//! Behind the file header (see `segment`), magic "PREFDSUM", stand counts and checksums,
//! entries, blob references (12 bytes each: entry u32, blob u64) and details. Of the two
//! layouts of that, [`v2`] is the one that is written and [`v1`] one that is only read;
//! neither has to do with the version of the segment.
//!
//! Entries and blob references are read when the store is opened; the details, with
//! the names, only when the catalogue is rebuilt.

mod builder;
mod v1;
mod v2;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::fs::{File, Fs};
use crate::log::frame::{Header, Kind};
use crate::log::reader::missing_is_corrupt;
use crate::log::segment::{self, FileKind, StoreId, Version};
use crate::names::NamespaceHash;
pub(crate) use builder::Builder;

/// Summaries; those written are of version 2.
const KIND: FileKind = FileKind {
    magic: *b"PREFDSUM",
    written: Version::V2,
};
pub(crate) const COUNTS_AT: usize = 28;
const COUNTS_CRC_AT: usize = 60;
const ENTRIES_AT: usize = 64;
const BLOB_REFERENCE_BYTES: usize = 12;

/// What stands at a place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A document, all of it in its frame.
    Put,
    /// A document with extents in blob files.
    PutWithBlobs,
    Delete,
    /// A frame of this namespace that cannot be read: whatever is older is stale.
    Damaged,
    /// A frame of an unknown namespace that cannot be read: whatever is older may
    /// be stale, in every namespace.
    Lost,
}

impl EntryKind {
    pub(crate) fn of(header: &Header) -> Self {
        Self::new(header.kind, header.has_blobs)
    }

    pub(crate) fn new(kind: Kind, has_blobs: bool) -> Self {
        match kind {
            Kind::Put if has_blobs => Self::PutWithBlobs,
            Kind::Put => Self::Put,
            Kind::Delete => Self::Delete,
        }
    }

    /// Below 8, and never 0.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::PutWithBlobs => 2,
            Self::Delete => 3,
            Self::Damaged => 4,
            Self::Lost => 5,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Put,
            2 => Self::PutWithBlobs,
            3 => Self::Delete,
            4 => Self::Damaged,
            5 => Self::Lost,
            _ => return None,
        })
    }
}

/// One frame of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) hash: NamespaceHash,
    /// Of a damaged or lost frame: the highest that it can have had.
    pub(crate) revision: u64,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    pub(crate) kind: EntryKind,
    pub(crate) keys: u32,
}

/// What the catalogue needs of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Detail {
    pub(crate) user: String,
    /// Few clients have many documents.
    pub(crate) client: Arc<str>,
    pub(crate) body_bytes: u64,
    pub(crate) modified_ms: u64,
}

/// A summary as it was read, its details still encoded.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) segment_bytes: u64,
    pub(crate) entries: Vec<Entry>,
    /// (index into `entries`, blob)
    pub(crate) blobs: Vec<(u32, u64)>,
}

pub(crate) fn path(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:08x}.sum"))
}

/// What stands before the entries.
struct Counts {
    version: Version,
    segment_bytes: u64,
    entries: usize,
    entries_bytes: usize,
    blobs: usize,
    details_bytes: usize,
    opening_crc: OpeningCrc,
    details_crc: u32,
}

/// The checksum of what an open reads.
enum OpeningCrc {
    /// Of entries and of blob references.
    Apart(u32, u32),
    Together(u32),
}

impl Counts {
    fn decode(path: &Path, head: &[u8], id: u32, store: StoreId) -> Result<Self> {
        let version = segment::check_header(path, head, KIND, id, store)?;
        let counts = head.get(COUNTS_AT..COUNTS_CRC_AT).unwrap_or_default();
        let crc = head.get(COUNTS_CRC_AT..ENTRIES_AT).unwrap_or_default();
        let fields = Fields::new(counts);
        let decoded = match version {
            Version::V1 => v1::counts(fields),
            Version::V2 => v2::counts(fields),
        };
        decoded
            .filter(|_| crc32fast::hash(counts).to_le_bytes() == *crc)
            .ok_or_else(|| corrupt(path, COUNTS_AT, "the counts'"))
    }

    fn blobs_at(&self) -> usize {
        ENTRIES_AT + self.entries_bytes
    }

    fn details_at(&self) -> usize {
        self.blobs_at() + self.blobs * BLOB_REFERENCE_BYTES
    }
}

fn corrupt(path: &Path, offset: usize, whose: &str) -> Error {
    Error::corrupt(
        path,
        offset as u64,
        format!("{whose} checksum does not match"),
    )
}

/// A summary file that is open for reading.
pub(crate) struct Reader {
    path: PathBuf,
    file: Arc<dyn File>,
    counts: Counts,
}

impl Reader {
    pub(crate) fn open(fs: &dyn Fs, dir: &Path, id: u32, store: StoreId) -> Result<Self> {
        let path = path(dir, id);
        let file = fs
            .open(&path)
            .map_err(|error| missing_is_corrupt("open", &path, error))?;
        let mut head = [0; ENTRIES_AT];
        file.read_exact_at(&mut head, 0)
            .map_err(|error| read_error(&path, 0, error))?;
        let counts = Counts::decode(&path, &head, id, store)?;
        let expected = (counts.details_at() + counts.details_bytes) as u64;
        let found = file
            .len()
            .map_err(|error| Error::io("stat", &path, error))?;
        if found != expected {
            return Err(Error::corrupt(
                &path,
                found.min(expected),
                format!("the summary has {found} bytes and should have {expected}"),
            ));
        }
        // Memory is taken for as many as are counted, before they are read.
        if counts.entries > counts.entries_bytes / v2::MIN_ENTRY_BYTES {
            let what = "the summary counts more entries than it has bytes for";
            return Err(Error::corrupt(&path, COUNTS_AT as u64, what));
        }
        Ok(Self { path, file, counts })
    }

    /// What stands at `at`. Its length was compared with that of the file.
    fn section(&self, at: usize, bytes: usize) -> Result<Vec<u8>> {
        let mut section = vec![0; bytes];
        self.file
            .read_exact_at(&mut section, at as u64)
            .map_err(|error| read_error(&self.path, at as u64, error))?;
        Ok(section)
    }

    /// How many entries there are.
    pub(crate) fn entries(&self) -> usize {
        self.counts.entries
    }

    /// Entries and blob references.
    pub(crate) fn summary(&self) -> Result<Summary> {
        let counts = &self.counts;
        let opening = self.section(ENTRIES_AT, counts.details_at() - ENTRIES_AT)?;
        let (entries, blobs) = opening
            .split_at_checked(counts.entries_bytes)
            .unwrap_or_default();
        let is_right = match counts.opening_crc {
            OpeningCrc::Apart(of_entries, of_blobs) => {
                crc32fast::hash(entries) == of_entries && crc32fast::hash(blobs) == of_blobs
            }
            OpeningCrc::Together(crc) => crc32fast::hash(&opening) == crc,
        };
        if !is_right {
            let whose = "the entries' or the blob references'";
            return Err(corrupt(&self.path, ENTRIES_AT, whose));
        }
        let entries = match counts.version {
            Version::V1 => v1::entries(entries),
            Version::V2 => v2::entries(entries, counts.entries),
        };
        let (entries, blobs) = entries.zip(decode_blobs(blobs)).ok_or_else(|| {
            let what = "an entry is not one of this version";
            Error::corrupt(&self.path, ENTRIES_AT as u64, what)
        })?;
        Ok(Summary {
            segment_bytes: counts.segment_bytes,
            entries,
            blobs,
        })
    }

    /// The details, one for each entry.
    pub(crate) fn details(&self) -> Result<Vec<Detail>> {
        let counts = &self.counts;
        let at = counts.details_at();
        let bytes = self.section(at, counts.details_bytes)?;
        if crc32fast::hash(&bytes) != counts.details_crc {
            return Err(corrupt(&self.path, at, "the details'"));
        }
        let details = match counts.version {
            Version::V1 => v1::details(&bytes),
            Version::V2 => v2::details(&bytes, counts.entries),
        };
        details.ok_or_else(|| {
            Error::corrupt(&self.path, at as u64, "a detail is not one of this version")
        })
    }

    /// What was read, in its own version again, for the fuzzers.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn again(&self, id: u32, store: StoreId) -> Result<Vec<u8>> {
        let (summary, details) = (self.summary()?, self.details()?);
        let segment_bytes = summary.segment_bytes;
        let builder = Builder::of(summary, &details);
        Ok(match self.counts.version {
            Version::V1 => v1::encode(&builder, id, store, segment_bytes),
            Version::V2 => builder.encode(id, store, segment_bytes),
        })
    }
}

fn read_error(path: &Path, offset: u64, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        Error::corrupt(path, offset, "the file is cut short")
    } else {
        Error::io("read", path, error)
    }
}

fn encode_blobs(blobs: &[(u32, u64)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(blobs.len() * BLOB_REFERENCE_BYTES);
    for (index, blob) in blobs {
        bytes.extend_from_slice(&index.to_le_bytes());
        bytes.extend_from_slice(&blob.to_le_bytes());
    }
    bytes
}

fn decode_blobs(bytes: &[u8]) -> Option<Vec<(u32, u64)>> {
    bytes
        .chunks_exact(BLOB_REFERENCE_BYTES)
        .map(|reference| {
            let mut fields = Fields::new(reference);
            Some((fields.u32()?, fields.u64()?))
        })
        .collect()
}

/// A summary of these parts: `counts` is what stands between the file header and its
/// own checksum.
fn assemble(mut header: Vec<u8>, counts: &[u8], sections: &[&[u8]]) -> Vec<u8> {
    header.extend_from_slice(counts);
    header.extend_from_slice(&crc32fast::hash(counts).to_le_bytes());
    for section in sections {
        header.extend_from_slice(section);
    }
    header
}

fn narrow(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
