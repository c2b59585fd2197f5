//! Scans a segment frame by frame. A scan is needed for segments without a valid summary, for
//! example for the active segment after a crash.
//!
//! The scan skips invalid bytes up to the next valid frame header. A document cannot contain a
//! forged frame. In format versions 2 and 3, neither byte of the magic occurs in JSON text. In
//! version 1, the magic `PFRM` can occur in JSON text, but the byte 01 that follows it cannot.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memmem;

use crate::format::file_header::{self, FormatVersion, StoreId};
use crate::format::frame::header::{EntryKind, FrameError, FrameHeader, FrameKind, Salvaged};
use crate::format::frame::meta::FrameMeta;
use crate::format::frame::{self, DecodedHeader};
use crate::format::manifest::{MAX_SEGMENT_FRAMES, Manifest};
use crate::format::summary::builder::SummaryBuilder;
use crate::format::summary::entry::SummaryEntry;
use crate::model::error::{Error, Result};
use crate::model::ids::{Offset, SegmentId};
use crate::model::names::NamespaceHash;
use crate::platform::fs::{File, Fs};
use crate::storage::io::{open_stored, read_at, stored_len};

/// Minimum number of bytes that a scan reads at a time, unless the segment ends earlier.
const WINDOW_BYTES: u64 = 1024 * 1024;

/// The revisions that the frames of a segment can have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RevisionLimits {
    /// Frames with a lower revision can be copies that compaction made, and need not be in the
    /// order of their revisions. `u64::MAX` if all frames can be copies.
    pub(crate) first_new: u64,
    /// The highest revision that a frame can have.
    pub(crate) last: u64,
}

impl RevisionLimits {
    /// The limits of the active segment of a manifest. When the segment was created, the next
    /// unused revision was [`MAX_SEGMENT_FRAMES`] below the reserved revision.
    pub(crate) fn of_active(manifest: &Manifest) -> Self {
        let reserved = manifest.reserved_revision;
        Self {
            first_new: reserved.saturating_sub(MAX_SEGMENT_FRAMES as u64),
            last: reserved.saturating_sub(1),
        }
    }

    /// The limits of a segment in which any frame can be a copy.
    pub(crate) fn up_to(last: u64) -> Self {
        Self {
            first_new: u64::MAX,
            last,
        }
    }
}

/// The contents of a segment, as a scan has found them.
pub(crate) struct SegmentScan {
    /// The frames and invalid ranges of the segment, sorted by offset and without gaps.
    pub(crate) items: Vec<ScanItem>,
    /// The highest watermark in the frames. The bytes of the segment before this offset were
    /// synced.
    pub(crate) watermark: u64,
    /// The highest revision in the frames.
    pub(crate) last_revision: u64,
    /// The highest time in the frames, in milliseconds since 1970-01-01 UTC.
    pub(crate) last_modified_ms: u64,
}

/// A frame, or a range of invalid bytes.
pub(crate) struct ScanItem {
    pub(crate) offset: Offset,
    /// Number of bytes up to the next item.
    pub(crate) bytes: u32,
    pub(crate) found: ScanFound,
}

impl ScanItem {
    /// # Errors
    /// [`Error::Corrupt`] if the item is beyond the maximum length of a segment.
    fn new(path: &Path, offset: u64, bytes: u64, found: ScanFound) -> Result<Self> {
        let narrow = Offset::new(offset).zip(u32::try_from(bytes).ok());
        let too_long = || Error::corrupt(path, offset, "the segment exceeds its maximum length");
        let (offset, bytes) = narrow.ok_or_else(too_long)?;
        Ok(Self {
            offset,
            bytes,
            found,
        })
    }

    /// Creates the summary entry of this item.
    pub(crate) fn entry(
        &self,
        hash: NamespaceHash,
        revision: u64,
        kind: EntryKind,
        keys: u32,
    ) -> SummaryEntry {
        SummaryEntry {
            hash,
            revision,
            offset: self.offset,
            bytes: self.bytes,
            kind,
            keys,
        }
    }

    /// Returns true if the item begins before this offset.
    fn is_before(&self, end: u64) -> bool {
        u64::from(self.offset) < end
    }
}

/// The content of a [`ScanItem`].
pub(crate) enum ScanFound {
    Frame(Box<ValidFrame>),
    /// A mark, with its revision. `None` if the header of the mark has a single-bit error. Such a
    /// mark does not count as damage to the store, because a mark contains no data.
    Mark(Option<u64>),
    /// Bytes that do not form a valid frame. Contains the hash of the damaged frame's namespace, if
    /// the namespace is known.
    Invalid(Option<NamespaceHash>),
}

/// A frame with valid checksums.
pub(crate) struct ValidFrame {
    /// The hash of the namespace, which is stored in version 1 headers and computed from the names
    /// in later versions.
    pub(crate) hash: NamespaceHash,
    pub(crate) header: FrameHeader,
    pub(crate) meta: FrameMeta,
}

/// A window over the bytes of a segment up to `end`.
struct ScanWindow {
    file: Arc<dyn File>,
    version: FormatVersion,
    path: PathBuf,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl ScanWindow {
    /// Returns the bytes from `offset` on, and reads them if necessary. The result has at least
    /// `len` bytes, unless `end` is reached first.
    fn at(&mut self, offset: u64, len: u64) -> Result<&[u8]> {
        let wanted = len.min(self.end.saturating_sub(offset));
        let have_end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + wanted > have_end {
            let read = wanted
                .max(WINDOW_BYTES)
                .min(self.end.saturating_sub(offset));
            let read = usize::try_from(read).map_err(|_| {
                Error::corrupt(&self.path, offset, "the frame exceeds the maximum length")
            })?;
            self.bytes = read_at(&*self.file, || self.path.clone(), offset, read)?;
            self.start = offset;
        }
        let begin = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(begin..).unwrap_or_default())
    }

    /// Decodes the frame header at `offset`.
    fn head(&mut self, offset: u64) -> Result<std::result::Result<DecodedHeader, FrameError>> {
        let version = self.version;
        let begin = self.at(offset, frame::HEADER_PROBE_BYTES as u64)?;
        let len = frame::header_bytes(version, begin).unwrap_or_default() as u64;
        Ok(DecodedHeader::decode(
            version,
            self.at(offset, len)?,
            offset,
        ))
    }
}

/// Scans a segment up to `end`, or to the end of the file if `end` is `None`.
///
/// # Errors
/// - [`Error::Corrupt`]: the file is missing, its file header is damaged or belongs to another
///   file, or the header of a frame is intact but has an unknown value.
/// - [`Error::Unreadable`]: the segment could not be read from the disk.
/// - [`Error::UnsupportedFormat`]: the segment or a frame was written by a newer version of prefd.
/// - [`Error::Io`]: any other failure.
pub(crate) fn scan(
    fs: &dyn Fs,
    dir: &Path,
    of: (SegmentId, StoreId, &[u8; 16]),
    end: Option<u64>,
) -> Result<SegmentScan> {
    let path = file_header::segment_path(dir, of.0);
    let file = open_stored(fs, &path)?;
    let stat = || stored_len(&*file, &path);
    loop {
        let len = stat()?;
        let window = ScanWindow {
            file: Arc::clone(&file),
            version: file_header::SEGMENT.written,
            path: path.clone(),
            end: end.unwrap_or(len).min(len),
            start: 0,
            bytes: Vec::new(),
        };
        match scan_window(window, of, end) {
            // If the file has become shorter during the scan, another thread has truncated it, for
            // example the commit leader to seal the segment. A scan that fails after such a
            // truncation is repeated.
            Err(error) if error.is_damage() && stat()? < len => {}
            scanned => return scanned,
        }
    }
}

/// Scans a segment once.
fn scan_window(
    mut window: ScanWindow,
    (id, store, hash_key): (SegmentId, StoreId, &[u8; 16]),
    end: Option<u64>,
) -> Result<SegmentScan> {
    let path = window.path.clone();
    let header = window.at(0, file_header::HEADER_BYTES)?;
    window.version =
        file_header::check_header(&path, header, file_header::SEGMENT, id.get(), store)?;
    let mut scan = SegmentScan {
        items: Vec::new(),
        watermark: file_header::HEADER_BYTES,
        last_revision: 0,
        last_modified_ms: 0,
    };
    let mut at = file_header::HEADER_BYTES;
    while at < window.end {
        if end.is_none() && is_preallocated(&mut window, at)? {
            break;
        }
        let (item, header) = item_at(&mut window, at, hash_key)?;
        if let Some(header) = header {
            scan.watermark = scan.watermark.max(header.watermark);
            scan.last_revision = scan.last_revision.max(header.revision);
            scan.last_modified_ms = scan.last_modified_ms.max(header.modified_ms);
        }
        at += u64::from(item.bytes);
        scan.items.push(item);
    }
    // If the file is shorter than the recorded length of the sealed segment, the end of the segment
    // is lost.
    if let Some(end) = end.filter(|end| *end > at) {
        let lost = ScanFound::Invalid(None);
        scan.items.push(ScanItem::new(&path, at, end - at, lost)?);
    }
    Ok(scan)
}

/// Returns true if all bytes from `at` on are zero, which means that the bytes were preallocated.
fn is_preallocated(window: &mut ScanWindow, mut at: u64) -> Result<bool> {
    while at < window.end {
        let bytes = window.at(at, 1)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += bytes.len() as u64;
    }
    Ok(true)
}

/// Returns the frame at `at` with its header, or the range of invalid bytes that begins at `at`.
fn item_at(
    window: &mut ScanWindow,
    at: u64,
    hash_key: &[u8; 16],
) -> Result<(ScanItem, Option<FrameHeader>)> {
    let room = window.end - at;
    let path = window.path.clone();
    let item = |bytes, found| ScanItem::new(&path, at, bytes, found);
    let head = match window.head(at)? {
        Ok(head) => head,
        Err(FrameError::Invalid(_)) => {
            let to_next = next_frame(window, at + 1)? - at;
            let version = window.version;
            let bytes = window.at(at, WINDOW_BYTES.min(room))?;
            let until = usize::try_from(to_next).unwrap_or(usize::MAX);
            let (bytes, found) = match frame::salvage(version, bytes, until, hash_key) {
                Some((Salvaged::Frame(hash), len)) => (len as u64, ScanFound::Invalid(Some(hash))),
                Some((Salvaged::Mark, len)) => (len as u64, ScanFound::Mark(None)),
                None => (to_next, ScanFound::Invalid(None)),
            };
            return Ok((item(bytes, found)?, None));
        }
        // An intact header with an unknown version or an unknown value was written by a newer
        // version of the engine. Such a header is neither damage nor the torn end of a batch.
        Err(foreign) => return Err(foreign.into_error(&window.path, at)),
    };
    let header = head.header;
    let hash = head.hash(hash_key);
    let frame_bytes = header.frame_bytes();
    if frame_bytes > room {
        return Ok((item(room, ScanFound::Invalid(hash))?, None));
    }
    let found = if header.kind == FrameKind::Mark {
        ScanFound::Mark(Some(header.revision))
    } else {
        found_at(window, at, head, hash)?
    };
    // When a frame was written, only bytes before the frame could have been synced. A watermark
    // above the offset of the frame is therefore invalid. If recovery used an invalid watermark, it
    // could seal the segment at a wrong length.
    let is_valid = !matches!(found, ScanFound::Invalid(_)) && header.watermark <= at;
    if !is_valid {
        return Ok((item(frame_bytes, ScanFound::Invalid(hash))?, None));
    }
    Ok((item(frame_bytes, found)?, Some(header)))
}

/// Checks the metadata and the inline body of the frame at `at`, whose header is `head`.
fn found_at(
    window: &mut ScanWindow,
    at: u64,
    head: DecodedHeader,
    hash: Option<NamespaceHash>,
) -> Result<ScanFound> {
    let header = head.header;
    let path = window.path.clone();
    let bytes = window.at(at, header.frame_bytes())?;
    let (header_bytes, meta_end) = (header.header_bytes as usize, header.meta_end());
    let inline = bytes.get(meta_end..meta_end + header.inline_bytes as usize);
    let section = bytes.get(header_bytes..meta_end);
    let (Some(hash), Some(section), Some(inline)) = (hash, section, inline) else {
        return Ok(ScanFound::Invalid(hash));
    };
    let meta = match head.meta(section) {
        Ok((_, meta)) => meta,
        Err(FrameError::Invalid(_)) => return Ok(ScanFound::Invalid(Some(hash))),
        Err(foreign) => return Err(foreign.into_error(&path, at)),
    };
    if crc32fast::hash(inline) != header.inline_crc || !meta.matches_body(header.kind, inline) {
        return Ok(ScanFound::Invalid(Some(hash)));
    }
    Ok(ScanFound::Frame(Box::new(ValidFrame {
        hash,
        header,
        meta,
    })))
}

/// Returns the offset of the first intact frame header at or after `at`, or the end of the segment
/// if no intact header follows. A header with an unknown version or an unknown value is also
/// intact. A header is skipped if its frame would extend beyond the end of the segment.
fn next_frame(window: &mut ScanWindow, mut at: u64) -> Result<u64> {
    let magic = frame::magic(window.version);
    while at + magic.len() as u64 <= window.end {
        let end = window.end;
        let bytes = window.at(at, magic.len() as u64)?;
        let Some(found) = memmem::find(bytes, magic) else {
            // The window may end in the middle of a magic, so its last bytes are searched again.
            let skip = bytes.len().saturating_sub(magic.len() - 1).max(1);
            at += skip as u64;
            continue;
        };
        at += found as u64;
        match window.head(at)? {
            Ok(head) if head.header.frame_bytes() <= end - at => return Ok(at),
            Err(FrameError::Version { .. } | FrameError::Unknown) => return Ok(at),
            Ok(_) | Err(FrameError::Invalid(_)) => at += 1,
        }
    }
    Ok(window.end)
}

impl SegmentScan {
    /// Returns the offset of the first invalid item at or after the watermark. In the active
    /// segment, recovery discards all bytes from this offset on. Returns `u64::MAX` if all items
    /// after the watermark are valid.
    pub(crate) fn valid_end(&self) -> u64 {
        let is_torn = |item: &&ScanItem| {
            !item.is_before(self.watermark) && matches!(item.found, ScanFound::Invalid(_))
        };
        self.items
            .iter()
            .find(is_torn)
            .map_or(u64::MAX, |item| item.offset.into())
    }

    /// Returns one revision for each item: the revision of a valid frame or mark, or the highest
    /// revision that a damaged frame can have had.
    ///
    /// The frames of one namespace are in the order of their revisions, so a damaged frame has a
    /// lower revision than the next frame of its namespace. Copies that compaction made are not in
    /// the order of revisions, but their revisions are below `first_new`. All other frames are in
    /// the order of their revisions, so a damaged frame has a lower revision than the next of them.
    fn bounds(&self, limits: RevisionLimits) -> Vec<u64> {
        let mut next = HashMap::new();
        let mut highest = limits.last;
        let backwards = self.items.iter().rev().map(|item| match &item.found {
            ScanFound::Frame(frame) => {
                let revision = frame.header.revision;
                next.insert(frame.hash, revision);
                if revision >= limits.first_new {
                    highest = highest.min(revision.saturating_sub(1));
                }
                revision
            }
            ScanFound::Mark(revision) => {
                // A mark has the highest revision that had been used when it was written.
                highest = revision.map_or(highest, |revision| highest.min(revision));
                revision.unwrap_or_default()
            }
            ScanFound::Invalid(Some(hash)) => next
                .get(hash)
                .map_or(highest, |revision| revision.saturating_sub(1)),
            ScanFound::Invalid(None) => highest,
        });
        let mut bounds: Vec<u64> = backwards.collect();
        bounds.reverse();
        bounds
    }

    /// Returns true if an item before `end` is invalid.
    pub(crate) fn has_damage_before(&self, end: u64) -> bool {
        self.items
            .iter()
            .any(|item| item.is_before(end) && matches!(item.found, ScanFound::Invalid(_)))
    }

    /// Builds the summary of the items before `end`. An invalid item becomes an entry of the kind
    /// [`EntryKind::Damaged`] or [`EntryKind::Lost`].
    pub(crate) fn summary(&self, end: u64, limits: RevisionLimits) -> SummaryBuilder {
        let mut summary = SummaryBuilder::default();
        let none = NamespaceHash::from_bytes([0; 16]);
        let bounds = self.bounds(limits);
        for (item, bound) in self
            .items
            .iter()
            .zip(bounds)
            .take_while(|(item, _)| item.is_before(end))
        {
            match &item.found {
                ScanFound::Frame(frame) => {
                    let ValidFrame { hash, header, meta } = &**frame;
                    let usage = meta.usage(header.kind);
                    let kind = EntryKind::of(header);
                    summary.push(
                        item.entry(*hash, header.revision, kind, usage.keys),
                        &meta.blobs(),
                        (&meta.names.user, &meta.names.client),
                        usage.bytes,
                        header.modified_ms,
                    );
                }
                ScanFound::Invalid(hash) => {
                    let kind = match hash {
                        Some(_) => EntryKind::Damaged,
                        None => EntryKind::Lost,
                    };
                    let entry = item.entry(hash.unwrap_or(none), bound, kind, 0);
                    summary.push_without_details(entry);
                }
                ScanFound::Mark(_) => {
                    let entry = item.entry(none, bound, EntryKind::Mark, 0);
                    summary.push_without_details(entry);
                }
            }
        }
        summary
    }
}

#[cfg(test)]
mod tests;
