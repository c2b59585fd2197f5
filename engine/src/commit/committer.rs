//! The committer: takes everything that waits, writes it as one batch, publishes it and
//! acknowledges it.
//!
//! There is no timer: a lone writer pays for one sync, and what arrives during a sync
//! shares the next. Copies of compaction go behind the writes of a batch. If they cannot
//! be written, the writes still are.
//!
//! **Architecture Invariant:** nothing is visible or acknowledged before what it rests on
//! is synced.

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
use crate::storage::log::failure::LogFailure;
use crate::storage::log::{Log, MAX_BATCH_FRAMES};
use crate::storage::reserve::Reserve;

/// Bytes of one batch, at most, one frame excepted: what a writer may have to wait
/// for besides the sync.
const MAX_BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// Writes that a batch takes from the queue, at most: that of a writer who commits by
/// itself must fit too.
const MAX_TAKEN_REQUESTS: usize = MAX_BATCH_FRAMES - MAX_COPIED_FRAMES - 1;

pub(crate) struct Committer {
    core: Arc<Core>,
    log: Log,
    reserve: Reserve,
    /// Blobs that published frames name, or their namespaces did before: what was
    /// replaced may go only once they are synced.
    unsynced_names: Vec<(NamespaceHash, Vec<BlobId>)>,
    /// Whether to wait for it before the next batch.
    catalogue_is_full: bool,
    /// Between two batches empty, and kept for its memory.
    work: QueuedWork,
}

impl Committer {
    pub(crate) fn new(core: Arc<Core>, log: Log, reserve: Reserve) -> Self {
        Self {
            core,
            log,
            reserve,
            unsynced_names: Vec::new(),
            catalogue_is_full: false,
            work: QueuedWork::default(),
        }
    }

    /// Commits one batch of what waits. How many writes it was; `None` where nothing
    /// waited.
    pub(super) fn step(&mut self) -> Option<usize> {
        let work = self.take();
        if work.is_empty() {
            self.work = work;
            return None;
        }
        Some(self.commit_work(work))
    }

    /// Commits `own`, where nothing waits.
    pub(super) fn step_alone(&mut self, own: QueuedWrite) -> usize {
        self.commit(std::iter::once(own), None);
        self.end_step();
        1
    }

    /// Commits `own`, in one batch with what waits before it. How many writes that was.
    pub(super) fn step_with(&mut self, own: QueuedWrite) -> usize {
        let mut work = self.take();
        // In the order in which they came: one thread may have queued both.
        while !work.is_all {
            self.commit_work(work);
            work = self.take();
        }
        work.requests.push(own);
        self.commit_work(work)
    }

    fn take(&mut self) -> QueuedWork {
        let mut work = std::mem::take(&mut self.work);
        let queue = &self.core.queue;
        queue.take(&mut work, MAX_BATCH_BYTES, MAX_TAKEN_REQUESTS);
        work
    }

    fn commit_work(&mut self, mut work: QueuedWork) -> usize {
        let writes = work.requests.len();
        if writes > 0 || work.job.is_some() {
            self.commit(work.requests.drain(..), work.job.take());
        }
        for request in work.snapshots.drain(..) {
            // Who asked may have stopped waiting: it is let go of again.
            let _ = request.send(self.snapshot_point());
        }
        self.work = work;
        self.end_step();
        writes
    }

    fn end_step(&mut self) {
        let has_reserve = self.reserve.is_available();
        // Others read it: it is not written needlessly.
        if self.core.has_reserve.load(Ordering::Relaxed) != has_reserve {
            self.core.has_reserve.store(has_reserve, Ordering::Relaxed);
        }
        if std::mem::take(&mut self.catalogue_is_full) {
            self.core.catalogue.wait_for_room();
        }
    }

    fn commit(&mut self, requests: impl Iterator<Item = QueuedWrite>, job: Option<CommitJob>) {
        let (mut writes, mut acknowledgements): (Vec<_>, Vec<_>) = requests
            .map(|request| (request.write, request.acknowledgement))
            .unzip();
        if let Some(poison) = self.core.poison() {
            refuse(acknowledgements, &poison);
            if let Some(job) = job {
                let _ = job.done.send(Err(poison));
            }
            return;
        }
        if !self.reserve.is_available() {
            self.fill_reserve(&mut writes, &mut acknowledgements);
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
                let outcome = written.copies_refused.clone().map_or(Ok(()), Err);
                self.publish(writes, written, acknowledgements);
                outcome
            }
            Err(error) => {
                if matches!(error, Error::StorageFull { .. }) {
                    self.refuse_puts(&mut writes, &mut acknowledgements, &error);
                    self.commit_deletes(writes, acknowledgements);
                } else {
                    refuse(acknowledgements, &error);
                }
                Err(error)
            }
        };
        if let Some(job) = job {
            self.finish_job(&job, outcome);
        }
    }

    /// Space for deletes and compaction comes first: without it, puts are refused.
    fn fill_reserve(
        &mut self,
        writes: &mut Vec<WriteRequest>,
        acknowledgements: &mut Vec<Acknowledgement>,
    ) {
        if !writes
            .iter()
            .any(|write| write.frame.kind == FrameKind::Put)
        {
            return;
        }
        if let Err(error) = self.reserve.fill() {
            let error = Error::io("write", self.reserve.path(), error);
            if matches!(error, Error::StorageFull { .. }) {
                self.refuse_puts(writes, acknowledgements, &error);
            }
        }
    }

    /// Answers the puts of a batch with an error, and leaves the deletes.
    fn refuse_puts(
        &mut self,
        writes: &mut Vec<WriteRequest>,
        acknowledgements: &mut Vec<Acknowledgement>,
        error: &Error,
    ) {
        let (puts, deletes): (Vec<_>, Vec<_>) = std::mem::take(writes)
            .into_iter()
            .zip(acknowledgements.drain(..))
            .partition(|(write, _)| write.frame.kind == FrameKind::Put);
        refuse(
            puts.into_iter().map(|(_, acknowledgement)| acknowledgement),
            error,
        );
        (*writes, *acknowledgements) = deletes.into_iter().unzip();
        // Whatever can be given back is wanted now.
        self.core.compaction_wakeup.notify();
    }

    /// Commits deletes on a full disk, in the space that is kept for them.
    fn commit_deletes(
        &mut self,
        mut writes: Vec<WriteRequest>,
        acknowledgements: Vec<Acknowledgement>,
    ) {
        let mut outcome = self.write(&mut writes, &[]);
        if matches!(outcome, Err(Error::StorageFull { .. })) && self.reserve.release() {
            outcome = self.write(&mut writes, &[]);
        }
        match outcome {
            Ok(written) => self.publish(writes, written, acknowledgements),
            Err(error) => refuse(acknowledgements, &error),
        }
    }

    /// Makes a written batch visible, and answers it.
    fn publish(
        &mut self,
        writes: Vec<WriteRequest>,
        written: WrittenBatch,
        acknowledgements: Vec<Acknowledgement>,
    ) {
        self.advance(&written);
        let recorded = written.decisions.iter().zip(&writes);
        self.catalogue_is_full |=
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
                    WriteDecision::Answer(_) => None,
                }));
        let answered = writes.into_iter().zip(acknowledgements);
        for (decision, (write, acknowledgement)) in written.decisions.into_iter().zip(answered) {
            match decision {
                WriteDecision::Answer(outcome) => acknowledgement.resolve(outcome),
                WriteDecision::Appended(_, entry) => {
                    let revision = Revision::new(entry.revision);
                    let outcome = (write.frame.kind == FrameKind::Put).then_some(revision);
                    let blobs = &self.core.write_context.blobs;
                    // Behind one that is still to be named, it may concern that.
                    if !self.unsynced_names.is_empty()
                        || blobs.would_change(entry.hash, &write.frame.blobs)
                    {
                        self.unsynced_names.push((entry.hash, write.frame.blobs));
                    }
                    acknowledgement.resolve(Ok(outcome));
                }
            }
        }
        self.name_synced();
    }

    /// Lets go of the blobs that were replaced, once what replaced them is synced.
    fn name_synced(&mut self) {
        if self.log.is_synced() {
            for (hash, blobs) in self.unsynced_names.drain(..) {
                self.core.write_context.blobs.set_references(hash, &blobs);
            }
        }
    }

    /// Has the table point to what was written, and counts what that replaced.
    fn advance(&self, written: &WrittenBatch) {
        let appended = written
            .decisions
            .iter()
            .filter_map(|decision| match decision {
                WriteDecision::Appended(segment, entry) => Some((*segment, entry)),
                WriteDecision::Answer(_) => None,
            });
        let copied = written
            .copied
            .iter()
            .map(|(segment, entry)| (*segment, entry));
        self.count(appended.clone(), &written.copied);
        let mut segments = self.core.accounting.lock();
        let began = segments.active();
        for (segment, entry) in appended.chain(copied) {
            let current = FrameLocation::at(segment, entry);
            segments.appended(&current);
            if let Some(replaced) = self.core.table.advance(entry.hash, current) {
                segments.superseded(&replaced);
            }
        }
        let has_rotated = segments.active() != began;
        let is_due = segments.newly_stale_bytes() > self.core.segment_bytes / 8;
        if has_rotated || is_due || !self.reserve.is_available() {
            segments.reset_newly_stale();
            drop(segments);
            self.core.compaction_wakeup.notify();
        }
    }

    fn count<'a>(
        &self,
        appended: impl Iterator<Item = (SegmentId, &'a SummaryEntry)>,
        copied: &[(SegmentId, SummaryEntry)],
    ) {
        let add =
            |(frames, bytes), entry: &SummaryEntry| (frames + 1, bytes + u64::from(entry.bytes));
        let (writes, bytes) = appended.fold((0, 0), |sum, (_, entry)| add(sum, entry));
        self.core.counters.committed(writes, bytes);
        let (frames, bytes) = copied
            .iter()
            .fold((0, 0), |sum, (_, entry)| add(sum, entry));
        self.core.counters.copied(frames, bytes);
    }

    /// Writes one batch.
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

    /// Stops writing for good if it is not known what is on the disk.
    fn or_poison<T>(&self, outcome: Result<T, LogFailure>) -> Result<T> {
        outcome.map_err(|failure| {
            if let LogFailure::Poisoned(error) = &failure {
                self.core.set_poison(error.clone());
            }
            failure.into_error()
        })
    }

    /// Carries out a job. The copies of a [`JobTask::Copy`] went with the batch, with this
    /// outcome.
    fn finish_job(&mut self, job: &CommitJob, outcome_of_copies: Result<()>) {
        let mut outcome = match (&job.task, self.core.poison()) {
            // After a failed sync no file may be written or removed, and the writes of the
            // same batch may have found that.
            (_, Some(error)) => Err(error),
            (JobTask::Copy(_), None) => outcome_of_copies,
            (task, None) => self.run_task(task),
        };
        if matches!(outcome, Err(Error::StorageFull { .. }))
            && job.may_use_reserve
            && self.reserve.release()
        {
            outcome = self.run_task(&job.task);
        }
        // The receiver may have stopped waiting.
        let _ = job.done.send(outcome);
    }

    fn run_task(&mut self, task: &JobTask) -> Result<()> {
        match task {
            JobTask::Copy(copies) => {
                let written = self.write(&mut [], copies)?;
                let outcome = written.copies_refused.clone().map_or(Ok(()), Err);
                self.publish(Vec::new(), written, Vec::new());
                outcome
            }
            JobTask::Retire { segment, deletes } => {
                let retired = segment_jobs::retire(&self.core, &mut self.log, *segment, deletes);
                self.or_poison(retired)
            }
            JobTask::Seal => {
                let sealed = segment_jobs::seal(&self.core.accounting, &mut self.log);
                self.or_poison(sealed)?;
                self.name_synced();
                Ok(())
            }
        }
    }

    /// The store as it is now. It is pinned before anything in it can leave the store,
    /// because that takes a commit.
    fn snapshot_point(&self) -> SnapshotPoint {
        let image = self.log.image();
        let blobs = self
            .core
            .write_context
            .blobs
            .referenced_ids_with(&self.unsynced_names);
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

    /// Seals the log, and lets the catalogue know what it then stands for.
    pub(super) fn close(&mut self) -> Result<()> {
        let outcome = match self.core.poison() {
            Some(poison) => Err(poison),
            None => self.log.close().map_err(LogFailure::into_error),
        };
        let clean = outcome.is_ok().then(|| CatalogueIdentity {
            store: self.core.directory.store,
            next_revision: self.log.next_revision(),
        });
        self.core.catalogue.close(clean);
        for (hash, blobs) in self.unsynced_names.drain(..) {
            if outcome.is_ok() {
                self.core.write_context.blobs.set_references(hash, &blobs);
            }
        }
        outcome
    }
}

fn refuse(acknowledgements: impl IntoIterator<Item = Acknowledgement>, error: &Error) {
    for acknowledgement in acknowledgements {
        acknowledgement.resolve(Err(error.clone()));
    }
}
