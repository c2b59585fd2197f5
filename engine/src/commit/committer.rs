//! The committer writes queued writes to the log in batches, updates the table, and acknowledges
//! the writes.
//!
//! The committer does not delay a batch to collect more writes. Writes that arrive during a sync
//! share the next sync.
//!
//! In a batch, the frames of the writes precede the frames that compaction copies. If the copies
//! cannot be written, the writes are still committed.
//!
//! **Architecture Invariant:** a write with [`Durability::Sync`] becomes visible and is
//! acknowledged only after its frame and all earlier frames are synced.
//!
//! [`Durability::Sync`]: crate::Durability::Sync

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::catalogue::marker::CatalogueIdentity;
use crate::catalogue::row::CatalogueValue;
use crate::commit::batch::{BatchWriter, WriteDecision, WrittenBatch};
use crate::commit::change::WriteRequest;
use crate::commit::core::Core;
use crate::commit::job::{CommitJob, FrameCopy, JobTask, MAX_COPIED_FRAMES, SnapshotPoint};
use crate::commit::promise::Acknowledgement;
use crate::commit::queue::{QueuedWork, QueuedWrite};
use crate::commit::segment_jobs;
use crate::format::frame::header::FrameKind;
use crate::format::location::FrameLocation;
use crate::format::summary::entry::SummaryEntry;
use crate::model::error::{Error, Result};
use crate::model::ids::{BlobId, SegmentId};
use crate::model::names::NamespaceHash;
use crate::model::revision::Revision;
use crate::storage::commit_leader::CommitLeader;
use crate::storage::log::failure::LogFailure;
use crate::storage::log::{Log, MAX_BATCH_FRAMES};
use crate::storage::reserve::Reserve;

/// Maximum total size of the queued writes in one batch, in bytes. The limit bounds how long a
/// writer waits while the data of other writers is written to the log. A frame that is larger than
/// the limit is committed in a batch without other queued writes.
const MAX_BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// Maximum number of queued writes in one batch. The limit on queued writes leaves room in the
/// batch for the frames that compaction copies, and for the unqueued write of the thread that
/// commits the batch.
const MAX_QUEUED_WRITES: usize = MAX_BATCH_FRAMES - MAX_COPIED_FRAMES - 1;

/// Writes batches to the log, makes the writes visible, and acknowledges the writes.
pub(crate) struct Committer {
    leader: CommitLeader,
    core: Arc<Core>,
    log: Log,
    reserve: Reserve,
    /// Changes of blob references that are not synced yet: the namespace and the blobs of each
    /// frame, in the order of the frames. The blobs of a replaced frame may be removed only after
    /// the frame that replaces it is synced.
    unsynced_blobs: Vec<(NamespaceHash, Vec<BlobId>)>,
    /// True if the catalogue's pending changes exceed their budget, so that the committer must wait
    /// for the catalogue before the next batch.
    is_catalogue_full: bool,
    /// An empty batch, whose memory is reused for the next batch.
    work: QueuedWork,
    /// The acknowledgements of the writes in the current batch, in the order of the writes. A panic
    /// would drop a local variable, and a writer would then see the failure before writing has
    /// stopped.
    acknowledgements: VecDeque<Acknowledgement>,
}

impl Committer {
    pub(crate) fn new(core: Arc<Core>, log: Log, reserve: Reserve) -> Self {
        Self {
            leader: CommitLeader::new(),
            core,
            log,
            reserve,
            unsynced_blobs: Vec::new(),
            is_catalogue_full: false,
            work: QueuedWork::default(),
            acknowledgements: VecDeque::new(),
        }
    }

    /// Commits one batch from the queue, and returns the number of writes in the batch. Returns
    /// `None` if the queue was empty.
    pub(super) fn commit_queued(&mut self) -> Option<usize> {
        let work = self.take_queued();
        if work.is_empty() {
            self.work = work;
            return None;
        }
        Some(self.commit_work(work))
    }

    /// Commits a batch that contains only the write `own`. Returns 1, the number of writes in the
    /// batch. The queue must be empty.
    pub(super) fn commit_alone(&mut self, own: QueuedWrite) -> usize {
        self.commit(std::iter::once(own), None);
        self.finish_batch();
        1
    }

    /// Commits all queued writes and then `own`, and returns the number of writes in the last
    /// batch.
    pub(super) fn commit_after_queued(&mut self, own: QueuedWrite) -> usize {
        let mut work = self.take_queued();
        // The queue is committed before `own`, because the calling thread may have queued an
        // earlier write.
        while !work.is_queue_drained {
            self.commit_work(work);
            work = self.take_queued();
        }
        work.writes.push(own);
        self.commit_work(work)
    }

    fn take_queued(&mut self) -> QueuedWork {
        let mut work = std::mem::take(&mut self.work);
        let queue = &self.core.queue;
        queue.take_batch(&mut work, MAX_BATCH_BYTES, MAX_QUEUED_WRITES);
        work
    }

    fn commit_work(&mut self, mut work: QueuedWork) -> usize {
        let writes = work.writes.len();
        if writes > 0 || work.job.is_some() {
            self.commit(work.writes.drain(..), work.job.take());
        }
        for request in work.snapshots.drain(..) {
            // If the receiver no longer exists, the snapshot point and its pin are dropped.
            let _ = request.send(self.snapshot_point());
        }
        self.work = work;
        self.finish_batch();
        writes
    }

    fn finish_batch(&mut self) {
        let has_reserve = self.reserve.is_available();
        // The flag is written only if its value changes, because each write to the flag invalidates
        // the cache line that other threads read.
        if self.core.has_reserve.load(Ordering::Relaxed) != has_reserve {
            self.core.has_reserve.store(has_reserve, Ordering::Relaxed);
        }
        if std::mem::take(&mut self.is_catalogue_full) {
            self.core.catalogue.wait_for_room();
        }
    }

    /// Commits one batch, and then executes the job, if any.
    fn commit(&mut self, queued: impl Iterator<Item = QueuedWrite>, job: Option<CommitJob>) {
        let mut writes = Vec::with_capacity(queued.size_hint().0);
        for queued in queued {
            writes.push(queued.write);
            self.acknowledgements.push_back(queued.acknowledgement);
        }
        if let Some(poison) = self.core.poison() {
            self.reject_all(&poison);
            if let Some(job) = job {
                let _ = job.done.send(Err(poison));
            }
            return;
        }
        if !self.reserve.is_available() {
            self.refill_reserve(&mut writes);
        }
        let copies = match &job {
            Some(CommitJob {
                task: JobTask::Copy(copies),
                ..
            }) => &**copies,
            _ => &[],
        };
        let outcome = match self.write(&mut writes, copies) {
            Ok(written) => {
                let outcome = written.copy_error.clone().map_or(Ok(()), Err);
                self.publish(writes, written);
                outcome
            }
            Err(error) => {
                if matches!(error, Error::StorageFull { .. }) {
                    self.reject_puts(&mut writes, &error);
                    self.commit_deletes(writes);
                } else {
                    self.reject_all(&error);
                }
                Err(error)
            }
        };
        if let Some(job) = job {
            self.finish_job(&job, outcome);
        }
    }

    /// Refills the reserve if the batch contains puts. If the disk is full, the puts are rejected,
    /// so that they cannot use the space that deletes and compaction need.
    fn refill_reserve(&mut self, writes: &mut Vec<WriteRequest>) {
        if !writes
            .iter()
            .any(|write| write.frame.kind == FrameKind::Put)
        {
            return;
        }
        if let Err(error) = self.reserve.fill() {
            let error = Error::io("write", self.reserve.path(), error);
            if matches!(error, Error::StorageFull { .. }) {
                self.reject_puts(writes, &error);
            }
        }
    }

    /// Removes the puts from a batch, and rejects them with `error`. The deletes remain in the
    /// batch.
    fn reject_puts(&mut self, writes: &mut Vec<WriteRequest>, error: &Error) {
        let (puts, deletes): (Vec<_>, Vec<_>) = std::mem::take(writes)
            .into_iter()
            .zip(self.acknowledgements.drain(..))
            .partition(|(write, _)| write.frame.kind == FrameKind::Put);
        (*writes, self.acknowledgements) = deletes.into_iter().unzip();
        for (_, acknowledgement) in puts {
            acknowledgement.resolve(Err(error.clone()));
        }
        // The disk is full, so compaction must start immediately.
        self.core.compaction_wakeup.notify();
    }

    /// Commits deletes on a full disk. Releases as much of the reserve as the deletes need.
    fn commit_deletes(&mut self, mut writes: Vec<WriteRequest>) {
        match self.with_reserve(|committer| committer.write(&mut writes, &[])) {
            Ok(written) => self.publish(writes, written),
            Err(error) => self.reject_all(&error),
        }
    }

    /// Rejects all writes of the batch that are not resolved yet.
    fn reject_all(&mut self, error: &Error) {
        while let Some(acknowledgement) = self.acknowledgements.pop_front() {
            acknowledgement.resolve(Err(error.clone()));
        }
    }

    /// Drops the acknowledgements of the current batch, after the leader has panicked and writing
    /// has stopped. Their writers get [`Error::Poisoned`].
    pub(super) fn abandon_batch(&mut self) {
        self.acknowledgements.clear();
    }

    /// Makes a written batch visible to readers and listings, and acknowledges its writes.
    fn publish(&mut self, writes: Vec<WriteRequest>, written: WrittenBatch) {
        self.update_table(&written);
        self.log.end_times();
        let recorded = written.decisions.iter().zip(&writes);
        self.is_catalogue_full |=
            self.core
                .catalogue
                .record(recorded.filter_map(|(decision, write)| match decision {
                    WriteDecision::Appended(_, entry) => {
                        let value = CatalogueValue {
                            revision: entry.revision,
                            modified_ms: written.modified_ms,
                            usage: write.usage,
                        };
                        Some((
                            &write.names,
                            entry.revision,
                            (write.frame.kind == FrameKind::Put).then_some(value),
                        ))
                    }
                    WriteDecision::Resolved(_) => None,
                }));
        for (decision, write) in written.decisions.into_iter().zip(writes) {
            let outcome = match decision {
                WriteDecision::Resolved(outcome) => outcome,
                WriteDecision::Appended(_, entry) => {
                    let blobs = &self.core.write_context.blobs;
                    // While `unsynced_blobs` is not empty, every frame is added to it, because the
                    // frame may replace a frame that is already listed there.
                    if !self.unsynced_blobs.is_empty()
                        || blobs.would_change(&self.leader, entry.hash, &write.frame.blobs)
                    {
                        self.unsynced_blobs.push((entry.hash, write.frame.blobs));
                    }
                    let revision = Revision::new(entry.revision);
                    Ok((write.frame.kind == FrameKind::Put).then_some(revision))
                }
            };
            if let Some(acknowledgement) = self.acknowledgements.pop_front() {
                acknowledgement.resolve(outcome);
            }
        }
        self.release_replaced_blobs();
    }

    /// Marks replaced blobs as obsolete, if the log is synced.
    fn release_replaced_blobs(&mut self) {
        if self.log.is_synced() {
            for (hash, blobs) in self.unsynced_blobs.drain(..) {
                let store = &self.core.write_context.blobs;
                store.set_references(&self.leader, hash, &blobs);
            }
        }
    }

    /// Makes the written frames current in the table, and updates the accounting of the segments.
    /// Wakes the compaction thread if segments may need to be rewritten.
    fn update_table(&self, written: &WrittenBatch) {
        let appended = written
            .decisions
            .iter()
            .filter_map(|decision| match decision {
                WriteDecision::Appended(segment, entry) => Some((*segment, entry)),
                WriteDecision::Resolved(_) => None,
            });
        let copied = written
            .copied
            .iter()
            .map(|(segment, entry)| (*segment, entry));
        self.count_frames(appended.clone(), &written.copied);
        let mut segments = self.core.accounting.lock();
        let active_before = segments.active();
        for (segment, entry) in appended.chain(copied) {
            let current = FrameLocation::at(segment, entry);
            segments.appended(&current);
            if let Some(replaced) = self.core.table.advance(entry.hash, current) {
                segments.superseded(&replaced);
            }
        }
        let has_rotated = segments.active() != active_before;
        let is_due = segments.newly_stale_bytes() > self.core.segment_bytes / 8;
        if has_rotated || is_due || !self.reserve.is_available() {
            segments.reset_newly_stale();
            drop(segments);
            self.core.compaction_wakeup.notify();
        }
    }

    /// Adds the frames of a batch to the metrics.
    fn count_frames<'a>(
        &self,
        appended: impl Iterator<Item = (SegmentId, &'a SummaryEntry)>,
        copied: &[(SegmentId, SummaryEntry)],
    ) {
        let add =
            |(frames, bytes), entry: &SummaryEntry| (frames + 1, bytes + u64::from(entry.bytes));
        let (writes, bytes) = appended.fold((0, 0), |sum, (_, entry)| add(sum, entry));
        self.core.counters.committed(&self.leader, writes, bytes);
        let (frames, bytes) = copied
            .iter()
            .fold((0, 0), |sum, (_, entry)| add(sum, entry));
        self.core.counters.copied(&self.leader, frames, bytes);
    }

    /// Writes one batch to the log, and syncs the log if necessary.
    fn write(&mut self, writes: &mut [WriteRequest], copies: &[FrameCopy]) -> Result<WrittenBatch> {
        let batch = BatchWriter {
            table: &self.core.table,
            directory: &self.core.directory,
            may_preallocate: self.reserve.is_available(),
            log: &mut self.log,
        };
        let written = batch.write(writes, copies);
        self.or_poison(written)
    }

    /// Converts a log failure into an engine error. After [`LogFailure::Poisoned`], the content of
    /// the disk is unknown, so this function also makes all later writes fail until the store is
    /// opened again.
    fn or_poison<T>(&self, outcome: Result<T, LogFailure>) -> Result<T> {
        outcome.map_err(|failure| {
            if let LogFailure::Poisoned(error) = &failure {
                self.core.set_poison(error.clone());
            }
            failure.into_error()
        })
    }

    /// Executes a job after the batch is committed, and sends the outcome to the caller. For a
    /// [`JobTask::Copy`], the copies were part of the batch, and `copy_outcome` is their outcome.
    fn finish_job(&mut self, job: &CommitJob, copy_outcome: Result<()>) {
        let mut outcome = match (&job.task, self.core.poison()) {
            // The sync of this batch may have failed. After a failed sync, no file may be written
            // or removed.
            (_, Some(error)) => Err(error),
            (JobTask::Copy(_), None) => copy_outcome,
            (task, None) => self.run_task(task),
        };
        if matches!(outcome, Err(Error::StorageFull { .. })) && job.may_use_reserve {
            outcome = self.with_reserve(|committer| committer.run_task(&job.task));
        }
        // A failure of `send` means that nobody waits for the outcome, and is ignored.
        let _ = job.done.send(outcome);
    }

    fn run_task(&mut self, task: &JobTask) -> Result<()> {
        match task {
            JobTask::Copy(copies) => {
                let written = self.write(&mut [], copies)?;
                let outcome = written.copy_error.clone().map_or(Ok(()), Err);
                self.publish(Vec::new(), written);
                outcome
            }
            JobTask::Retire { segment, deletes } => {
                let retired = segment_jobs::retire(&self.core, &mut self.log, *segment, deletes);
                self.or_poison(retired)
            }
            JobTask::Seal => {
                let sealed = segment_jobs::seal(&self.core.accounting, &mut self.log);
                self.or_poison(sealed)?;
                self.release_replaced_blobs();
                Ok(())
            }
        }
    }

    /// Appends a mark to the log, if the log needs one. A mark is optional, so nothing is written
    /// after a failure has stopped all writes, or if the disk is full.
    pub(super) fn mark(&mut self) {
        if self.core.poison().is_some() || !self.reserve.is_available() {
            return;
        }
        let marked = self.log.mark();
        if let Ok(Some((segment, bytes))) = self.or_poison(marked) {
            self.core.accounting.lock().marked(segment, bytes);
            self.core.counters.mark_written(&self.leader);
        }
        self.release_replaced_blobs();
    }

    /// Returns the state of the store between two batches, and pins the files of this state. No
    /// file of this state can become obsolete before it is pinned, because only the commit leader,
    /// which is the calling thread, removes segments and referenced blobs from the store.
    fn snapshot_point(&self) -> SnapshotPoint {
        let image = self.log.image();
        let blobs = self
            .core
            .write_context
            .blobs
            .referenced_ids_with(&self.unsynced_blobs);
        let segments = image.manifest.segments.iter();
        let segments = segments.map(|record| record.id).collect();
        let sum = self.core.accounting.lock().sum();
        SnapshotPoint {
            documents: sum.documents.into(),
            damaged_frames: sum.damaged.into(),
            pin: self.core.pins.pin(segments, blobs.clone()),
            image,
            blobs,
        }
    }

    /// Repeats `attempt` while the disk is full, and before each repetition releases a part of the
    /// reserve. Then reclaims the inodes that `attempt` did not need, so that other programs cannot
    /// use them.
    fn with_reserve<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let mut outcome = attempt(self);
        let mut has_released = false;
        while matches!(outcome, Err(Error::StorageFull { .. })) && self.reserve.release() {
            has_released = true;
            outcome = attempt(self);
        }
        if has_released {
            self.reserve.reclaim_inodes();
        }
        outcome
    }

    /// Seals the log, if necessary with the reserve, and closes the catalogue. If the log was
    /// sealed, the catalogue records the log's next revision, so that the next open need not
    /// rebuild the catalogue.
    ///
    /// # Errors
    /// The error that stopped writing earlier, or the error of sealing the log.
    pub(super) fn close(&mut self) -> Result<()> {
        let outcome = match self.core.poison() {
            // Nothing was written, so nothing needs to be sealed.
            Some(Error::ReadOnly { .. }) => Ok(()),
            Some(poison) => Err(poison),
            None => {
                self.with_reserve(|committer| committer.log.close().map_err(LogFailure::into_error))
            }
        };
        // A catalogue that may be incomplete must not be used after the next open. If the damage were
        // gone by then, nothing would show that documents are missing.
        let is_clean = outcome.is_ok() && self.core.check_listable().is_ok();
        let clean = is_clean.then(|| CatalogueIdentity {
            store: self.core.directory.store,
            reserved_revision: self.log.reserved_revision(),
        });
        self.core.catalogue.close(clean);
        for (hash, blobs) in self.unsynced_blobs.drain(..) {
            if outcome.is_ok() {
                let store = &self.core.write_context.blobs;
                store.set_references(&self.leader, hash, &blobs);
            }
        }
        outcome
    }
}
