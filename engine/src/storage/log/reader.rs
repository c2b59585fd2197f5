//! Reading frames at known places. It trusts nothing: every checksum is verified,
//! and the frame must be the one that was asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use quick_cache::sync::Cache;

use crate::format::file_header::{self, FormatVersion, StoreId};
use crate::format::frame::header::{EntryKind, FrameHeader};
use crate::format::frame::meta::{FrameMeta, Member};
use crate::format::frame::{self, FrameHead};
use crate::format::location::FrameLocation;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::model::limits::Usage;
use crate::platform::fs::{File, Fs};
use crate::storage::io::{open_stored, read_at};

/// Bytes read at once where only the metadata is wanted: the header and metadata
/// of nearly every frame fit.
const METADATA_READ_BYTES: u32 = 4096;

/// Reads frames, keeping a bounded number of segments open.
pub(crate) struct FrameReader {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    store: StoreId,
    open: Cache<SegmentId, OpenSegment>,
}

/// A segment that is open.
#[derive(Clone)]
struct OpenSegment {
    file: Arc<dyn File>,
    version: FormatVersion,
}

/// A frame whose checksums hold.
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) user: String,
    pub(crate) client: String,
    /// In the document's order; empty in a delete.
    pub(crate) members: Vec<Member>,
    pub(crate) usage: Usage,
    pub(crate) inline: Bytes,
}

/// A frame as far as it was read.
struct PartialFrame {
    header: FrameHeader,
    meta: FrameMeta,
    buffer: Vec<u8>,
}

impl FrameReader {
    pub(crate) fn new(fs: Arc<dyn Fs>, dir: &Path, store: StoreId, open_segments: usize) -> Self {
        Self {
            fs,
            dir: dir.to_owned(),
            store,
            open: Cache::new(open_segments),
        }
    }

    /// The frame that `entry` points to; it must be of this namespace.
    pub(crate) fn frame(&self, names: (&str, &str), entry: &FrameLocation) -> Result<Frame> {
        self.any_frame(entry, |meta| meta.is_of(names))
    }

    /// The same without its inline bytes: the numbers in it, and what the document takes.
    pub(crate) fn metadata(
        &self,
        names: (&str, &str),
        entry: &FrameLocation,
    ) -> Result<(FrameHeader, Usage)> {
        let bytes = entry.bytes.min(METADATA_READ_BYTES);
        let PartialFrame { header, meta, .. } =
            self.begin(entry, bytes, |meta| meta.is_of(names))?;
        Ok((header, meta.usage(header.kind)))
    }

    /// The frame that `entry` points to; its namespace must be as `is_right` says.
    pub(crate) fn any_frame(
        &self,
        entry: &FrameLocation,
        is_right: impl Fn(&FrameMeta) -> bool,
    ) -> Result<Frame> {
        let PartialFrame {
            header,
            mut meta,
            buffer,
        } = self.begin(entry, entry.bytes, is_right)?;
        let inline_at = header.meta_end();
        let corrupt = |what| {
            let offset = u64::from(entry.offset) + inline_at as u64;
            Error::corrupt(&self.path(entry.segment), offset, what)
        };
        let mut inline = Bytes::from(buffer);
        if inline.len() < inline_at {
            return Err(corrupt("the frame is cut short"));
        }
        inline.advance(inline_at);
        if crc32fast::hash(&inline) != header.inline_crc {
            return Err(corrupt("the document's checksum does not match"));
        }
        let usage = meta.usage(header.kind);
        let user = std::mem::take(&mut meta.user);
        let client = std::mem::take(&mut meta.client);
        let members = meta
            .into_members(header.kind, &inline)
            .ok_or_else(|| corrupt("the values are not where the metadata says"))?;
        Ok(Frame {
            header,
            user,
            client,
            members,
            usage,
            inline,
        })
    }

    /// Closes a segment whose file is gone, so that its space is given back.
    pub(crate) fn forget(&self, segment: SegmentId) {
        self.open.remove(&segment);
    }

    /// Reads the first `bytes` of the frame, and more where the metadata needs it.
    fn begin(
        &self,
        entry: &FrameLocation,
        bytes: u32,
        is_right: impl Fn(&FrameMeta) -> bool,
    ) -> Result<PartialFrame> {
        // Only errors name it, and to write it down takes as long as a tenth of a read.
        let path = || self.path(entry.segment);
        let offset = u64::from(entry.offset);
        let corrupt = |what: &str| Error::corrupt(&path(), offset, what);
        let OpenSegment { file, version } = self.segment(entry.segment)?;
        let mut buffer = read_at(&*file, path, offset, bytes as usize)?;
        // Up to where the frame ends by what is known of it, no further.
        let read_to = |buffer: &mut Vec<u8>, end: usize| {
            if buffer.len() < end && end <= entry.bytes as usize {
                *buffer = read_at(&*file, path, offset, end)?;
            }
            Ok::<_, Error>(())
        };
        if let Some(head_bytes) = frame::head_bytes(version, &buffer) {
            read_to(&mut buffer, head_bytes)?;
        }
        let head =
            FrameHead::decode(version, &buffer, offset).map_err(|no| no.at(&path(), offset))?;
        let header = head.header;
        let is_the_one = header.revision == entry.revision
            && header.frame_bytes() == u64::from(entry.bytes)
            && EntryKind::of(&header) == entry.kind;
        if !is_the_one {
            return Err(corrupt("the frame is not the one that was written here"));
        }
        read_to(&mut buffer, header.meta_end())?;
        let section = buffer
            .get(header.head_bytes as usize..header.meta_end())
            .ok_or_else(|| corrupt("the frame is cut short"))?;
        let (header, meta) = head.meta(section).map_err(corrupt)?;
        if !is_right(&meta) {
            return Err(corrupt("the frame belongs to another namespace"));
        }
        Ok(PartialFrame {
            header,
            meta,
            buffer,
        })
    }

    fn segment(&self, id: SegmentId) -> Result<OpenSegment> {
        self.open.get_or_insert_with(&id, || {
            let path = self.path(id);
            let file = open_stored(&*self.fs, &path)?;
            let len = usize::try_from(file_header::HEADER_BYTES).unwrap_or_default();
            let header = read_at(&*file, || path.clone(), 0, len)?;
            let version =
                file_header::check_header(&path, &header, file_header::KIND, id.get(), self.store)?;
            Ok(OpenSegment { file, version })
        })
    }

    /// The file of a segment, for errors that name it.
    pub(crate) fn path(&self, segment: SegmentId) -> PathBuf {
        file_header::path(&self.dir, segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fs::Disk;

    #[test]
    fn a_forged_length_takes_no_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("short");
        let file = Disk.create(&path).expect("a file");
        file.write_all_at(b"short", 0).expect("it is written");
        // No allocator has this much: asking for it would end the process.
        let read = read_at(&*file, || path.clone(), 2, isize::MAX as usize);
        assert!(matches!(read, Err(Error::Corrupt { offset: 2, .. })));
    }
}
