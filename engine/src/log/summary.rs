//! A summary: what a sealed segment holds, so that opening reads some bytes for
//! each frame and not the frames.
//!
//! ```text
//!  0  28B  file header (see `segment`), magic "PREFDSUM"
//! 28  u64  length of the segment
//! 36  u32  entries          44  u32  bytes of the details
//! 40  u32  blob references  48  u32  CRC-32 of the entries
//! 52  u32  CRC-32 of the details
//! 56  u32  CRC-32 of the blob references
//! 60  u32  CRC-32 of bytes 28..60
//! 64  entries, 37 bytes each: hash 16B, revision u64, offset u32, length u32,
//!     kind u8, keys u32
//!     blob references, 12 bytes each: entry u32, blob u64
//!     details, for each entry: user u8 + bytes, client u8 + bytes, body bytes u64,
//!     modified u64
//! ```
//!
//! Entries and blob references are read when the store is opened; the details, with
//! the names, only when the catalogue is rebuilt.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::fs::Fs;
use crate::log::frame::{Header, Kind};
use crate::log::reader::missing_is_corrupt;
use crate::log::segment::{self, StoreId};
use crate::names::NamespaceHash;

pub(crate) const MAGIC: [u8; 8] = *b"PREFDSUM";
pub(crate) const COUNTS_AT: usize = 28;
const COUNTS_CRC_AT: usize = 60;
const ENTRIES_AT: usize = 64;
const ENTRY_BYTES: usize = 37;
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
        match header.kind {
            Kind::Put if header.has_blobs => Self::PutWithBlobs,
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
    pub(crate) client: String,
    pub(crate) body_bytes: u64,
    pub(crate) modified_ms: u64,
}

/// Gathers a segment's summary while the segment is written.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    entries: Vec<Entry>,
    blobs: Vec<(u32, u64)>,
    details: Vec<u8>,
}

impl Builder {
    /// As it was before it was written and read.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn of(summary: Summary, details: &[Detail]) -> Self {
        let mut builder = Self {
            entries: summary.entries,
            blobs: summary.blobs,
            details: Vec::new(),
        };
        for detail in details {
            let names = (detail.user.as_str(), detail.client.as_str());
            builder.push_detail(names, detail.body_bytes, detail.modified_ms);
        }
        builder
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// (index of an entry, blob that its frame names)
    pub(crate) fn blobs(&self) -> &[(u32, u64)] {
        &self.blobs
    }

    /// The same as it is read from the disk.
    pub(crate) fn into_summary(self, segment_bytes: u64) -> Summary {
        Summary {
            segment_bytes,
            entries: self.entries,
            blobs: self.blobs,
        }
    }

    /// The details of the entries, in their order.
    pub(crate) fn details(&self) -> Vec<Detail> {
        decode_details(&self.details).unwrap_or_default()
    }

    /// Takes up a readable frame.
    pub(crate) fn push(
        &mut self,
        entry: Entry,
        blobs: &[u64],
        (user, client): (&str, &str),
        body_bytes: u64,
        modified_ms: u64,
    ) {
        // A segment is sealed long before its frames outnumber this.
        let index = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.blobs.extend(blobs.iter().map(|blob| (index, *blob)));
        self.entries.push(entry);
        self.push_detail((user, client), body_bytes, modified_ms);
    }

    fn push_detail(&mut self, (user, client): (&str, &str), body_bytes: u64, modified_ms: u64) {
        for name in [user, client] {
            self.details
                .push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            self.details.extend_from_slice(name.as_bytes());
        }
        self.details.extend_from_slice(&body_bytes.to_le_bytes());
        self.details.extend_from_slice(&modified_ms.to_le_bytes());
    }

    /// Takes up a frame that cannot be read.
    pub(crate) fn push_damage(&mut self, entry: Entry) {
        self.push(entry, &[], ("", ""), 0, 0);
    }

    /// Forgets what was pushed after the first `entries`.
    pub(crate) fn truncate(&mut self, entries: usize, details_bytes: usize) {
        self.entries.truncate(entries);
        self.details.truncate(details_bytes);
        self.blobs.retain(|(index, _)| (*index as usize) < entries);
    }

    pub(crate) fn details_bytes(&self) -> usize {
        self.details.len()
    }

    pub(crate) fn encode(&self, id: u32, store: StoreId, segment_bytes: u64) -> Vec<u8> {
        let mut entries = Vec::with_capacity(self.entries.len() * ENTRY_BYTES);
        for entry in &self.entries {
            entries.extend_from_slice(&entry.hash.to_bytes());
            entries.extend_from_slice(&entry.revision.to_le_bytes());
            entries.extend_from_slice(&entry.offset.to_le_bytes());
            entries.extend_from_slice(&entry.bytes.to_le_bytes());
            entries.push(entry.kind.to_byte());
            entries.extend_from_slice(&entry.keys.to_le_bytes());
        }
        let mut blobs = Vec::with_capacity(self.blobs.len() * BLOB_REFERENCE_BYTES);
        for (index, blob) in &self.blobs {
            blobs.extend_from_slice(&index.to_le_bytes());
            blobs.extend_from_slice(&blob.to_le_bytes());
        }
        let mut counts = Vec::with_capacity(ENTRIES_AT - COUNTS_AT);
        counts.extend_from_slice(&segment_bytes.to_le_bytes());
        for count in [self.entries.len(), self.blobs.len(), self.details.len()] {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            counts.extend_from_slice(&count.to_le_bytes());
        }
        for section in [&entries, &self.details, &blobs] {
            counts.extend_from_slice(&crc32fast::hash(section).to_le_bytes());
        }
        let crc = crc32fast::hash(&counts);
        let mut bytes = segment::encode_header(MAGIC, id, store);
        bytes.extend_from_slice(&counts);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&entries);
        bytes.extend_from_slice(&blobs);
        bytes.extend_from_slice(&self.details);
        bytes
    }
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

struct Counts {
    segment_bytes: u64,
    entries: usize,
    blobs: usize,
    details_bytes: usize,
    entries_crc: u32,
    details_crc: u32,
    blobs_crc: u32,
}

impl Counts {
    fn decode(path: &Path, head: &[u8], id: u32, store: StoreId) -> Result<Self> {
        segment::check_header(path, head, MAGIC, id, store)?;
        let counts = head.get(COUNTS_AT..COUNTS_CRC_AT).unwrap_or_default();
        let crc = head.get(COUNTS_CRC_AT..ENTRIES_AT).unwrap_or_default();
        if crc32fast::hash(counts).to_le_bytes() != *crc {
            return Err(corrupt(path, COUNTS_AT, "the counts'"));
        }
        Self::fields(&mut Fields::new(counts))
            .ok_or_else(|| corrupt(path, COUNTS_AT, "the counts'"))
    }

    fn fields(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self {
            segment_bytes: fields.u64()?,
            entries: fields.u32()? as usize,
            blobs: fields.u32()? as usize,
            details_bytes: fields.u32()? as usize,
            entries_crc: fields.u32()?,
            details_crc: fields.u32()?,
            blobs_crc: fields.u32()?,
        })
    }

    fn blobs_at(&self) -> usize {
        ENTRIES_AT + self.entries * ENTRY_BYTES
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
    file: std::sync::Arc<dyn crate::fs::File>,
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
        Ok(Self { path, file, counts })
    }

    fn section(&self, at: usize, bytes: usize, crc: u32, whose: &str) -> Result<Vec<u8>> {
        let mut section = vec![0; bytes];
        self.file
            .read_exact_at(&mut section, at as u64)
            .map_err(|error| read_error(&self.path, at as u64, error))?;
        if crc32fast::hash(&section) != crc {
            return Err(corrupt(&self.path, at, whose));
        }
        Ok(section)
    }

    /// How many entries there are.
    pub(crate) fn entries(&self) -> usize {
        self.counts.entries
    }

    /// Entries and blob references.
    pub(crate) fn summary(&self) -> Result<Summary> {
        let counts = &self.counts;
        let entries = self.section(
            ENTRIES_AT,
            counts.entries * ENTRY_BYTES,
            counts.entries_crc,
            "the entries'",
        )?;
        let blobs = self.section(
            counts.blobs_at(),
            counts.blobs * BLOB_REFERENCE_BYTES,
            counts.blobs_crc,
            "the blob references'",
        )?;
        let (entries, blobs) = decode_entries(&entries)
            .zip(decode_blobs(&blobs))
            .ok_or_else(|| {
                Error::corrupt(
                    &self.path,
                    ENTRIES_AT as u64,
                    "an entry is not one of this version",
                )
            })?;
        Ok(Summary {
            segment_bytes: counts.segment_bytes,
            entries,
            blobs,
        })
    }

    /// The details, one for each entry.
    pub(crate) fn details(&self) -> Result<Vec<Detail>> {
        let at = self.counts.details_at();
        let bytes = self.section(
            at,
            self.counts.details_bytes,
            self.counts.details_crc,
            "the details'",
        )?;
        decode_details(&bytes).ok_or_else(|| {
            Error::corrupt(&self.path, at as u64, "a detail is not one of this version")
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

fn decode_entries(bytes: &[u8]) -> Option<Vec<Entry>> {
    bytes
        .chunks_exact(ENTRY_BYTES)
        .map(|entry| {
            let mut fields = Fields::new(entry);
            Some(Entry {
                hash: NamespaceHash::from_bytes(fields.array()?),
                revision: fields.u64()?,
                offset: fields.u32()?,
                bytes: fields.u32()?,
                kind: EntryKind::from_byte(fields.u8()?)?,
                keys: fields.u32()?,
            })
        })
        .collect()
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

fn decode_details(bytes: &[u8]) -> Option<Vec<Detail>> {
    let mut fields = Fields::new(bytes);
    let mut details = Vec::new();
    while !fields.is_empty() {
        let mut name = || {
            let bytes = fields.u8()?;
            Some(
                std::str::from_utf8(fields.take(bytes.into())?)
                    .ok()?
                    .to_owned(),
            )
        };
        let user = name()?;
        let client = name()?;
        details.push(Detail {
            user,
            client,
            body_bytes: fields.u64()?,
            modified_ms: fields.u64()?,
        });
    }
    Some(details)
}
