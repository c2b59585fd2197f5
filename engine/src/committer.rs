//! The committer: whoever writes to the log, one thread at a time (`turns.rs`).
//!
//! It takes everything that waits, judges each precondition against the newest
//! revision, those of earlier writes of the same batch included, appends, syncs
//! once, publishes and acknowledges. There is no timer: a lone writer pays for one
//! sync, and what arrives during a sync shares the next. What compaction copies goes
//! behind the writes of a batch, and never in their way: where it cannot be written,
//! they still are.
//!
//! Invariant: nothing is visible or answered before what it rests on is synced.

mod batch;
mod jobs;
mod turns;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::catalogue::{Identity, Value};
use crate::commit::{Acknowledgement, Change, Request, Work};
use crate::compaction::{Job, MAX_STEP_FRAMES, Task};
use crate::error::{Error, Result};
use crate::log::frame::Kind;
use crate::log::summary::Entry;
use crate::log::{Failure, Log, MAX_BATCH_FRAMES};
use crate::names::NamespaceHash;
use crate::reserve::Reserve;
use crate::revision::Revision;
use crate::shared::Shared;
use crate::table;
use batch::{Decision, Written};
pub(crate) use turns::Turns;

/// Bytes of one batch, at most, one frame excepted: what a writer may have to wait
/// for besides the sync.
const MAX_BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// Writes that a batch takes from the queue, at most: that of a writer who commits by
/// itself must fit too.
const MAX_TAKEN_REQUESTS: usize = MAX_BATCH_FRAMES - MAX_STEP_FRAMES - 1;

pub(crate) struct Committer {
    shared: Arc<Shared>,
    log: Log,
    reserve: Reserve,
    /// Blobs that published frames name, or their namespaces did before: what was
    /// replaced may go only once they are synced.
    unsynced_names: Vec<(NamespaceHash, Vec<u64>)>,
    /// Whether to wait for it before the next batch.
    catalogue_is_full: bool,
    /// Between two batches empty, and kept for its memory.
    work: Work,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, log: Log, reserve: Reserve) -> Self {
        Self {
            shared,
            log,
            reserve,
            unsynced_names: Vec::new(),
            catalogue_is_full: false,
            work: Work::default(),
        }
    }

    /// Commits one batch of what waits. How many writes it was; `None` where nothing
    /// waited.
    fn step(&mut self) -> Option<usize> {
        let work = self.take();
        if work.is_empty() {
            self.work = work;
            return None;
        }
        Some(self.commit_work(work))
    }

    /// Commits `own`, where nothing waits.
    fn step_alone(&mut self, own: Request) -> usize {
        self.commit(std::iter::once(own), None);
        self.end_step();
        1
    }

    /// Commits `own`, in one batch with what waits before it. How many writes that was.
    fn step_with(&mut self, own: Request) -> usize {
        let mut work = self.take();
        // In the order in which they came: one thread may have queued both.
        while !work.is_all {
            self.commit_work(work);
            work = self.take();
        }
        work.requests.push(own);
        self.commit_work(work)
    }

    fn take(&mut self) -> Work {
        let mut work = std::mem::take(&mut self.work);
        let queue = &self.shared.queue;
        queue.take(&mut work, MAX_BATCH_BYTES, MAX_TAKEN_REQUESTS);
        work
    }

    fn commit_work(&mut self, mut work: Work) -> usize {
        let writes = work.requests.len();
        if writes > 0 || work.job.is_some() {
            self.commit(work.requests.drain(..), work.job.take());
        }
        for request in work.cuts.drain(..) {
            // Who asked may have stopped waiting: it is let go of again.
            let _ = request.send(self.cut());
        }
        self.work = work;
        self.end_step();
        writes
    }

    fn end_step(&mut self) {
        let has_reserve = self.reserve.is_held();
        // Others read it: it is not written needlessly.
        if self.shared.has_reserve.load(Ordering::Relaxed) != has_reserve {
            self.shared
                .has_reserve
                .store(has_reserve, Ordering::Relaxed);
        }
        if std::mem::take(&mut self.catalogue_is_full) {
            self.shared.catalogue.wait_for_room();
        }
    }

    fn commit(&mut self, requests: impl Iterator<Item = Request>, job: Option<Job>) {
        let (mut changes, mut acknowledgements): (Vec<_>, Vec<_>) = requests
            .map(|request| (request.change, request.acknowledgement))
            .unzip();
        if let Some(poison) = self.shared.poison() {
            refuse(acknowledgements, &poison);
            if let Some(job) = job {
                let _ = job.done.send(Err(poison));
            }
            return;
        }
        if !self.reserve.is_held() {
            self.fill_reserve(&mut changes, &mut acknowledgements);
        }
        let copies = match &job {
            Some(Job {
                task: Task::Copy(copies),
                ..
            }) => &**copies,
            _ => &[],
        };
        let outcome = match self.write(&mut changes, copies) {
            Ok(written) => {
                let outcome = written.copies_refused.clone().map_or(Ok(()), Err);
                self.publish(changes, written, acknowledgements);
                outcome
            }
            Err(error) => {
                if matches!(error, Error::StorageFull { .. }) {
                    self.refuse_puts(&mut changes, &mut acknowledgements, &error);
                    self.commit_deletes(changes, acknowledgements);
                } else {
                    refuse(acknowledgements, &error);
                }
                Err(error)
            }
        };
        if let Some(job) = job {
            self.finish(&job, outcome);
        }
    }

    /// Space for deletes and compaction comes first: without it, puts are refused.
    fn fill_reserve(
        &mut self,
        changes: &mut Vec<Change>,
        acknowledgements: &mut Vec<Acknowledgement>,
    ) {
        if !changes.iter().any(|change| change.draft.kind == Kind::Put) {
            return;
        }
        if let Err(error) = self.reserve.fill() {
            let error = Error::io("write", self.reserve.path(), error);
            if matches!(error, Error::StorageFull { .. }) {
                self.refuse_puts(changes, acknowledgements, &error);
            }
        }
    }

    /// Answers the puts of a batch with an error, and leaves the deletes.
    fn refuse_puts(
        &mut self,
        changes: &mut Vec<Change>,
        acknowledgements: &mut Vec<Acknowledgement>,
        error: &Error,
    ) {
        let (puts, deletes): (Vec<_>, Vec<_>) = std::mem::take(changes)
            .into_iter()
            .zip(acknowledgements.drain(..))
            .partition(|(change, _)| change.draft.kind == Kind::Put);
        refuse(
            puts.into_iter().map(|(_, acknowledgement)| acknowledgement),
            error,
        );
        (*changes, *acknowledgements) = deletes.into_iter().unzip();
        // Whatever can be given back is wanted now.
        self.shared.bell.ring();
    }

    /// Commits deletes on a full disk, in the space that is kept for them.
    fn commit_deletes(&mut self, mut changes: Vec<Change>, acknowledgements: Vec<Acknowledgement>) {
        let mut outcome = self.write(&mut changes, &[]);
        if matches!(outcome, Err(Error::StorageFull { .. })) && self.reserve.release() {
            outcome = self.write(&mut changes, &[]);
        }
        match outcome {
            Ok(written) => self.publish(changes, written, acknowledgements),
            Err(error) => refuse(acknowledgements, &error),
        }
    }

    /// Makes a written batch visible, and answers it.
    fn publish(
        &mut self,
        changes: Vec<Change>,
        written: Written,
        acknowledgements: Vec<Acknowledgement>,
    ) {
        self.advance(&written);
        let recorded = written.decisions.iter().zip(&changes);
        self.catalogue_is_full |= self.shared.catalogue.record(recorded.filter_map(
            |(decision, change)| match decision {
                Decision::Appended(_, entry) => {
                    let value = Value {
                        revision: entry.revision,
                        modified_ms: written.modified_ms,
                        usage: change.usage,
                    };
                    Some((
                        &change.names,
                        entry.revision,
                        (change.draft.kind == Kind::Put).then_some(value),
                    ))
                }
                Decision::Answer(_) => None,
            },
        ));
        let answered = changes.into_iter().zip(acknowledgements);
        for (decision, (change, acknowledgement)) in written.decisions.into_iter().zip(answered) {
            match decision {
                Decision::Answer(outcome) => acknowledgement.answer(outcome),
                Decision::Appended(_, entry) => {
                    let revision = Revision::new(entry.revision);
                    let outcome = (change.draft.kind == Kind::Put).then_some(revision);
                    let blobs = &self.shared.intake.blobs;
                    // Behind one that is still to be named, it may concern that.
                    if !self.unsynced_names.is_empty()
                        || blobs.concerns(entry.hash, &change.draft.blobs)
                    {
                        self.unsynced_names.push((entry.hash, change.draft.blobs));
                    }
                    acknowledgement.answer(Ok(outcome));
                }
            }
        }
        self.name_synced();
    }

    /// Lets go of the blobs that were replaced, once what replaced them is synced.
    fn name_synced(&mut self) {
        if self.log.is_synced() {
            for (hash, blobs) in self.unsynced_names.drain(..) {
                self.shared.intake.blobs.name(hash, &blobs);
            }
        }
    }

    /// Has the table point to what was written, and counts what that replaced.
    fn advance(&self, written: &Written) {
        let appended = written
            .decisions
            .iter()
            .filter_map(|decision| match decision {
                Decision::Appended(segment, entry) => Some((*segment, entry)),
                Decision::Answer(_) => None,
            });
        let copied = written
            .copied
            .iter()
            .map(|(segment, entry)| (*segment, entry));
        self.count(appended.clone(), &written.copied);
        let mut segments = self.shared.space.lock();
        let began = segments.active();
        for (segment, entry) in appended.chain(copied) {
            let current = table::Entry::at(segment, entry);
            segments.appended(&current);
            if let Some(replaced) = self.shared.table.advance(entry.hash, current) {
                segments.superseded(&replaced);
            }
        }
        let has_rotated = segments.active() != began;
        let is_due = segments.died_bytes() > self.shared.segment_bytes / 8;
        if has_rotated || is_due || !self.reserve.is_held() {
            segments.look_again();
            drop(segments);
            self.shared.bell.ring();
        }
    }

    fn count<'a>(&self, appended: impl Iterator<Item = (u32, &'a Entry)>, copied: &[(u32, Entry)]) {
        let add = |(frames, bytes), entry: &Entry| (frames + 1, bytes + u64::from(entry.bytes));
        let (writes, bytes) = appended.fold((0, 0), |sum, (_, entry)| add(sum, entry));
        self.shared.meters.committed(writes, bytes);
        let (frames, bytes) = copied
            .iter()
            .fold((0, 0), |sum, (_, entry)| add(sum, entry));
        self.shared.meters.copied(frames, bytes);
    }

    /// Seals the log, and lets the catalogue know what it then stands for.
    fn close(&mut self) -> Result<()> {
        let outcome = match self.shared.poison() {
            Some(poison) => Err(poison),
            None => self.log.close().map_err(|failure| match failure {
                Failure::Refused(error) | Failure::Poisoned(error) => error,
            }),
        };
        let clean = outcome.is_ok().then(|| Identity {
            store: self.shared.place.store,
            next_revision: self.log.next_revision(),
        });
        self.shared.catalogue.close(clean);
        for (hash, blobs) in self.unsynced_names.drain(..) {
            if outcome.is_ok() {
                self.shared.intake.blobs.name(hash, &blobs);
            }
        }
        outcome
    }
}

fn refuse(acknowledgements: impl IntoIterator<Item = Acknowledgement>, error: &Error) {
    for acknowledgement in acknowledgements {
        acknowledgement.answer(Err(error.clone()));
    }
}
