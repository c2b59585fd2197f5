//! Scanning a segment frame by frame, where no summary tells what is in it: after a
//! crash, and where a summary is lost.
//!
//! What does not check out is stepped over to the next frame that does. A frame
//! cannot be faked from inside a document: its magic holds a control character,
//! which JSON text cannot hold.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memmem;

use crate::format::file_header::{self, FormatVersion, StoreId};
use crate::format::frame::header::{EntryKind, FrameHeader, HeadError};
use crate::format::frame::meta::FrameMeta;
use crate::format::frame::{self, FrameHead};
use crate::format::summary::builder::SummaryBuilder;
use crate::format::summary::entry::SummaryEntry;
use crate::model::error::{Error, Result};
use crate::model::ids::{Offset, SegmentId};
use crate::model::names::NamespaceHash;
use crate::platform::fs::{File, Fs};
use crate::storage::io::{open_stored, read_at, stored_len};

/// Bytes read at once.
const WINDOW_BYTES: u64 = 1024 * 1024;

/// What a segment holds, by its own bytes.
pub(crate) struct SegmentScan {
    pub(crate) items: Vec<ScanItem>,
    /// The highest watermark of its frames: below it everything was synced.
    pub(crate) watermark: u64,
    /// The highest revision of its frames.
    pub(crate) last_revision: u64,
}

pub(crate) struct ScanItem {
    pub(crate) offset: Offset,
    /// Bytes to the next item.
    pub(crate) bytes: u32,
    pub(crate) found: ScanFound,
}

impl ScanItem {
    /// # Errors
    /// [`Error::Corrupt`] if a segment cannot be that long.
    fn new(path: &Path, offset: u64, bytes: u64, found: ScanFound) -> Result<Self> {
        let narrow = Offset::new(offset).zip(u32::try_from(bytes).ok());
        let too_long = || Error::corrupt(path, offset, "the segment is too long");
        let (offset, bytes) = narrow.ok_or_else(too_long)?;
        Ok(Self {
            offset,
            bytes,
            found,
        })
    }

    /// As the summary of its segment names it.
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

    fn is_before(&self, end: u64) -> bool {
        u64::from(self.offset) < end
    }
}

pub(crate) enum ScanFound {
    Frame(Box<ValidFrame>),
    /// Something that is no whole frame; of this namespace, if that can be told.
    Invalid(Option<NamespaceHash>),
}

/// A frame that holds.
pub(crate) struct ValidFrame {
    /// The one that it says it is of, or that of its names where it does not say.
    pub(crate) hash: NamespaceHash,
    pub(crate) header: FrameHeader,
    pub(crate) meta: FrameMeta,
}

/// Bytes `from..end` of a segment, read in windows.
struct ScanWindow {
    file: Arc<dyn File>,
    version: FormatVersion,
    path: PathBuf,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl ScanWindow {
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

    /// The frame head at `offset`, or why there is none.
    fn head(&mut self, offset: u64) -> Result<std::result::Result<FrameHead, HeadError>> {
        let version = self.version;
        let begin = self.at(offset, frame::MIN_HEAD_BYTES as u64)?;
        let len = frame::head_bytes(version, begin).unwrap_or_default() as u64;
        Ok(FrameHead::decode(version, self.at(offset, len)?, offset))
    }
}

/// Scans a segment up to `end`, or to the end of its file.
///
/// # Errors
/// [`Error::Corrupt`] where the file is missing, or is not this segment at all.
pub(crate) fn scan(
    fs: &dyn Fs,
    dir: &Path,
    of: (SegmentId, StoreId, &[u8; 16]),
    end: Option<u64>,
) -> Result<SegmentScan> {
    let path = file_header::path(dir, of.0);
    let file = open_stored(fs, &path)?;
    let stat = || stored_len(&*file, &path);
    loop {
        let len = stat()?;
        let window = ScanWindow {
            file: Arc::clone(&file),
            version: file_header::KIND.written,
            path: path.clone(),
            end: end.unwrap_or(len).min(len),
            start: 0,
            bytes: Vec::new(),
        };
        match scan_window(window, of, end) {
            // Who writes it has cut off the room that was prepared: it is being sealed.
            Err(error) if error.is_damage() && stat()? < len => {}
            scanned => return scanned,
        }
    }
}

fn scan_window(
    mut window: ScanWindow,
    (id, store, hash_key): (SegmentId, StoreId, &[u8; 16]),
    end: Option<u64>,
) -> Result<SegmentScan> {
    let path = window.path.clone();
    let header = window.at(0, file_header::HEADER_BYTES)?;
    window.version = file_header::check_header(&path, header, file_header::KIND, id.get(), store)?;
    let mut scan = SegmentScan {
        items: Vec::new(),
        watermark: file_header::HEADER_BYTES,
        last_revision: 0,
    };
    let mut at = file_header::HEADER_BYTES;
    while at < window.end {
        if end.is_none() && is_prepared(&mut window, at)? {
            break;
        }
        let item = item_at(&mut window, at, hash_key)?;
        if let ScanFound::Frame(frame) = &item.found {
            scan.watermark = scan.watermark.max(frame.header.watermark);
            scan.last_revision = scan.last_revision.max(frame.header.revision);
        }
        at += u64::from(item.bytes);
        scan.items.push(item);
    }
    // A file that is shorter than what was sealed has lost its end.
    if let Some(end) = end.filter(|end| *end > at) {
        let lost = ScanFound::Invalid(None);
        scan.items.push(ScanItem::new(&path, at, end - at, lost)?);
    }
    Ok(scan)
}

/// Whether nothing but zeros comes from here on: room that was made for frames.
fn is_prepared(window: &mut ScanWindow, mut at: u64) -> Result<bool> {
    while at < window.end {
        let bytes = window.at(at, 1)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += bytes.len() as u64;
    }
    Ok(true)
}

fn item_at(window: &mut ScanWindow, at: u64, hash_key: &[u8; 16]) -> Result<ScanItem> {
    let room = window.end - at;
    let path = window.path.clone();
    let invalid = |bytes, hash| ScanItem::new(&path, at, bytes, ScanFound::Invalid(hash));
    let head = match window.head(at)? {
        Ok(head) => head,
        Err(HeadError::Invalid(_)) => {
            let to_next = next_frame(window, at + 1)? - at;
            let version = window.version;
            let bytes = window.at(at, WINDOW_BYTES.min(room))?;
            let until = usize::try_from(to_next).unwrap_or(usize::MAX);
            return match frame::behind_damage(version, bytes, until, hash_key) {
                Some((hash, bytes)) => invalid(bytes as u64, Some(hash)),
                None => invalid(to_next, None),
            };
        }
        // Somebody wrote it who knows more: it is neither damage nor a torn tail.
        Err(foreign) => return Err(foreign.at(&window.path, at)),
    };
    let header = head.header;
    let hash = head.hash(hash_key);
    let frame_bytes = header.frame_bytes();
    if frame_bytes > room {
        return invalid(room, Some(hash));
    }
    let bytes = window.at(at, frame_bytes)?;
    let (head_bytes, meta_end) = (header.head_bytes as usize, header.meta_end());
    let inline = bytes.get(meta_end..meta_end + header.inline_bytes as usize);
    let meta = bytes
        .get(head_bytes..meta_end)
        .and_then(|section| head.meta(section).ok());
    let found = match (meta, inline) {
        // What was synced before it lies before it. A watermark beyond that would have
        // the segment sealed at a length that it never had.
        (Some((header, meta)), Some(inline))
            if crc32fast::hash(inline) == header.inline_crc
                && header.watermark <= at
                && meta.fits(header.kind, inline) =>
        {
            ScanFound::Frame(Box::new(ValidFrame { hash, header, meta }))
        }
        _ => ScanFound::Invalid(Some(hash)),
    };
    ScanItem::new(&path, at, frame_bytes, found)
}

/// The offset of the next frame head that checks out, whatever its version, or the end.
fn next_frame(window: &mut ScanWindow, mut at: u64) -> Result<u64> {
    let magic = frame::magic(window.version);
    while at + magic.len() as u64 <= window.end {
        let end = window.end;
        let bytes = window.at(at, magic.len() as u64)?;
        let Some(found) = memmem::find(bytes, magic) else {
            // The magic may begin in the last bytes.
            let skip = bytes.len().saturating_sub(magic.len() - 1).max(1);
            at += skip as u64;
            continue;
        };
        at += found as u64;
        match window.head(at)? {
            Ok(head) if head.header.frame_bytes() <= end - at => return Ok(at),
            Err(HeadError::Version { .. } | HeadError::Unknown) => return Ok(at),
            Ok(_) | Err(HeadError::Invalid(_)) => at += 1,
        }
    }
    Ok(window.end)
}

impl SegmentScan {
    /// Where what recovery keeps ends: behind the watermark, the first item that is no
    /// frame ends what can be told.
    pub(crate) fn valid_end(&self) -> u64 {
        let is_torn = |item: &&ScanItem| {
            !item.is_before(self.watermark) && matches!(item.found, ScanFound::Invalid(_))
        };
        self.items
            .iter()
            .find(is_torn)
            .map_or(u64::MAX, |item| item.offset.into())
    }

    /// For each item, the highest revision that it can have if it is damaged: below that
    /// of the next frame of its namespace, since the frames of one namespace lie in the
    /// order of their revisions. (Those of different ones do not: compaction copies.)
    fn bounds(&self) -> Vec<u64> {
        let mut next = HashMap::new();
        let backwards = self.items.iter().rev().map(|item| match &item.found {
            ScanFound::Frame(frame) => {
                next.insert(frame.hash, frame.header.revision);
                frame.header.revision
            }
            ScanFound::Invalid(Some(hash)) => next
                .get(hash)
                .map_or(self.last_revision, |revision| revision.saturating_sub(1)),
            ScanFound::Invalid(None) => self.last_revision,
        });
        let mut bounds: Vec<u64> = backwards.collect();
        bounds.reverse();
        bounds
    }

    /// The summary of the items before `end`. What is invalid there is damage.
    pub(crate) fn summary(&self, end: u64) -> SummaryBuilder {
        let mut summary = SummaryBuilder::default();
        let bounds = self.bounds();
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
                        (&meta.user, &meta.client),
                        usage.bytes,
                        header.modified_ms,
                    );
                }
                ScanFound::Invalid(hash) => {
                    let kind = match hash {
                        Some(_) => EntryKind::Damaged,
                        None => EntryKind::Lost,
                    };
                    let hash = hash.unwrap_or(NamespaceHash::from_bytes([0; 16]));
                    summary.push_damage(item.entry(hash, bound, kind, 0));
                }
            }
        }
        summary
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::platform::fs::Disk;
    use crate::{Config, Engine, WriteOptions};

    /// A file that is cut once its length was asked for.
    struct TruncatingFile {
        file: Arc<dyn File>,
        is_asked: AtomicBool,
    }

    impl File for TruncatingFile {
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.file.read_exact_at(buffer, offset)
        }

        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.file.write_all_at(bytes, offset)
        }

        fn sync(&self) -> io::Result<()> {
            self.file.sync()
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.file.set_len(len)
        }

        fn len(&self) -> io::Result<u64> {
            let was_asked = self.is_asked.swap(true, Ordering::Relaxed);
            Ok(self.file.len()? + if was_asked { 0 } else { 4096 })
        }
    }

    struct TruncatingFs;

    impl Fs for TruncatingFs {
        fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
            Ok(Arc::new(TruncatingFile {
                file: Disk.open(path)?,
                is_asked: AtomicBool::new(false),
            }))
        }

        fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
            Disk.open_for_write(path)
        }

        fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
            Disk.create(path)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            Disk.rename(from, to)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            Disk.remove(path)
        }

        fn create_dir(&self, path: &Path) -> io::Result<()> {
            Disk.create_dir(path)
        }

        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            Disk.sync_dir(path)
        }

        fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
            Disk.list(path)
        }
    }

    #[test]
    fn a_segment_that_is_sealed_meanwhile_is_scanned_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(Config::new(dir.path())).unwrap();
        let namespace = engine.namespace("u", "c").unwrap();
        namespace.write(b"{}", WriteOptions::default()).unwrap();
        engine.close().unwrap();
        let log = dir.path().join("log");
        let manifest = crate::storage::log::manifest_file::read(&Disk, &log)
            .unwrap()
            .unwrap();
        let of = (manifest.segments[0].id, manifest.store, &manifest.hash_key);
        let scanned = scan(&TruncatingFs, &log, of, None).unwrap();
        assert_eq!(scanned.items.len(), 1);
    }
}
