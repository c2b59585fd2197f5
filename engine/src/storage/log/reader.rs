//! Reads single frames at known locations. The reader verifies the checksums of all data that it
//! returns, and checks that the frame is the expected frame.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use quick_cache::sync::Cache;

use crate::format::file_header::{self, FormatVersion, StoreId};
use crate::format::frame::header::{EntryKind, FrameHeader};
use crate::format::frame::member::Member;
use crate::format::frame::meta::FrameMeta;
use crate::format::frame::{self, DecodedHeader};
use crate::format::location::FrameLocation;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::model::limits::Usage;
use crate::model::names::Names;
use crate::platform::fs::{File, Fs};
use crate::storage::io::{open_stored, read_at};

/// Length in bytes of the first read if only the header and the metadata of a frame are needed. For
/// nearly all frames, the first read contains the complete header and metadata.
const METADATA_READ_BYTES: u32 = 4096;

/// Reads frames, and keeps a limited number of recently read segment files open.
pub(crate) struct FrameReader {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    store: StoreId,
    open: Cache<SegmentId, OpenSegment>,
}

/// The open file of a segment.
#[derive(Clone)]
struct OpenSegment {
    file: Arc<dyn File>,
    version: FormatVersion,
}

/// A frame with valid checksums.
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) names: Names,
    /// The members in the order of the document. Empty for a delete.
    pub(crate) members: Vec<Member>,
    pub(crate) usage: Usage,
    pub(crate) inline: Bytes,
}

/// The header and metadata of a frame, and the bytes of the frame that have been read.
struct PartialFrame {
    header: FrameHeader,
    meta: FrameMeta,
    buffer: Vec<u8>,
}

impl FrameReader {
    /// Creates a reader of the log in `dir` that keeps at most `open_segments` files open.
    pub(crate) fn new(fs: Arc<dyn Fs>, dir: &Path, store: StoreId, open_segments: usize) -> Self {
        Self {
            fs,
            dir: dir.to_owned(),
            store,
            open: Cache::new(open_segments),
        }
    }

    /// Reads the frame at `entry`, which must belong to the namespace `names`.
    pub(crate) fn frame(&self, names: (&str, &str), entry: &FrameLocation) -> Result<Frame> {
        self.any_frame(entry, |meta| meta.belongs_to(names))
    }

    /// Reads the header of the frame at `entry` and the size of its document, without the document.
    /// The frame must belong to the namespace `names`.
    pub(crate) fn metadata(
        &self,
        names: (&str, &str),
        entry: &FrameLocation,
    ) -> Result<(FrameHeader, Usage)> {
        let bytes = entry.bytes.min(METADATA_READ_BYTES);
        let PartialFrame { header, meta, .. } =
            self.read_metadata(entry, bytes, |meta| meta.belongs_to(names))?;
        Ok((header, meta.usage(header.kind)))
    }

    /// Reads the frame at `entry`. `is_expected` checks the namespace in the metadata of the frame.
    pub(crate) fn any_frame(
        &self,
        entry: &FrameLocation,
        is_expected: impl Fn(&FrameMeta) -> bool,
    ) -> Result<Frame> {
        let PartialFrame {
            header,
            meta,
            buffer,
        } = self.read_metadata(entry, entry.bytes, is_expected)?;
        let inline_at = header.meta_end();
        let corrupt = |what| {
            let offset = u64::from(entry.offset) + inline_at as u64;
            Error::corrupt(&self.path(entry.segment), offset, what)
        };
        let mut inline = Bytes::from(buffer);
        if inline.len() < inline_at {
            return Err(corrupt("the frame is truncated"));
        }
        inline.advance(inline_at);
        if crc32fast::hash(&inline) != header.inline_crc {
            return Err(corrupt("the document's checksum does not match"));
        }
        let usage = meta.usage(header.kind);
        let names = meta.names.clone();
        let members = meta
            .into_members(header.kind, &inline)
            .ok_or_else(|| corrupt("the metadata does not match the values"))?;
        Ok(Frame {
            header,
            names,
            members,
            usage,
            inline,
        })
    }

    /// Closes the file of a removed segment, so that the file system can free its space.
    pub(crate) fn close_segment(&self, segment: SegmentId) {
        self.open.remove(&segment);
    }

    /// Reads and checks the header and metadata of the frame at `entry`. The first read loads
    /// `bytes` bytes. If these bytes do not contain the complete metadata, more bytes are read.
    fn read_metadata(
        &self,
        entry: &FrameLocation,
        bytes: u32,
        is_expected: impl Fn(&FrameMeta) -> bool,
    ) -> Result<PartialFrame> {
        // The path is formatted only for errors, because formatting a path takes a tenth of the
        // time of a read.
        let path = || self.path(entry.segment);
        let offset = u64::from(entry.offset);
        let corrupt = |what: &str| Error::corrupt(&path(), offset, what);
        let OpenSegment { file, version } = self.segment(entry.segment)?;
        let mut buffer = read_at(&*file, path, offset, bytes as usize)?;
        // No read is longer than `entry.bytes`, the expected length of the frame.
        let read_to = |buffer: &mut Vec<u8>, end: usize| {
            if buffer.len() < end && end <= entry.bytes as usize {
                *buffer = read_at(&*file, path, offset, end)?;
            }
            Ok::<_, Error>(())
        };
        if let Some(header_bytes) = frame::header_bytes(version, &buffer) {
            read_to(&mut buffer, header_bytes)?;
        }
        let head = DecodedHeader::decode(version, &buffer, offset)
            .map_err(|error| error.into_error(&path(), offset))?;
        let header = head.header;
        let is_expected_frame = header.revision == entry.revision
            && header.frame_bytes() == u64::from(entry.bytes)
            && EntryKind::of(&header) == entry.kind;
        if !is_expected_frame {
            return Err(corrupt("the header does not match the expected frame"));
        }
        read_to(&mut buffer, header.meta_end())?;
        let section = buffer
            .get(header.header_bytes as usize..header.meta_end())
            .ok_or_else(|| corrupt("the frame is truncated"))?;
        let (header, meta) = head
            .meta(section)
            .map_err(|error| error.into_error(&path(), offset))?;
        if !is_expected(&meta) {
            return Err(corrupt("the frame belongs to another namespace"));
        }
        Ok(PartialFrame {
            header,
            meta,
            buffer,
        })
    }

    /// Returns the open file of a segment. If the file is not open, opens it and checks its header.
    fn segment(&self, id: SegmentId) -> Result<OpenSegment> {
        self.open.get_or_insert_with(&id, || {
            let path = self.path(id);
            let file = open_stored(&*self.fs, &path)?;
            let len = usize::try_from(file_header::HEADER_BYTES).unwrap_or_default();
            let header = read_at(&*file, || path.clone(), 0, len)?;
            let version = file_header::check_header(
                &path,
                &header,
                file_header::SEGMENT,
                id.get(),
                self.store,
            )?;
            Ok(OpenSegment { file, version })
        })
    }

    /// Returns the path of a segment's file, for error messages.
    pub(crate) fn path(&self, segment: SegmentId) -> PathBuf {
        file_header::segment_path(&self.dir, segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::fs::Disk;

    #[test]
    fn read_with_a_forged_length_allocates_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory must be created");
        let path = dir.path().join("short");
        let file = Disk.create(&path).expect("the test file must be created");
        file.write_all_at(b"short", 0)
            .expect("the test file must be written");
        // An allocation of this size would fail and abort the test.
        let read = read_at(&*file, || path.clone(), 2, isize::MAX as usize);
        assert!(matches!(read, Err(Error::Corrupt { offset: 2, .. })));
    }
}
