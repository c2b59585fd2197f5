//! Scanning a segment frame by frame, where no summary tells what is in it: after a
//! crash, and where a summary is lost.
//!
//! What does not check out is stepped over to the next frame that does. A frame
//! cannot be faked from inside a document: its header holds control characters,
//! which JSON text cannot hold.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memmem;

use crate::error::{Error, Result};
use crate::fs::{File, Fs};
use crate::log::frame::{self, Header, Meta, NoHeader};
use crate::log::reader::{missing_is_corrupt, read_at};
use crate::log::segment::{self, StoreId};
use crate::log::summary::{Builder, Entry, EntryKind};
use crate::names::NamespaceHash;

/// Bytes read at once.
const WINDOW_BYTES: u64 = 1024 * 1024;

/// What a segment holds, by its own bytes.
pub(crate) struct Scan {
    pub(crate) items: Vec<Item>,
    /// The highest watermark of its frames: below it everything was synced.
    pub(crate) watermark: u64,
    /// The highest revision of its frames.
    pub(crate) last_revision: u64,
}

pub(crate) struct Item {
    pub(crate) offset: u64,
    /// Bytes to the next item.
    pub(crate) bytes: u64,
    pub(crate) found: Found,
}

pub(crate) enum Found {
    Frame(Box<(Header, Meta)>),
    /// Something that is no whole frame; of this namespace, if that can be told.
    Invalid(Option<NamespaceHash>),
}

/// Bytes `from..end` of a file, read in windows.
struct Window {
    file: Arc<dyn File>,
    path: PathBuf,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The bytes from `offset`, at least `len` of them unless the end is nearer.
    fn at(&mut self, offset: u64, len: u64) -> Result<&[u8]> {
        let wanted = len.min(self.end.saturating_sub(offset));
        let have_end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + wanted > have_end {
            let read = wanted
                .max(WINDOW_BYTES)
                .min(self.end.saturating_sub(offset));
            let read = usize::try_from(read)
                .map_err(|_| Error::corrupt(&self.path, offset, "the frame is too long"))?;
            self.bytes = read_at(&*self.file, || self.path.clone(), offset, read)?;
            self.start = offset;
        }
        let begin = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(begin..).unwrap_or_default())
    }
}

/// Scans a segment up to `end`, or to the end of its file.
///
/// # Errors
/// [`Error::Corrupt`] where the file is missing, or is not this segment at all.
pub(crate) fn scan(
    fs: &dyn Fs,
    dir: &Path,
    (id, store, hash_key): (u32, StoreId, &[u8; 16]),
    end: Option<u64>,
) -> Result<Scan> {
    let path = segment::path(dir, id);
    let file = fs
        .open(&path)
        .map_err(|error| missing_is_corrupt("open", &path, error))?;
    let len = file
        .len()
        .map_err(|error| Error::io("stat", &path, error))?;
    let mut window = Window {
        file,
        path: path.clone(),
        end: end.unwrap_or(len).min(len),
        start: 0,
        bytes: Vec::new(),
    };
    let header = window.at(0, segment::HEADER_BYTES)?;
    segment::check_header(&path, header, segment::MAGIC, id, store)?;
    let mut scan = Scan {
        items: Vec::new(),
        watermark: segment::HEADER_BYTES,
        last_revision: 0,
    };
    let mut at = segment::HEADER_BYTES;
    while at < window.end {
        if end.is_none() && is_prepared(&mut window, at)? {
            break;
        }
        let item = item_at(&mut window, at, hash_key)?;
        if let Found::Frame(frame) = &item.found {
            scan.watermark = scan.watermark.max(frame.0.watermark);
            scan.last_revision = scan.last_revision.max(frame.0.revision);
        }
        at += item.bytes;
        scan.items.push(item);
    }
    // A file that is shorter than what was sealed has lost its end.
    if let Some(end) = end.filter(|end| *end > at) {
        scan.items.push(Item {
            offset: at,
            bytes: end - at,
            found: Found::Invalid(None),
        });
    }
    Ok(scan)
}

/// Whether nothing but zeros comes from here on: room that was made for frames.
fn is_prepared(window: &mut Window, mut at: u64) -> Result<bool> {
    while at < window.end {
        let bytes = window.at(at, 1)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += bytes.len() as u64;
    }
    Ok(true)
}

fn item_at(window: &mut Window, at: u64, hash_key: &[u8; 16]) -> Result<Item> {
    let room = window.end - at;
    let bytes = window.at(at, frame::HEADER_BYTES as u64)?;
    let invalid = |bytes, hash| Item {
        offset: at,
        bytes,
        found: Found::Invalid(hash),
    };
    let header = match Header::decode(bytes) {
        Ok(header) => header,
        Err(NoHeader::Invalid(_)) => {
            let next = next_frame(window, at + 1)?;
            return Ok(match behind_damage(window, at, next, hash_key)? {
                Some((hash, end)) => invalid(end - at, Some(hash)),
                None => invalid(next - at, None),
            });
        }
        // Somebody wrote it who knows more: it is neither damage nor a torn tail.
        Err(foreign) => return Err(foreign.at(&window.path, at)),
    };
    let frame_bytes = header.frame_bytes();
    if frame_bytes > room {
        return Ok(invalid(room, Some(header.hash)));
    }
    let bytes = window.at(at, frame_bytes)?;
    let meta_end = frame::HEADER_BYTES + header.meta_bytes as usize;
    let frame_end = meta_end + header.inline_bytes as usize;
    let meta = bytes
        .get(frame::HEADER_BYTES..meta_end)
        .and_then(|meta| frame::decode_meta(meta, header.meta_crc).ok());
    let inline_crc = bytes.get(meta_end..frame_end).map(crc32fast::hash);
    let found = match meta {
        // What was synced before it lies before it. A watermark beyond that would have
        // the segment sealed at a length that it never had.
        Some(meta) if inline_crc == Some(header.inline_crc) && header.watermark <= at => {
            Found::Frame(Box::new((header, meta)))
        }
        _ => Found::Invalid(Some(header.hash)),
    };
    Ok(Item {
        offset: at,
        bytes: frame_bytes,
        found,
    })
}

/// The namespace and the end of a frame whose header is damaged, where the damage
/// spared enough of it: its metadata, with length and checksum, and what tells that
/// nothing but its own inline bytes lies behind that. Were another damaged frame there,
/// of that one's namespace an older revision would be taken for the newest.
fn behind_damage(
    window: &mut Window,
    at: u64,
    next: u64,
    hash_key: &[u8; 16],
) -> Result<Option<(NamespaceHash, u64)>> {
    let bytes = window.at(at, WINDOW_BYTES)?;
    let field = |at: usize| {
        let field = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(field.try_into().ok()?))
    };
    let (Some(meta_bytes), Some(inline_bytes)) = (field(48), field(52)) else {
        return Ok(None);
    };
    let (Some(meta_crc), Some(inline_crc)) = (field(56), field(60)) else {
        return Ok(None);
    };
    let meta_end = frame::HEADER_BYTES.saturating_add(meta_bytes as usize);
    let meta = bytes
        .get(frame::HEADER_BYTES..meta_end)
        .and_then(|meta| frame::decode_meta(meta, meta_crc).ok());
    let Some(meta) = meta else {
        return Ok(None);
    };
    let to_next = usize::try_from(next - at).unwrap_or(usize::MAX);
    let by_length = meta_end.saturating_add(inline_bytes as usize);
    let is_inline = |end: usize| bytes.get(meta_end..end).map(crc32fast::hash) == Some(inline_crc);
    let end = if by_length == to_next || is_inline(by_length) {
        by_length
    } else if is_inline(to_next) {
        to_next
    } else {
        return Ok(None);
    };
    let hash = NamespaceHash::of(hash_key, &meta.user, &meta.client);
    Ok(Some((hash, at + end as u64)))
}

/// The offset of the next frame header that checks out, whatever its version, or the end.
fn next_frame(window: &mut Window, mut at: u64) -> Result<u64> {
    let header_bytes = frame::HEADER_BYTES as u64;
    while at + header_bytes <= window.end {
        let end = window.end;
        let bytes = window.at(at, header_bytes)?;
        let Some(found) = memmem::find(bytes, &frame::MAGIC) else {
            // The magic may begin in the last three bytes.
            let skip = bytes.len().saturating_sub(frame::MAGIC.len() - 1).max(1);
            at += skip as u64;
            continue;
        };
        at += found as u64;
        match Header::decode(window.at(at, header_bytes)?) {
            Ok(header) if header.frame_bytes() <= end - at => return Ok(at),
            Err(NoHeader::Version(_) | NoHeader::Unknown) => return Ok(at),
            Ok(_) | Err(NoHeader::Invalid(_)) => at += 1,
        }
    }
    Ok(window.end)
}

impl Scan {
    /// Where what recovery keeps ends: behind the watermark, the first item that is no
    /// frame ends what can be told.
    pub(crate) fn valid_end(&self) -> u64 {
        let is_torn =
            |item: &&Item| item.offset >= self.watermark && matches!(item.found, Found::Invalid(_));
        self.items
            .iter()
            .find(is_torn)
            .map_or(u64::MAX, |item| item.offset)
    }

    /// For each item, the highest revision that it can have if it is damaged: below that
    /// of the next frame of its namespace, since the frames of one namespace lie in the
    /// order of their revisions. (Those of different ones do not: compaction copies.)
    fn bounds(&self) -> Vec<u64> {
        let mut next = HashMap::new();
        let backwards = self.items.iter().rev().map(|item| match &item.found {
            Found::Frame(frame) => {
                next.insert(frame.0.hash, frame.0.revision);
                frame.0.revision
            }
            Found::Invalid(Some(hash)) => next
                .get(hash)
                .map_or(self.last_revision, |revision| revision.saturating_sub(1)),
            Found::Invalid(None) => self.last_revision,
        });
        let mut bounds: Vec<u64> = backwards.collect();
        bounds.reverse();
        bounds
    }

    /// The summary of the items before `end`. What is invalid there is damage.
    pub(crate) fn summary(&self, end: u64) -> Builder {
        let mut summary = Builder::default();
        let bounds = self.bounds();
        for (item, bound) in self
            .items
            .iter()
            .zip(bounds)
            .take_while(|(item, _)| item.offset < end)
        {
            let narrow = |n| u32::try_from(n).unwrap_or(u32::MAX);
            let entry = |hash, revision, kind, keys| Entry {
                hash,
                revision,
                offset: narrow(item.offset),
                bytes: narrow(item.bytes),
                kind,
                keys,
            };
            match &item.found {
                Found::Frame(frame) => {
                    let (header, meta) = &**frame;
                    let usage = meta.usage(header.kind);
                    let kind = EntryKind::of(header);
                    summary.push(
                        entry(header.hash, header.revision, kind, usage.keys),
                        &meta.blobs(),
                        (&meta.user, &meta.client),
                        usage.bytes,
                        header.modified_ms,
                    );
                }
                Found::Invalid(hash) => {
                    let kind = match hash {
                        Some(_) => EntryKind::Damaged,
                        None => EntryKind::Lost,
                    };
                    let hash = hash.unwrap_or(NamespaceHash::from_bytes([0; 16]));
                    summary.push_damage(entry(hash, bound, kind, 0));
                }
            }
        }
        summary
    }
}
