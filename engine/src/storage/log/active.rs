//! The segment that is being written: frames gathered into batches, each written at
//! once, and cut back as a whole where it cannot be.
//!
//! It knows its file and what of it is synced; when to begin, to sync and to give up is
//! said by the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::format::file_header;
use crate::format::frame::encoded::EncodedFrame;
use crate::format::frame::header::CommitInfo;
use crate::format::manifest::SealedSegment;
use crate::format::summary::builder::SummaryBuilder;
use crate::format::summary::entry::SummaryEntry;
use crate::model::error::{Error, Result};
use crate::model::ids::{Offset, SegmentId};
use crate::model::limits::Usage;
use crate::model::names::Names;
use crate::platform::aligned::{AlignedBuffer, LARGEST_SHIFT, misalignment};
use crate::platform::fs::{File, Fs};
use crate::storage::log::failure::LogFailure;
use crate::storage::log::sync_latency::SyncLatency;
use crate::storage::log::write_behind::WriteBehind;

/// Frames up to this size are gathered into one write.
const GATHER_BYTES: usize = 256 * 1024;

/// What is written in zeros behind the frames, at most. To sync what lies within a file is
/// to write it; to sync what makes a file longer, or takes a new block for it, is to write
/// the file system's journal as well, which takes about as long again. And what is not
/// synced is written faster to pages that the system has already. More at once makes the
/// sync that it goes with the slower one.
const PREPARED_BYTES: usize = 512 * 1024;
static ZEROS: [u8; PREPARED_BYTES + LARGEST_SHIFT] = [0; PREPARED_BYTES + LARGEST_SHIFT];

/// The segment that is being written.
pub(crate) struct ActiveSegment {
    pub(crate) id: SegmentId,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Where the next batch begins.
    bytes: u64,
    /// Everything before it is on stable storage.
    synced_bytes: u64,
    /// Up to here frames go to where zeros were written before.
    prepared_bytes: u64,
    pub(crate) summary: SummaryBuilder,
    /// Its summary may be on the disk: no frame may follow, whether its successor could be
    /// begun or not.
    pub(super) is_ended: bool,
    last_revision: u64,
    batch: AppendBatch,
    /// The end of the batch, not yet written.
    gathered: AlignedBuffer,
    write_behind: WriteBehind,
    sync_latency: Arc<SyncLatency>,
}

/// What was appended since the last flush.
#[derive(Default)]
pub(super) struct AppendBatch {
    start: BatchMark,
    /// Bytes of it, written or gathered.
    bytes: u64,
    /// Revisions that it took.
    revisions: u64,
}

/// A place in the batch that it can be cut back to.
#[derive(Clone, Copy, Default)]
pub(crate) struct BatchMark {
    bytes: u64,
    revisions: u64,
    last_revision: u64,
    summary_entries: usize,
    details_bytes: usize,
}

/// A frame as it is appended: with names and sizes for the summary, and the time of
/// the write that it is.
pub(crate) struct FrameWrite<'a> {
    pub(crate) names: &'a Names,
    pub(crate) frame: &'a EncodedFrame,
    pub(crate) usage: Usage,
    pub(crate) modified_ms: u64,
}

impl ActiveSegment {
    /// A new segment, its header and its name on stable storage.
    pub(crate) fn create(fs: &dyn Fs, dir: &Path, id: SegmentId, store: u64) -> Result<Self> {
        let path = file_header::path(dir, id);
        let file = fs
            .create(&path)
            .map_err(|error| Error::io("create", &path, error))?;
        let begin = || {
            let header = file_header::encode_header(file_header::KIND, id.get(), store);
            file.write_all_at(&header, 0)
                .map_err(|error| Error::io("write", &path, error))?;
            file.sync()
                .map_err(|error| Error::io("sync", &path, error))?;
            fs.sync_dir(dir)
                .map_err(|error| Error::io("sync", dir, error))
        };
        // On a full disk each write tries again: what it began must not pile up.
        begin().inspect_err(|_| drop(fs.remove(&path)))?;
        Ok(Self {
            id,
            path,
            file,
            bytes: file_header::HEADER_BYTES,
            synced_bytes: file_header::HEADER_BYTES,
            prepared_bytes: file_header::HEADER_BYTES,
            summary: SummaryBuilder::default(),
            is_ended: false,
            last_revision: 0,
            batch: AppendBatch::default(),
            gathered: AlignedBuffer::with_capacity(GATHER_BYTES),
            write_behind: WriteBehind::default(),
            sync_latency: Arc::default(),
        })
    }

    /// Its syncs count there from now on.
    pub(super) fn set_sync_latency(&mut self, times: &Arc<SyncLatency>) {
        self.sync_latency = Arc::clone(times);
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next batch begins.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The highest revision in it.
    pub(crate) fn last_revision(&self) -> u64 {
        self.last_revision
    }

    /// Whether all that was written is on stable storage.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced_bytes == self.bytes
    }

    pub(super) fn begin_batch(&mut self) {
        self.batch.start = self.mark();
        self.gathered = AlignedBuffer::of_this_thread(GATHER_BYTES);
    }

    pub(super) fn batch_start(&self) -> BatchMark {
        self.batch.start
    }

    /// What the batch has written is a part of the segment from now on. What it was.
    pub(super) fn end_batch(&mut self) -> AppendBatch {
        self.bytes += self.batch.bytes;
        std::mem::take(&mut self.gathered).keep_for_this_thread();
        std::mem::take(&mut self.batch)
    }

    /// The batch that was ended last is no part of the segment after all: it could not be
    /// synced. Nothing is written after that, and what is on the disk is not known.
    pub(super) fn take_back(&mut self, batch: &AppendBatch) {
        // It was not even begun: earlier ones, which were acknowledged, were to be synced.
        if batch.bytes == 0 {
            return;
        }
        self.bytes -= batch.bytes;
        self.last_revision = batch.start.last_revision;
        let start = batch.start;
        self.summary
            .truncate(start.summary_entries, start.details_bytes);
    }

    /// What it would be sealed with if it ended with the last batch.
    pub(super) fn image(&self) -> (SealedSegment, SummaryBuilder) {
        let mut summary = self.summary.clone();
        let mut last_revision = self.last_revision;
        // A batch that could not even be cut off, for which writing has stopped.
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

    /// Appends a write to the batch, which takes a revision.
    pub(super) fn append_new(
        &mut self,
        write: &FrameWrite<'_>,
        revision: u64,
    ) -> Result<SummaryEntry> {
        let entry = self.append(write, revision)?;
        self.batch.revisions += 1;
        Ok(entry)
    }

    /// Appends a frame to the batch, as the write of this revision.
    pub(crate) fn append(&mut self, write: &FrameWrite<'_>, revision: u64) -> Result<SummaryEntry> {
        let FrameWrite {
            names,
            frame,
            usage,
            modified_ms,
        } = *write;
        let offset = self.bytes + self.batch.bytes;
        let too_long = || Error::corrupt(&self.path, offset, "the segment is too long");
        let stamp = CommitInfo {
            revision,
            modified_ms,
            unsynced_bytes: u32::try_from(offset - self.synced_bytes).map_err(|_| too_long())?,
        };
        if self.gathered.bytes().is_empty() {
            self.gathered.begin(offset);
        }
        let frame_bytes = frame.encode(stamp, self.gathered.end());
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
        if self.gathered.len() + frame.inline.len() <= GATHER_BYTES {
            self.gathered.end().extend_from_slice(&frame.inline);
            return Ok(entry);
        }
        self.write_gathered_before(frame.inline.len() as u64)?;
        let at = self.bytes + self.batch.bytes - frame.inline.len() as u64;
        self.file
            .write_all_at(&frame.inline, at)
            .map_err(|error| Error::io("write", &self.path, error))?;
        Ok(entry)
    }

    pub(super) fn mark(&self) -> BatchMark {
        BatchMark {
            bytes: self.batch.bytes,
            revisions: self.batch.revisions,
            last_revision: self.last_revision,
            summary_entries: self.summary.len(),
            details_bytes: self.summary.details_bytes(),
        }
    }

    /// Cuts the batch back to where it was; returns how many revisions that gives back.
    pub(super) fn cut_back(&mut self, mark: BatchMark) -> Result<u64, LogFailure> {
        let revisions = self.batch.revisions - mark.revisions;
        self.gathered.begin(self.bytes + mark.bytes);
        self.batch.bytes = mark.bytes;
        self.batch.revisions = mark.revisions;
        self.last_revision = mark.last_revision;
        self.summary
            .truncate(mark.summary_entries, mark.details_bytes);
        let end = self.bytes + mark.bytes;
        self.prepared_bytes = self.prepared_bytes.min(end);
        self.file
            .set_len(end)
            .map_err(|error| LogFailure::poisoned("truncate", &self.path, error))?;
        Ok(revisions)
    }

    pub(super) fn write_gathered(&mut self) -> Result<()> {
        self.write_gathered_before(0)
    }

    /// Writes what was gathered to where it ends `later` bytes before the batch does.
    fn write_gathered_before(&mut self, later: u64) -> Result<()> {
        let end = self.bytes + self.batch.bytes - later;
        if !self.gathered.bytes().is_empty() {
            self.file
                .write_all_at(self.gathered.bytes(), end - self.gathered.len() as u64)
                .map_err(|error| Error::io("write", &self.path, error))?;
            self.gathered.begin(end);
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), LogFailure> {
        if self.synced_bytes == self.bytes {
            return Ok(());
        }
        self.force_sync()
    }

    /// Writes zeros to where the next frames will go, where there are none any more: as
    /// many as the segment is long, so that a short one takes little.
    pub(super) fn prepare(&mut self) {
        if self.is_synced() || self.bytes <= self.prepared_bytes {
            return;
        }
        let ahead = usize::try_from(self.bytes).unwrap_or(PREPARED_BYTES);
        let shift = misalignment(&ZEROS, self.bytes);
        let zeros = ZEROS.get(shift..shift + ahead.min(PREPARED_BYTES));
        let zeros = zeros.unwrap_or_default();
        if self.file.write_all_at(zeros, self.bytes).is_err() {
            // Nothing rests on them, and on a full disk others want the room.
            let _ = self.file.set_len(self.bytes);
        }
        // After an error it is tried again once as much was written.
        self.prepared_bytes = self.bytes + zeros.len() as u64;
    }

    /// Has the disk take up what is not synced, where that is much.
    pub(super) fn write_behind(&mut self, fs: &Arc<dyn Fs>) {
        self.write_behind
            .note(fs, &self.path, self.bytes, self.synced_bytes);
    }

    /// Puts what was written on stable storage, and gives back what was prepared.
    pub(super) fn finish(&mut self) -> Result<(), LogFailure> {
        if self.prepared_bytes <= self.bytes {
            return self.sync();
        }
        // What lies behind the last frame of a sealed segment is not a part of it, if it
        // stays.
        let _ = self.file.set_len(self.bytes);
        self.prepared_bytes = self.bytes;
        self.force_sync()
    }

    pub(super) fn force_sync(&mut self) -> Result<(), LogFailure> {
        let began = Instant::now();
        self.file
            .sync()
            .map_err(|error| LogFailure::poisoned("sync", &self.path, error))?;
        self.sync_latency.add(began.elapsed());
        self.synced_bytes = self.bytes;
        Ok(())
    }

    /// Ends the first batch of a segment that recovery filled.
    pub(crate) fn flush_recovered(&mut self) -> Result<()> {
        self.write_gathered()?;
        self.end_batch();
        self.file
            .sync()
            .map_err(|error| Error::io("sync", &self.path, error))?;
        self.synced_bytes = self.bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::format::frame::header::FrameKind;
    use crate::model::names::NamespaceHash;
    use crate::platform::fs::Disk;

    #[test]
    fn what_is_not_the_end_of_a_batch_is_in_no_image() {
        let dir = tempfile::tempdir().unwrap();
        let mut active = ActiveSegment::create(&Disk, dir.path(), SegmentId::FIRST, 7).unwrap();
        let names = Names::new("user", "client").unwrap();
        let hash = NamespaceHash::of(&[0; 16], "user", "client");
        let frame = EncodedFrame::new(
            FrameKind::Delete,
            hash,
            ("user", "client"),
            &[],
            Bytes::new(),
        );
        let write = FrameWrite {
            names: &names,
            frame: &frame.unwrap(),
            usage: Usage::default(),
            modified_ms: 0,
        };
        let mut images = Vec::new();
        for revision in [5, 6] {
            active.begin_batch();
            active.append_new(&write, revision).unwrap();
            images.push(active.image());
            active.end_batch();
        }
        images.push(active.image());
        let seen = images.iter();
        let seen: Vec<_> = seen.map(|(s, b)| (s.last_revision, b.len())).collect();
        assert_eq!(seen, [(0, 0), (5, 1), (6, 2)]);
        let lengths = images.iter().map(|(sealed, _)| sealed.bytes);
        assert!(lengths.is_sorted_by(|a, b| a < b));
    }
}
