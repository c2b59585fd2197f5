//! What the committer does for others than writers: it ends what compaction and erasure
//! have begun, and says what a snapshot consists of.

use std::sync::Arc;

use super::Committer;
use crate::compaction::{Job, Task};
use crate::error::{Error, Result};
use crate::log::{Failure, segment};
use crate::names::NamespaceHash;
use crate::snapshot::Cut;
use crate::table;

impl Committer {
    /// Ends a job, whose copies, if it has any, were written or not.
    pub(super) fn finish(&mut self, job: &Job, outcome_of_copies: Result<()>) {
        let attempt = |committer: &mut Self| match &job.task {
            Task::Copy(copies) => {
                let written = committer.write(&mut [], copies)?;
                let outcome = written.copies_refused.clone().map_or(Ok(()), Err);
                committer.publish(Vec::new(), written, Vec::new());
                outcome
            }
            Task::Retire { segment, deletes } => committer.retire(*segment, deletes),
            Task::Seal => committer.seal(),
            Task::Tidy => committer.tidy(),
        };
        let mut outcome = match (&job.task, self.shared.poison()) {
            // Not even a file may be written or removed once a sync has failed, and the
            // writes that the job came with may have seen that.
            (_, Some(error)) => Err(error),
            (Task::Copy(_), None) => outcome_of_copies,
            (Task::Retire { .. } | Task::Seal | Task::Tidy, None) => attempt(self),
        };
        if matches!(outcome, Err(Error::StorageFull { .. }))
            && job.may_use_reserve
            && self.reserve.release()
        {
            outcome = attempt(self);
        }
        // Compaction may have stopped waiting.
        let _ = job.done.send(outcome);
    }

    /// Takes a segment out of the log, once nothing but these deletes is current in it.
    fn retire(&mut self, segment: u32, deletes: &[(NamespaceHash, table::Entry)]) -> Result<()> {
        let table = Arc::clone(&self.shared.table);
        let needless = deletes
            .iter()
            .filter(|(hash, entry)| table.entry(*hash) == Some(*entry))
            .count();
        let held = self.shared.space.lock().get(segment).unwrap_or_default();
        let current = held.documents as usize + held.tombstones as usize;
        if current != needless || held.damaged > 0 {
            let path = segment::path(&self.shared.place.dir, segment);
            let what = "its summary does not name every current frame";
            return Err(Error::corrupt(&path, 0, what));
        }
        let retired = self.log.retire(segment);
        self.or_poison(retired)?;
        for (hash, entry) in deletes {
            table.forget_delete(*hash, entry);
        }
        self.shared.space.lock().retired(segment);
        Ok(())
    }

    /// Ends the segment that is being written, so that all that was committed lies in
    /// sealed ones.
    fn seal(&mut self) -> Result<()> {
        let sealed = self.log.seal();
        self.or_poison(sealed)?;
        self.shared.space.lock().begun(self.log.active());
        self.name_synced();
        Ok(())
    }

    /// Removes what lies in the log's folder and is no part of the store, nor held.
    fn tidy(&self) -> Result<()> {
        let doomed = self.shared.doomed_segments();
        let is_held = |id| doomed.contains(&id) || self.shared.pins.holds_segment(id);
        self.log.tidy(&self.shared.place, &is_held)
    }

    fn or_poison<T>(&self, outcome: Result<T, Failure>) -> Result<T> {
        outcome.map_err(|failure| match failure {
            Failure::Refused(error) => error,
            Failure::Poisoned(error) => {
                self.shared.set_poison(error.clone());
                error
            }
        })
    }

    /// The store as it is now. Nothing that is in it can leave it before it is pinned: that
    /// takes a turn to commit.
    pub(super) fn cut(&self) -> Cut {
        let image = self.log.image();
        let blobs = &self.shared.intake.blobs;
        let blobs = blobs.named_with(&self.unsynced_names);
        let segments = image.manifest.segments.iter();
        let segments = segments.map(|record| record.id).collect();
        let sum = self.shared.space.lock().sum();
        Cut {
            documents: sum.documents.into(),
            damaged_frames: sum.damaged.into(),
            pin: self.shared.pins.pin(segments, blobs.clone()),
            image,
            blobs,
        }
    }
}
