//! The log: the truth of the store. Frames are appended to one segment, in batches
//! that count as a whole, and a full segment is sealed with a summary.
//!
//! Only the committer holds a [`Log`]. It decides nothing about documents; it knows
//! what is on the disk, what is synced, and what a failure leaves behind.
//!
//! Invariants: a segment is synced before its successor gets a frame; no segment of
//! an earlier life is appended to; after a failed sync nothing is written again.

pub(crate) mod active;
pub(crate) mod directory;
pub(crate) mod failure;
pub(crate) mod manifest_file;
pub(crate) mod reader;
mod removal_gate;
pub(crate) mod scan;
pub(crate) mod summary_file;
pub(crate) mod sync_latency;
mod write_behind;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::manifest::{Manifest, SealedSegment, SegmentRecord};
use crate::format::summary::builder::SummaryBuilder;
use crate::format::summary::entry::SummaryEntry;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::platform::fs::Fs;
use crate::storage::log::active::{ActiveSegment, BatchMark, FrameWrite};
use crate::storage::log::failure::LogFailure;
use crate::storage::log::summary_file::write_summary;
use crate::storage::log::sync_latency::SyncLatency;

/// Frames of one segment, at most. It bounds the memory of a summary (some 7 MiB),
/// and how far the revisions of a crashed life can have come.
pub(crate) const MAX_SEGMENT_FRAMES: usize = 65_536;
/// Revisions that a copy leaves to its original: at a million a second, those of 12 days;
/// and a store can be copied from copy to copy eight million times.
const COPY_GAP: u64 = 1 << 40;
/// Frames of one batch, at most.
pub(crate) const MAX_BATCH_FRAMES: usize = 4096;

/// What a copy of the log consists of.
pub(crate) struct LogImage {
    /// With every segment sealed.
    pub(crate) manifest: Manifest,
    /// The segment that is being written, and the summary that it is sealed with there.
    pub(crate) unsealed: Option<(SegmentId, SummaryBuilder)>,
}

/// The writing end of the log.
pub(crate) struct Log {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    segment_bytes: u64,
    manifest: Manifest,
    active: Option<ActiveSegment>,
    next_revision: u64,
    sync_latency: Arc<SyncLatency>,
}

impl Log {
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        dir: &Path,
        segment_bytes: u64,
        manifest: Manifest,
        mut active: Option<ActiveSegment>,
        next_revision: u64,
    ) -> Self {
        let sync_latency = Arc::<SyncLatency>::default();
        if let Some(active) = &mut active {
            active.set_sync_latency(&sync_latency);
        }
        Self {
            fs,
            dir: dir.to_owned(),
            segment_bytes,
            manifest,
            active,
            next_revision,
            sync_latency,
        }
    }

    /// How long its syncs took.
    pub(crate) fn sync_latency(&self) -> &Arc<SyncLatency> {
        &self.sync_latency
    }

    /// The revision that the next frame gets.
    pub(crate) fn next_revision(&self) -> u64 {
        self.next_revision
    }

    /// Makes room for a batch: sees to it that there is a segment, and that it is not
    /// full, nor was to end already: once its summary is written, no frame may follow.
    pub(crate) fn begin(&mut self) -> Result<(), LogFailure> {
        let fits = self.active.as_ref().is_some_and(|active| {
            !active.is_ended
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

    /// Appends a write to the batch, with the next revision. It counts once
    /// [`Log::flush`] has returned. After an error nothing is left of the batch.
    pub(crate) fn append(
        &mut self,
        frame: &FrameWrite<'_>,
    ) -> Result<(SegmentId, SummaryEntry), LogFailure> {
        let Some(active) = &mut self.active else {
            let error = Error::internal("a batch has a segment");
            return Err(LogFailure::Refused(error));
        };
        match active.append_new(frame, self.next_revision) {
            Ok(entry) => {
                self.next_revision += 1;
                Ok((active.id, entry))
            }
            Err(error) => Err(self.abandon(error)),
        }
    }

    /// Where the batch has come to, all of it handed to the system. After an error
    /// nothing is left of it.
    pub(crate) fn mark(&mut self) -> Result<BatchMark, LogFailure> {
        let Some(active) = &mut self.active else {
            return Ok(BatchMark::default());
        };
        match active.write_gathered() {
            Ok(()) => Ok(active.mark()),
            Err(error) => Err(self.abandon(error)),
        }
    }

    /// Appends a copy of a frame of this revision to the batch. After an error the
    /// batch is to be cut back to where it was.
    pub(crate) fn copy(
        &mut self,
        frame: &FrameWrite<'_>,
        revision: u64,
    ) -> Result<(SegmentId, SummaryEntry)> {
        let active = self.active.as_mut();
        let active = active.ok_or_else(|| Error::internal("a batch has a segment"))?;
        Ok((active.id, active.append(frame, revision)?))
    }

    /// Hands the batch to the system. After an error it is to be cut back.
    pub(crate) fn write(&mut self) -> Result<()> {
        self.active
            .as_mut()
            .map_or(Ok(()), ActiveSegment::write_gathered)
    }

    /// Cuts the batch back to where it was.
    pub(crate) fn cut_back(&mut self, mark: BatchMark) -> Result<(), LogFailure> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        self.next_revision -= active.cut_back(mark)?;
        Ok(())
    }

    /// Ends the batch: everything appended is handed to the system and, if `sync`,
    /// on stable storage with everything before it. `ahead`: whether room may be taken for
    /// what will follow.
    pub(crate) fn flush(&mut self, sync: bool, ahead: bool) -> Result<(), LogFailure> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if let Err(error) = active.write_gathered() {
            return Err(self.abandon(error));
        }
        let batch = active.end_batch();
        if ahead {
            active.prepare();
        }
        if sync {
            return active.sync().inspect_err(|_| active.take_back(&batch));
        }
        active.write_behind(&self.fs);
        Ok(())
    }

    /// Whether all that was flushed is on stable storage.
    pub(crate) fn is_synced(&self) -> bool {
        self.active.as_ref().is_none_or(ActiveSegment::is_synced)
    }

    /// Takes the batch back after a failed write, so that nothing of it is left.
    fn abandon(&mut self, error: Error) -> LogFailure {
        let Some(active) = &mut self.active else {
            return LogFailure::Refused(error);
        };
        let outcome = active.cut_back(active.batch_start());
        // Unsynced, the cut could be undone by a crash, and what was refused be there.
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

    /// What a copy of it consists of now, between two batches. No I/O.
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
        // What was reserved stays so: the original may use it. It goes on as well, and tags
        // that it gives out from here on must not be those of other documents in the copy.
        let reserved = manifest.reserved_revision.max(self.next_revision);
        manifest.reserved_revision = reserved.saturating_add(COPY_GAP);
        LogImage { manifest, unsealed }
    }

    /// Seals the segment, if there is one, and begins the next.
    fn rotate(&mut self) -> Result<(), LogFailure> {
        let mut manifest = self.sealed_manifest()?;
        // An id is spent even where what follows fails, so that a file that could
        // not be removed is in nobody's way.
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
            // Where it is not known which manifest counts, the new one may list it.
            if matches!(failure, LogFailure::Refused(_)) {
                let _ = self.fs.remove(active.path());
            }
        })?;
        self.active = Some(active);
        Ok(())
    }

    /// The segment that is being written.
    pub(crate) fn active(&self) -> Option<SegmentId> {
        self.active.as_ref().map(|active| active.id)
    }

    /// Seals the segment, if there is anything in it, and begins the next.
    pub(crate) fn seal(&mut self) -> Result<(), LogFailure> {
        let holds_frames = |active: &ActiveSegment| active.summary.len() > 0;
        if self.active.as_ref().is_some_and(holds_frames) {
            self.rotate()?;
        }
        Ok(())
    }

    /// Takes a segment, none of whose frames is current, out of the log. Its files may
    /// go afterwards.
    pub(crate) fn retire(&mut self, id: SegmentId) -> Result<(), LogFailure> {
        // What replaced its frames may have been written without a sync.
        if let Some(active) = &mut self.active {
            active.sync()?;
        }
        let mut manifest = self.manifest.clone();
        manifest.segments.retain(|record| record.id != id);
        self.replace_manifest(manifest)
    }

    /// Seals what was written. The next open reads nothing but summaries.
    pub(crate) fn close(&mut self) -> Result<(), LogFailure> {
        let mut manifest = self.sealed_manifest()?;
        manifest.reserved_revision = self.next_revision;
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

    /// The manifest in which the active segment is sealed (or gone, where it holds
    /// nothing), its summary written.
    fn sealed_manifest(&mut self) -> Result<Manifest, LogFailure> {
        let mut manifest = self.manifest.clone();
        let Some(active) = &mut self.active else {
            return Ok(manifest);
        };
        active.finish()?;
        if active.summary.len() == 0 {
            manifest.segments.retain(|record| record.id != active.id);
            return Ok(manifest);
        }
        active.is_ended = true;
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

    fn replace_manifest(&mut self, manifest: Manifest) -> Result<(), LogFailure> {
        manifest_file::stage(&manifest, &*self.fs, &self.dir).map_err(LogFailure::Refused)?;
        // Past this point either manifest may be the one that counts: going on with
        // the old one could append to a segment that the new one calls sealed.
        manifest_file::switch(&*self.fs, &self.dir).map_err(LogFailure::poison)?;
        self.manifest = manifest;
        Ok(())
    }
}
