//! The log is the authoritative copy of the store: everything except the blobs can be rebuilt from
//! the log. Frames are appended to the active segment in batches. When a segment is full, the log
//! writes a summary of the segment and seals the segment.
//!
//! The only owner of a [`Log`] is the committer. The log tracks how many bytes of the active
//! segment are written, and how many of these bytes are synced. The contents of documents are
//! opaque to the log.
//!
//! Invariants:
//! - A segment is synced before a frame is appended to the next segment.
//! - No frame is appended to a segment from an earlier run of the engine.
//! - After a failed sync of frames, nothing more is written to the log.

pub(crate) mod active;
pub(crate) mod closed_time;
pub(crate) mod directory;
pub(crate) mod failure;
pub(crate) mod first_revision;
pub(crate) mod manifest_file;
pub(crate) mod reader;
mod removal_gate;
pub(crate) mod scan;
pub(crate) mod summary_file;
pub(crate) mod sync_latency;
mod write_behind;
mod write_clock;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::manifest::{MAX_SEGMENT_FRAMES, Manifest, SealedSegment, SegmentRecord};
use crate::format::summary::builder::SummaryBuilder;
use crate::format::summary::entry::SummaryEntry;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::platform::clock::Clock;
use crate::platform::fs::Fs;
use crate::storage::log::active::{ActiveSegment, FrameWrite, Savepoint};
use crate::storage::log::closed_time::ClosedTime;
use crate::storage::log::failure::LogFailure;
use crate::storage::log::summary_file::write_summary;
use crate::storage::log::sync_latency::SyncLatency;
use crate::storage::log::write_clock::WriteClock;

/// Maximum number of frames in a batch.
pub(crate) const MAX_BATCH_FRAMES: usize = 4096;

/// The parts of a copy of the log that cannot be copied from the files on disk.
pub(crate) struct LogImage {
    /// A manifest in which every segment is sealed.
    pub(crate) manifest: Manifest,
    /// The id of the active segment, and the summary that seals it in the copy.
    pub(crate) unsealed: Option<(SegmentId, SummaryBuilder)>,
}

/// The log, opened for appending.
pub(crate) struct Log {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// A segment of at least this length is sealed before the next batch.
    segment_bytes: u64,
    manifest: Manifest,
    active: Option<ActiveSegment>,
    next_revision: u64,
    times: WriteClock,
    sync_latency: Arc<SyncLatency>,
}

/// The state of the log that recovery has determined.
pub(crate) struct LogState {
    pub(crate) manifest: Manifest,
    /// The revision of the next new frame.
    pub(crate) next_revision: u64,
    /// The highest time in the log, in milliseconds since 1970-01-01 UTC.
    pub(crate) highest_modified_ms: u64,
}

impl Log {
    /// Opens the log in `dir` for appending.
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        dir: &Path,
        segment_bytes: u64,
        clock: Arc<dyn Clock>,
        state: LogState,
    ) -> Self {
        Self {
            fs,
            dir: dir.to_owned(),
            segment_bytes,
            manifest: state.manifest,
            active: None,
            next_revision: state.next_revision,
            times: WriteClock::new(clock, state.highest_modified_ms),
            sync_latency: Arc::default(),
        }
    }

    /// Returns the recorded durations of the log's syncs.
    pub(crate) fn sync_latency(&self) -> &Arc<SyncLatency> {
        &self.sync_latency
    }

    /// Returns the reserved revision of the manifest.
    pub(crate) fn reserved_revision(&self) -> u64 {
        self.manifest.reserved_revision
    }

    /// Returns the closed time of the store.
    pub(crate) fn closed_time(&self) -> &Arc<ClosedTime> {
        self.times.closed_time()
    }

    /// Returns the time for the writes of a batch, in milliseconds since 1970-01-01 UTC. The second
    /// of this time is not closed before [`Self::end_times`] is called.
    pub(crate) fn begin_times(&mut self) -> u64 {
        self.times.begin_batch()
    }

    /// Must be called when the writes of a batch have become visible, before they are
    /// acknowledged, or when the batch has failed.
    pub(crate) fn end_times(&self) {
        self.times.end_batch();
    }

    /// Begins a batch. If the active segment is full, first seals it and creates a new segment.
    /// Also seals and replaces the active segment if an earlier, failed attempt to seal it may have
    /// written its summary.
    ///
    /// # Errors
    /// - [`LogFailure::Refused`]: the active segment could not be sealed, or no new segment could
    ///   be created. The frames of the log are unchanged.
    /// - [`LogFailure::Poisoned`]: the state of the disk is unknown.
    pub(crate) fn begin_batch(&mut self) -> Result<(), LogFailure> {
        let fits = self.active.as_ref().is_some_and(|active| {
            !active.is_sealing
                && active.bytes() < self.segment_bytes
                && active.summary.len() + MAX_BATCH_FRAMES <= MAX_SEGMENT_FRAMES
        });
        if !fits {
            self.rotate()?;
        }
        if let Some(active) = &mut self.active {
            active.begin_batch();
        }
        Ok(())
    }

    /// Appends a write with the next revision to the batch. The write is committed once
    /// [`Log::flush`] has returned successfully. [`LogFailure::Refused`] means that the entire
    /// batch has been rolled back.
    pub(crate) fn append(
        &mut self,
        frame: &FrameWrite<'_>,
    ) -> Result<(SegmentId, SummaryEntry), LogFailure> {
        let Some(active) = &mut self.active else {
            let error = Error::internal("a batch must have a segment");
            return Err(LogFailure::Refused(error));
        };
        match active.append_new(frame, self.next_revision) {
            Ok(entry) => {
                self.next_revision += 1;
                Ok((active.id, entry))
            }
            Err(error) => Err(self.roll_back_batch(error)),
        }
    }

    /// Writes the buffered frames to the file and returns the current end of the batch, for
    /// [`Log::roll_back_to`]. [`LogFailure::Refused`] means that the entire batch has been rolled
    /// back.
    pub(crate) fn savepoint(&mut self) -> Result<Savepoint, LogFailure> {
        let Some(active) = &mut self.active else {
            return Ok(Savepoint::default());
        };
        match active.write_buffered() {
            Ok(()) => Ok(active.savepoint()),
            Err(error) => Err(self.roll_back_batch(error)),
        }
    }

    /// Appends a copy of a frame to the batch. The copied frame keeps the revision of the original
    /// frame. After an error, the caller must roll back to a savepoint.
    pub(crate) fn append_copy(
        &mut self,
        frame: &FrameWrite<'_>,
        revision: u64,
    ) -> Result<(SegmentId, SummaryEntry)> {
        let active = self.active.as_mut();
        let active = active.ok_or_else(|| Error::internal("a batch must have a segment"))?;
        Ok((active.id, active.append(frame, revision)?))
    }

    /// Writes the buffered frames of the batch to the file, without a sync. After an error, the
    /// caller must roll back to a savepoint.
    pub(crate) fn write_buffered(&mut self) -> Result<()> {
        self.active
            .as_mut()
            .map_or(Ok(()), ActiveSegment::write_buffered)
    }

    /// Removes everything that was appended to the batch after `savepoint`.
    pub(crate) fn roll_back_to(&mut self, savepoint: Savepoint) -> Result<(), LogFailure> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        self.next_revision -= active.roll_back_to(savepoint)?;
        Ok(())
    }

    /// Ends the batch and writes all of its frames to the file. If `sync` is set, returns only
    /// after all frames of the log, including the batch, are on stable storage. If
    /// `may_preallocate` is set, the file may be extended for later frames. [`LogFailure::Refused`]
    /// means that the entire batch has been rolled back.
    pub(crate) fn flush(&mut self, sync: bool, may_preallocate: bool) -> Result<(), LogFailure> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if let Err(error) = active.write_buffered() {
            return Err(self.roll_back_batch(error));
        }
        let batch = active.end_batch();
        if may_preallocate {
            active.preallocate();
        }
        if sync {
            return active
                .sync()
                .and_then(|()| active.check_path(&*self.fs))
                .inspect_err(|_| active.discard_ended_batch(&batch));
        }
        active.write_behind(&self.fs);
        Ok(())
    }

    /// Syncs the log and appends a mark, so that all frames lie before a watermark. Returns the
    /// segment and the length of the mark, or `None` if the log needs no mark. Must be called
    /// between two batches.
    ///
    /// # Errors
    /// - [`LogFailure::Refused`]: the mark could not be written. The frames of the log are
    ///   unchanged.
    /// - [`LogFailure::Poisoned`]: the state of the disk is unknown.
    pub(crate) fn mark(&mut self) -> Result<Option<(SegmentId, u64)>, LogFailure> {
        let (last_revision, time_ms) = (
            self.next_revision.saturating_sub(1),
            self.times.highest_ms(),
        );
        let Some(active) = self.active.as_mut().filter(|active| active.needs_mark()) else {
            return Ok(None);
        };
        active.sync()?;
        active.begin_batch();
        let bytes = match active.append_mark(last_revision, time_ms) {
            Ok(bytes) => bytes,
            Err(error) => return Err(self.roll_back_batch(error)),
        };
        let id = active.id;
        self.flush(true, false)?;
        Ok(Some((id, bytes)))
    }

    /// Returns true if all committed frames are on stable storage.
    pub(crate) fn is_synced(&self) -> bool {
        self.active.as_ref().is_none_or(ActiveSegment::is_synced)
    }

    /// Rolls back the entire batch after a failed write.
    fn roll_back_batch(&mut self, error: Error) -> LogFailure {
        let Some(active) = &mut self.active else {
            return LogFailure::Refused(error);
        };
        let outcome = active.roll_back_to(active.batch_start());
        // The truncation must be synced. Without the sync, a crash could undo the truncation, and
        // frames of a refused batch would become visible.
        let outcome = outcome.and_then(|revisions| {
            active.force_sync()?;
            self.next_revision -= revisions;
            Ok(())
        });
        match outcome {
            Ok(()) => LogFailure::Refused(error),
            Err(worse) => worse,
        }
    }

    /// Returns the manifest and the summary that a copy of the log in its current state needs. Must
    /// be called between two batches. Does no I/O.
    pub(crate) fn image(&self) -> LogImage {
        let mut manifest = self.manifest.clone();
        let mut unsealed = None;
        if let Some(active) = &self.active {
            let (sealed, summary) = active.image();
            manifest.segments.retain_mut(|record| {
                if record.id != active.id {
                    return true;
                }
                record.sealed = Some(sealed);
                summary.len() > 0
            });
            unsealed = Some((active.id, summary));
        }
        manifest.highest_modified_ms = Some(self.times.highest_ms());
        LogImage { manifest, unsealed }
    }

    /// Seals the active segment, if any, and creates a new one.
    fn rotate(&mut self) -> Result<(), LogFailure> {
        let mut manifest = self.sealed_manifest()?;
        // The segment id is not used again while the store is open, even if a later step fails. If
        // the id were used again after a failure, and the file of the failed segment could not be
        // removed, the next segment would collide with that file.
        let id = manifest
            .take_segment_id(&self.dir)
            .map_err(LogFailure::Refused)?;
        self.manifest.next_segment = manifest.next_segment;
        let mut active = ActiveSegment::create(&*self.fs, &self.dir, id, self.manifest.store)
            .map_err(LogFailure::Refused)?;
        active.set_sync_latency(&self.sync_latency);
        manifest.segments.push(SegmentRecord { id, sealed: None });
        manifest.reserved_revision = self.next_revision + MAX_SEGMENT_FRAMES as u64;
        self.replace_manifest(manifest).inspect_err(|failure| {
            // The file of the new segment is kept after `Poisoned`, because the manifest on the
            // disk may already list the segment.
            if matches!(failure, LogFailure::Refused(_)) {
                let _ = self.fs.remove(active.path());
            }
        })?;
        self.active = Some(active);
        Ok(())
    }

    /// Returns the id of the active segment, if any.
    pub(crate) fn active_segment(&self) -> Option<SegmentId> {
        self.active.as_ref().map(|active| active.id)
    }

    /// Seals the active segment and creates a new one. Does nothing if the active segment has no
    /// frames.
    pub(crate) fn seal(&mut self) -> Result<(), LogFailure> {
        let has_frames = |active: &ActiveSegment| active.summary.len() > 0;
        if self.active.as_ref().is_some_and(has_frames) {
            self.rotate()?;
        }
        Ok(())
    }

    /// Removes a segment from the manifest. The segment must not contain current frames. When this
    /// function returns, the files of the segment are obsolete.
    pub(crate) fn retire(&mut self, id: SegmentId) -> Result<(), LogFailure> {
        // The frames that replaced frames of the removed segment must be on stable storage before
        // the segment is removed.
        if let Some(active) = &mut self.active {
            active.sync()?;
        }
        let mut manifest = self.manifest.clone();
        manifest.segments.retain(|record| record.id != id);
        self.replace_manifest(manifest)
    }

    /// Seals the active segment, or removes it if it is empty. After a successful close, the next
    /// open needs to read only summaries, not frames.
    pub(crate) fn close(&mut self) -> Result<(), LogFailure> {
        let mut manifest = self.sealed_manifest()?;
        if self.active.is_some() {
            manifest.reserved_revision = self.next_revision;
        }
        if manifest != self.manifest {
            self.replace_manifest(manifest)?;
        }
        if let Some(active) = self.active.take()
            && active.summary.len() == 0
        {
            let _ = self.fs.remove(active.path());
        }
        Ok(())
    }

    /// Syncs the active segment, writes its summary, and returns a manifest that lists the segment
    /// as sealed. If the segment is empty, the returned manifest does not list the segment.
    fn sealed_manifest(&mut self) -> Result<Manifest, LogFailure> {
        let mut manifest = self.manifest.clone();
        let Some(active) = &mut self.active else {
            return Ok(manifest);
        };
        manifest.highest_modified_ms = Some(self.times.highest_ms());
        active.finish()?;
        active.check_path(&*self.fs)?;
        if active.summary.len() == 0 {
            manifest.segments.retain(|record| record.id != active.id);
            return Ok(manifest);
        }
        active.is_sealing = true;
        write_summary(
            &*self.fs,
            &self.dir,
            active.id,
            self.manifest.store,
            &active.summary,
            active.bytes(),
        )
        .map_err(LogFailure::Refused)?;
        for record in &mut manifest.segments {
            if record.id == active.id {
                record.sealed = Some(SealedSegment {
                    bytes: active.bytes(),
                    last_revision: active.last_revision(),
                });
            }
        }
        Ok(manifest)
    }

    /// Replaces the manifest durably.
    fn replace_manifest(&mut self, manifest: Manifest) -> Result<(), LogFailure> {
        manifest_file::stage(&manifest, &*self.fs, &self.dir).map_err(LogFailure::Refused)?;
        // If the rename or the sync of the directory fails, it is unknown whether the old or the
        // new manifest is on the disk. After such a failure, writing must stop, because the log
        // could otherwise append to a segment that the new manifest lists as sealed.
        manifest_file::install(&*self.fs, &self.dir).map_err(LogFailure::poison)?;
        self.manifest = manifest;
        Ok(())
    }
}
