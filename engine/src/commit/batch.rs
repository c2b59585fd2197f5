//! Writes one batch to the log: first the frames of the queued writes, and then the frames that
//! compaction copies. A write that changes nothing, for example because its precondition is false,
//! does not get a frame. If the log must be synced, one sync covers all frames of the batch.

use crate::commit::change::WriteRequest;
use crate::commit::job::FrameCopy;
use crate::commit::promise::CommitOutcome;
use crate::format::frame::header::FrameKind;
use crate::format::summary::entry::SummaryEntry;
use crate::index::table::{NewestFrame, Table};
use crate::model::config::Durability;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::model::names::{NamespaceHash, NamespaceMap};
use crate::model::revision::Revision;
use crate::storage::log::Log;
use crate::storage::log::active::FrameWrite;
use crate::storage::log::directory::LogDirectory;
use crate::storage::log::failure::LogFailure;

/// The result of writing a batch.
#[derive(Default)]
pub(super) struct WrittenBatch {
    /// The time of the batch's writes, in milliseconds since 1970-01-01 UTC. 0 if no write of the
    /// batch has a frame.
    pub(super) modified_ms: u64,
    /// One decision for each write of the batch, in the order of the writes.
    pub(super) decisions: Vec<WriteDecision>,
    /// The new revision of each namespace that the batch changes, or `None` for a delete. Decisions
    /// on later writes of the batch use this map, because the table is updated only after the batch
    /// is written.
    newest: NamespaceMap<Option<Revision>>,
    /// The frames that were copied for compaction, each with the segment that contains the copy.
    pub(super) copied: Vec<(SegmentId, SummaryEntry)>,
    /// The error that occurred while the copies were written, if any. If writing the copies fails,
    /// the batch contains no copies.
    pub(super) copy_error: Option<Error>,
}

/// The decision on one write.
pub(super) enum WriteDecision {
    /// The write needs no frame. The outcome may depend on earlier writes, so the outcome is
    /// reported only after the batch is committed.
    Resolved(CommitOutcome),
    /// A frame for the write was appended to this segment. The entry describes the frame.
    Appended(SegmentId, SummaryEntry),
}

/// The parts of the engine that are needed to write a batch.
pub(super) struct BatchWriter<'a> {
    pub(super) log: &'a mut Log,
    pub(super) table: &'a Table,
    pub(super) directory: &'a LogDirectory,
    /// True if the active segment may be extended with zeros to preallocate space for later frames.
    /// False if the disk is full, so that the remaining space stays available for deletes and
    /// compaction.
    pub(super) may_preallocate: bool,
}

impl BatchWriter<'_> {
    /// Appends a frame for each write that needs one, and then appends the copies. Syncs the log if
    /// `copies` is not empty, or if a write has [`Durability::Sync`]. The sync is skipped if the
    /// batch has no frames and the log is already synced.
    ///
    /// # Errors
    /// After [`LogFailure::Refused`], the log contains no frame of the batch. After
    /// [`LogFailure::Poisoned`], the content of the log is unknown.
    pub(super) fn write(
        mut self,
        writes: &mut [WriteRequest],
        copies: &[FrameCopy],
    ) -> Result<WrittenBatch, LogFailure> {
        let mut written = WrittenBatch::default();
        let needs_sync = |write: &WriteRequest| write.durability == Durability::Sync;
        let sync = !copies.is_empty() || writes.iter().any(needs_sync);
        let outcome = self
            .append(writes, &mut written)
            .and_then(|()| self.append_copies(copies, &mut written))
            .and_then(|()| {
                let sync = sync && !self.is_already_durable(&written);
                self.log.flush(sync, self.may_preallocate)
            });
        if let Err(failure) = outcome {
            self.log.end_times();
            if matches!(failure, LogFailure::Refused(_)) {
                for blob in writes.iter_mut().filter_map(|write| write.blob.as_mut()) {
                    blob.unkeep();
                }
            }
            return Err(failure);
        }
        Ok(written)
    }

    /// Returns true if the batch needs no sync, because it has no frames and the log is synced.
    fn is_already_durable(&self, written: &WrittenBatch) -> bool {
        let is_resolved = |decision: &WriteDecision| matches!(decision, WriteDecision::Resolved(_));
        self.log.is_synced()
            && written.copied.is_empty()
            && written.decisions.iter().all(is_resolved)
    }

    /// Makes a decision for each write, and appends a frame for each write that needs one.
    fn append(
        &mut self,
        writes: &mut [WriteRequest],
        written: &mut WrittenBatch,
    ) -> Result<(), LogFailure> {
        let mut has_begun = false;
        for write in writes {
            if let Some(outcome) = self.decide(write, written) {
                written.decisions.push(WriteDecision::Resolved(outcome));
                continue;
            }
            if !has_begun {
                self.log.begin_batch()?;
                written.modified_ms = self.log.begin_times();
                has_begun = true;
            }
            // The frame may be on disk even if the append fails, so the blob must not be
            // removed.
            if let Some(blob) = &mut write.blob {
                blob.keep();
            }
            let (segment, entry) = self.log.append(&FrameWrite {
                names: &write.names,
                frame: &write.frame,
                usage: write.usage,
                modified_ms: written.modified_ms,
            })?;
            let revision = Revision::new(entry.revision);
            let newest = (write.frame.kind == FrameKind::Put).then_some(revision);
            written.newest.insert(write.frame.hash, newest);
            written
                .decisions
                .push(WriteDecision::Appended(segment, entry));
        }
        Ok(())
    }

    /// Returns the outcome of a write that needs no frame, or `None` if the write needs a frame.
    fn decide(&self, write: &WriteRequest, written: &WrittenBatch) -> Option<CommitOutcome> {
        let hash = write.frame.hash;
        let current = match written.newest.get(&hash) {
            Some(current) => Ok(*current),
            None => self.current(hash, write),
        };
        match current {
            Err(error) => Some(Err(error)),
            Ok(current) if !write.precondition.holds(current) => {
                Some(Err(Error::PreconditionFailed { current }))
            }
            Ok(None) if write.frame.kind == FrameKind::Delete && !self.is_unreadable(hash) => {
                Some(Ok(None))
            }
            Ok(_) => None,
        }
    }

    /// Appends copies of the frames that are still current. If a copy cannot be appended, all
    /// copies are removed from the batch, and the writes remain in the batch.
    fn append_copies(
        &mut self,
        copies: &[FrameCopy],
        written: &mut WrittenBatch,
    ) -> Result<(), LogFailure> {
        let is_current = |copy: &&FrameCopy| {
            self.table.entry(copy.frame.hash) == Some(copy.from)
                && !written.newest.contains_key(&copy.frame.hash)
        };
        let copies: Vec<&FrameCopy> = copies.iter().filter(is_current).collect();
        if copies.is_empty() {
            return Ok(());
        }
        if written.newest.is_empty() {
            match self.log.begin_batch() {
                Err(LogFailure::Refused(error)) => {
                    written.copy_error = Some(error);
                    return Ok(());
                }
                outcome => outcome?,
            }
        }
        let savepoint = self.log.savepoint()?;
        let appended = copies.iter().try_for_each(|copy| {
            let frame = FrameWrite {
                names: &copy.names,
                frame: &copy.frame,
                usage: copy.usage,
                modified_ms: copy.modified_ms,
            };
            written
                .copied
                .push(self.log.append_copy(&frame, copy.from.revision)?);
            Ok(())
        });
        if let Err(error) = appended.and_then(|()| self.log.write_buffered()) {
            self.log.roll_back_to(savepoint)?;
            written.copied.clear();
            written.copy_error = Some(error);
        }
        Ok(())
    }

    /// Returns the current revision of a namespace, according to the table.
    ///
    /// If the newest frame of the namespace cannot be read, the current revision is unknown. A
    /// write without a precondition replaces the unreadable frame, but a write with a precondition
    /// fails.
    fn current(&self, hash: NamespaceHash, write: &WriteRequest) -> Result<Option<Revision>> {
        match self.table.newest(hash) {
            NewestFrame::Absent => Ok(None),
            NewestFrame::Document(entry) => Ok(Some(Revision::new(entry.revision))),
            NewestFrame::Unreadable { .. } if write.precondition.is_unconditional() => Ok(None),
            NewestFrame::Unreadable { segment, offset } => {
                Err(self.directory.unreadable_frame(segment, offset))
            }
        }
    }

    fn is_unreadable(&self, hash: NamespaceHash) -> bool {
        matches!(self.table.newest(hash), NewestFrame::Unreadable { .. })
    }
}
