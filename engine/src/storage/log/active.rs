//! The active segment, to which frames are appended in batches. The frames of a batch are buffered.
//! If a write fails, the entire batch can be rolled back.
//!
//! This module writes the file of the segment, and records how many bytes of the file are synced.
//! The parent module `log` decides when to begin a batch, when to sync, and when to stop writing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::format::file_header;
use crate::format::frame::encoded::{self, EncodedFrame};
use crate::format::frame::header::{CommitInfo, EntryKind};
use crate::format::manifest::{MAX_SEGMENT_FRAMES, SealedSegment};
use crate::format::summary::builder::SummaryBuilder;
use crate::format::summary::entry::SummaryEntry;
use crate::model::error::{Error, Result};
use crate::model::ids::{Offset, SegmentId};
use crate::model::limits::Usage;
use crate::model::names::{Names, NamespaceHash};
use crate::platform::aligned::{AlignedBuffer, MAX_ALIGNMENT_PADDING, alignment_padding};
use crate::platform::fs::{File, FileId, Fs};
use crate::storage::io::{check_path, stable_id};
use crate::storage::log::failure::LogFailure;
use crate::storage::log::sync_latency::SyncLatency;
use crate::storage::log::write_behind::WriteBehind;

/// Capacity of the write buffer. A body that does not fit into the buffer is written to the file
/// directly.
const WRITE_BUFFER_BYTES: usize = 256 * 1024;

/// Maximum number of zero bytes that are written after the last frame to preallocate space. Later
/// frames overwrite the zeros.
///
/// If frames have only overwritten existing bytes, a sync waits only for the data. If the file has
/// grown or has new blocks, the sync also waits for the file system's journal, and takes about
/// twice as long. Preallocation also makes unsynced writes faster, because the pages are already in
/// the page cache. With a larger maximum, the sync that writes the zeros would take longer.
const PREALLOCATED_BYTES: usize = 512 * 1024;
static ZEROS: [u8; PREALLOCATED_BYTES + MAX_ALIGNMENT_PADDING] =
    [0; PREALLOCATED_BYTES + MAX_ALIGNMENT_PADDING];

/// The segment that frames are appended to.
pub(crate) struct ActiveSegment {
    pub(crate) id: SegmentId,
    path: PathBuf,
    file: Arc<dyn File>,
    file_id: Option<FileId>,
    /// Offset of the next batch.
    bytes: u64,
    /// Number of bytes at the start of the file that are on stable storage.
    synced_bytes: u64,
    /// Offset of the end of the preallocated zeros.
    preallocated_end: u64,
    pub(crate) summary: SummaryBuilder,
    /// True if the segment's summary may be on the disk. No frame may be appended to a segment
    /// whose summary may be on the disk, even if the next segment could not be created.
    pub(super) is_sealing: bool,
    /// True if the last frame is a mark.
    is_marked: bool,
    last_revision: u64,
    batch: AppendBatch,
    /// The frames of the batch that have not been written to the file yet.
    buffer: AlignedBuffer,
    write_behind: WriteBehind,
    sync_latency: Arc<SyncLatency>,
}

/// The frames that were appended since the last flush.
#[derive(Default)]
pub(super) struct AppendBatch {
    start: Savepoint,
    /// Size of the batch in bytes, including the frames that are still buffered.
    bytes: u64,
    /// Number of revisions that the batch has used.
    revisions: u64,
}

/// A position in the batch to which the batch can be rolled back.
#[derive(Clone, Copy, Default)]
pub(crate) struct Savepoint {
    bytes: u64,
    revisions: u64,
    last_revision: u64,
    summary_entries: usize,
    details_bytes: usize,
}

/// A frame to append, with the names, the sizes and the time that the summary lists.
pub(crate) struct FrameWrite<'a> {
    pub(crate) names: &'a Names,
    pub(crate) frame: &'a EncodedFrame,
    pub(crate) usage: Usage,
    pub(crate) modified_ms: u64,
}

impl ActiveSegment {
    /// Creates an empty segment. When this function returns, the header and the directory entry of
    /// the segment are on stable storage.
    pub(crate) fn create(fs: &dyn Fs, dir: &Path, id: SegmentId, store: u64) -> Result<Self> {
        let path = file_header::segment_path(dir, id);
        let file = fs
            .create(&path)
            .map_err(|error| Error::io("create", &path, error))?;
        let begin = || {
            let header = file_header::encode_header(file_header::SEGMENT, id.get(), store);
            file.write_all_at(&header, 0)
                .map_err(|error| Error::io("write", &path, error))?;
            file.sync()
                .map_err(|error| Error::io("sync", &path, error))?;
            fs.sync_dir(dir)
                .map_err(|error| Error::io("sync", dir, error))
        };
        // If the header cannot be written and synced, the file is removed. On a full disk, each
        // write may try to create a segment, so the files of failed attempts would otherwise
        // accumulate.
        begin().inspect_err(|_| drop(fs.remove(&path)))?;
        Ok(Self {
            id,
            file_id: stable_id(fs, &path, &*file),
            path,
            file,
            bytes: file_header::HEADER_BYTES,
            synced_bytes: file_header::HEADER_BYTES,
            preallocated_end: file_header::HEADER_BYTES,
            summary: SummaryBuilder::default(),
            is_sealing: false,
            is_marked: false,
            last_revision: 0,
            batch: AppendBatch::default(),
            buffer: AlignedBuffer::with_capacity(WRITE_BUFFER_BYTES),
            write_behind: WriteBehind::default(),
            sync_latency: Arc::default(),
        })
    }

    /// Makes later syncs record their durations in `times`.
    pub(super) fn set_sync_latency(&mut self, times: &Arc<SyncLatency>) {
        self.sync_latency = Arc::clone(times);
    }

    /// The path of the segment's file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the offset of the next batch, which is the length of the segment without
    /// preallocated bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The highest revision in the segment.
    pub(crate) fn last_revision(&self) -> u64 {
        self.last_revision
    }

    /// Returns true if all ended batches are on stable storage.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced_bytes == self.bytes
    }

    /// Begins a batch at the current end of the segment.
    pub(super) fn begin_batch(&mut self) {
        self.batch.start = self.savepoint();
        self.buffer = AlignedBuffer::from_thread_cache(WRITE_BUFFER_BYTES);
    }

    /// Returns the savepoint at the start of the batch.
    pub(super) fn batch_start(&self) -> Savepoint {
        self.batch.start
    }

    /// Makes the frames of the batch part of the segment, and returns the batch.
    pub(super) fn end_batch(&mut self) -> AppendBatch {
        self.bytes += self.batch.bytes;
        std::mem::take(&mut self.buffer).into_thread_cache();
        std::mem::take(&mut self.batch)
    }

    /// Removes the batch that has just ended from the state in memory, because the sync of the
    /// batch has failed. It is unknown which bytes of the batch are on the disk, so the log stops
    /// writing.
    pub(super) fn discard_ended_batch(&mut self, batch: &AppendBatch) {
        // A batch without frames only syncs earlier frames. The earlier frames stay in the segment,
        // because their writes were already acknowledged.
        if batch.bytes == 0 {
            return;
        }
        self.bytes -= batch.bytes;
        self.last_revision = batch.start.last_revision;
        let start = batch.start;
        self.summary
            .truncate(start.summary_entries, start.details_bytes);
    }

    /// Returns the manifest entry and the summary that the segment would get if it were sealed
    /// directly after the last completed batch.
    pub(super) fn image(&self) -> (SealedSegment, SummaryBuilder) {
        let mut summary = self.summary.clone();
        let mut last_revision = self.last_revision;
        // This function is called between batches, so a batch is unfinished only if its rollback
        // has failed. The frames of an unfinished batch are not part of the store, and writing has
        // stopped.
        if self.batch.bytes > 0 {
            let start = self.batch.start;
            summary.truncate(start.summary_entries, start.details_bytes);
            last_revision = start.last_revision;
        }
        let sealed = SealedSegment {
            bytes: self.bytes,
            last_revision,
        };
        (sealed, summary)
    }

    /// Appends a frame with a new revision to the batch, and counts the revision as used.
    pub(super) fn append_new(
        &mut self,
        write: &FrameWrite<'_>,
        revision: u64,
    ) -> Result<SummaryEntry> {
        let entry = self.append(write, revision)?;
        self.batch.revisions += 1;
        Ok(entry)
    }

    /// Appends a frame with the given revision to the batch.
    pub(crate) fn append(&mut self, write: &FrameWrite<'_>, revision: u64) -> Result<SummaryEntry> {
        let FrameWrite {
            names,
            frame,
            usage,
            modified_ms,
        } = *write;
        let offset = self.bytes + self.batch.bytes;
        let too_long =
            || Error::corrupt(&self.path, offset, "the segment exceeds its maximum length");
        let commit_info = CommitInfo {
            revision,
            modified_ms,
            unsynced_bytes: u32::try_from(offset - self.synced_bytes).map_err(|_| too_long())?,
        };
        self.is_marked = false;
        if self.buffer.bytes().is_empty() {
            self.buffer.restart_at(offset);
        }
        let frame_bytes = frame.encode(commit_info, self.buffer.tail_mut());
        let entry = SummaryEntry {
            hash: frame.hash,
            revision,
            offset: Offset::new(offset).ok_or_else(too_long)?,
            bytes: u32::try_from(frame_bytes).map_err(|_| too_long())?,
            kind: frame.entry_kind(),
            keys: usage.keys,
        };
        self.batch.bytes += frame_bytes;
        self.summary.push(
            entry,
            &frame.blobs,
            (&names.user, &names.client),
            usage.bytes,
            modified_ms,
        );
        self.last_revision = self.last_revision.max(revision);
        if self.buffer.len() + frame.inline.len() <= WRITE_BUFFER_BYTES {
            self.buffer.tail_mut().extend_from_slice(&frame.inline);
            return Ok(entry);
        }
        self.write_buffered_before(frame.inline.len() as u64)?;
        let at = self.bytes + self.batch.bytes - frame.inline.len() as u64;
        self.file
            .write_all_at(&frame.inline, at)
            .map_err(|error| Error::io("write", &self.path, error))?;
        Ok(entry)
    }

    /// Returns true if frames have been appended since the last mark, and the segment has room for
    /// another mark.
    pub(super) fn needs_mark(&self) -> bool {
        let frames = self.summary.len();
        frames > 0 && frames < MAX_SEGMENT_FRAMES && !self.is_marked && !self.is_sealing
    }

    /// Appends a mark to the batch, and returns its length. All earlier frames must be synced.
    /// `last_revision` is the highest revision that the store has used, and `time_ms` is the
    /// highest time in the log.
    pub(super) fn append_mark(&mut self, last_revision: u64, time_ms: u64) -> Result<u64> {
        debug_assert!(
            self.is_synced(),
            "a mark states that all bytes before it are synced"
        );
        let offset = self.bytes + self.batch.bytes;
        let too_long =
            || Error::corrupt(&self.path, offset, "the segment exceeds its maximum length");
        let commit_info = CommitInfo {
            revision: last_revision,
            modified_ms: time_ms,
            unsynced_bytes: 0,
        };
        self.buffer.restart_at(offset);
        let bytes = encoded::encode_mark(commit_info, self.buffer.tail_mut());
        self.summary.push_without_details(SummaryEntry {
            hash: NamespaceHash::from_bytes([0; NamespaceHash::BYTES]),
            revision: last_revision,
            offset: Offset::new(offset).ok_or_else(too_long)?,
            bytes: u32::try_from(bytes).map_err(|_| too_long())?,
            kind: EntryKind::Mark,
            keys: 0,
        });
        self.batch.bytes += bytes;
        self.is_marked = true;
        Ok(bytes)
    }

    /// Returns a savepoint at the current end of the batch.
    pub(super) fn savepoint(&self) -> Savepoint {
        Savepoint {
            bytes: self.batch.bytes,
            revisions: self.batch.revisions,
            last_revision: self.last_revision,
            summary_entries: self.summary.len(),
            details_bytes: self.summary.details_bytes(),
        }
    }

    /// Removes everything that was appended to the batch after `savepoint`, and truncates the file
    /// accordingly. Returns the number of revisions that can be used again.
    pub(super) fn roll_back_to(&mut self, savepoint: Savepoint) -> Result<u64, LogFailure> {
        let revisions = self.batch.revisions - savepoint.revisions;
        self.buffer.restart_at(self.bytes + savepoint.bytes);
        self.batch.bytes = savepoint.bytes;
        self.batch.revisions = savepoint.revisions;
        self.last_revision = savepoint.last_revision;
        self.is_marked = false;
        self.summary
            .truncate(savepoint.summary_entries, savepoint.details_bytes);
        let end = self.bytes + savepoint.bytes;
        self.preallocated_end = self.preallocated_end.min(end);
        self.file
            .set_len(end)
            .map_err(|error| LogFailure::poisoned("truncate", &self.path, error))?;
        Ok(revisions)
    }

    /// Writes the buffered frames to the file, without a sync.
    pub(super) fn write_buffered(&mut self) -> Result<()> {
        self.write_buffered_before(0)
    }

    /// Writes the buffer to the file. `later` is the number of bytes at the end of the batch that
    /// are not in the buffer, because they are written separately.
    fn write_buffered_before(&mut self, later: u64) -> Result<()> {
        let end = self.bytes + self.batch.bytes - later;
        if !self.buffer.bytes().is_empty() {
            self.file
                .write_all_at(self.buffer.bytes(), end - self.buffer.len() as u64)
                .map_err(|error| Error::io("write", &self.path, error))?;
            self.buffer.restart_at(end);
        }
        Ok(())
    }

    /// Syncs the file, unless all ended batches are already synced.
    pub(super) fn sync(&mut self) -> Result<(), LogFailure> {
        if self.synced_bytes == self.bytes {
            return Ok(());
        }
        self.force_sync()
    }

    /// Writes zeros after the last frame, if frames have overwritten all zeros that were written
    /// earlier. The number of zeros equals the length of the segment, but is at most
    /// [`PREALLOCATED_BYTES`], so that a short segment stays small.
    pub(super) fn preallocate(&mut self) {
        if self.is_synced() || self.bytes <= self.preallocated_end {
            return;
        }
        let ahead = usize::try_from(self.bytes).unwrap_or(PREALLOCATED_BYTES);
        let shift = alignment_padding(&ZEROS, self.bytes);
        let zeros = ZEROS.get(shift..shift + ahead.min(PREALLOCATED_BYTES));
        let zeros = zeros.unwrap_or_default();
        if self.file.write_all_at(zeros, self.bytes).is_err() {
            // Preallocation is optional. If writing the zeros fails, for example on a full disk,
            // the zeros that were written are removed, because the space is needed for other data.
            let _ = self.file.set_len(self.bytes);
        }
        // `preallocated_end` is also set after an error, so that the next attempt is made only
        // after `zeros.len()` more bytes have been written.
        self.preallocated_end = self.bytes + zeros.len() as u64;
    }

    /// Starts a sync of the file in another thread, if many bytes are unsynced.
    pub(super) fn write_behind(&mut self, fs: &Arc<dyn Fs>) {
        self.write_behind
            .start_if_due(fs, &self.path, self.bytes, self.synced_bytes);
    }

    /// Removes the preallocated bytes and syncs the file.
    pub(super) fn finish(&mut self) -> Result<(), LogFailure> {
        if self.preallocated_end <= self.bytes {
            return self.sync();
        }
        // A failed truncation is ignored, because bytes after the last frame of a sealed segment
        // are not part of the segment.
        let _ = self.file.set_len(self.bytes);
        self.preallocated_end = self.bytes;
        self.force_sync()
    }

    /// Syncs the file, and records the duration of the sync.
    pub(super) fn force_sync(&mut self) -> Result<(), LogFailure> {
        let began = Instant::now();
        self.file
            .sync()
            .map_err(|error| LogFailure::poisoned("sync", &self.path, error))?;
        self.sync_latency.record(began.elapsed());
        self.synced_bytes = self.bytes;
        Ok(())
    }

    /// Checks that the path of the segment still refers to the segment. A sync of the segment makes
    /// frames durable only if the next open can find the segment.
    pub(super) fn check_path(&self, fs: &dyn Fs) -> Result<(), LogFailure> {
        check_path(fs, &self.path, self.file_id)
            .map_err(|error| LogFailure::poisoned("find", &self.path, error))
    }

    /// Ends and syncs the batch that recovery has appended to a new segment.
    pub(crate) fn flush_recovered(&mut self) -> Result<()> {
        self.write_buffered()?;
        self.end_batch();
        self.file
            .sync()
            .map_err(|error| Error::io("sync", &self.path, error))?;
        self.synced_bytes = self.bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
