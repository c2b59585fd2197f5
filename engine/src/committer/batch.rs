//! One batch: each change is decided on, those that pass are appended, copies behind
//! them, and all of it is synced once.

use std::time::{SystemTime, UNIX_EPOCH};

use super::Committer;
use crate::commit::{Change, Outcome};
use crate::compaction::Copy;
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::log::frame::Kind;
use crate::log::summary::Entry;
use crate::log::{Appending, Failure};
use crate::names::{NamespaceHash, NamespaceMap};
use crate::revision::Revision;
use crate::table::Newest;

/// What a batch has come to.
#[derive(Default)]
pub(super) struct Written {
    /// When, in milliseconds since 1970.
    pub(super) modified_ms: u64,
    /// One for each change.
    pub(super) decisions: Vec<Decision>,
    /// What the batch has made of a namespace, which the table does not show yet.
    newest: NamespaceMap<Option<Revision>>,
    pub(super) copied: Vec<(u32, Entry)>,
    /// Why no copy was written.
    pub(super) copies_refused: Option<Error>,
}

/// One change, once its batch has decided on it.
pub(super) enum Decision {
    /// Answered with this, once what it rests on is synced.
    Answer(Outcome),
    /// Its frame is in the batch: this entry of this segment.
    Appended(u32, Entry),
}

impl Committer {
    /// Decides on every change and writes those that pass, and copies behind them.
    pub(super) fn write(&mut self, changes: &mut [Change], copies: &[Copy]) -> Result<Written> {
        let mut written = Written::default();
        let asks_sync = |change: &Change| change.durability == Durability::Sync;
        let sync = !copies.is_empty() || changes.iter().any(asks_sync);
        // On a full disk what is left is for deletes and compaction.
        let ahead = self.reserve.is_held();
        let outcome = self
            .append(changes, &mut written)
            .and_then(|()| self.append_copies(copies, &mut written))
            .and_then(|()| self.log.flush(sync && !self.is_settled(&written), ahead));
        let Err(failure) = outcome else {
            return Ok(written);
        };
        match failure {
            Failure::Refused(error) => {
                // Nothing of the batch is left in the log.
                for blob in changes.iter_mut().filter_map(|change| change.blob.as_mut()) {
                    blob.unkeep();
                }
                Err(error)
            }
            Failure::Poisoned(error) => {
                self.shared.set_poison(error.clone());
                Err(error)
            }
        }
    }

    /// Whether no answer rests on anything that is not synced.
    fn is_settled(&self, written: &Written) -> bool {
        let is_answer = |decision: &Decision| matches!(decision, Decision::Answer(_));
        self.log.is_synced() && written.copied.is_empty() && written.decisions.iter().all(is_answer)
    }

    fn append(&mut self, changes: &mut [Change], written: &mut Written) -> Result<(), Failure> {
        let modified_ms = now_ms();
        written.modified_ms = modified_ms;
        let mut begun = false;
        for change in changes {
            let hash = change.draft.hash;
            let current = match written.newest.get(&hash) {
                Some(current) => Ok(*current),
                None => self.current(hash, change),
            };
            let decided = match current {
                Err(error) => Some(Err(error)),
                Ok(current) if !change.precondition.holds(current) => {
                    Some(Err(Error::PreconditionFailed { current }))
                }
                Ok(None) if change.draft.kind == Kind::Delete && !self.is_unreadable(hash) => {
                    Some(Ok(None))
                }
                Ok(_) => None,
            };
            if let Some(outcome) = decided {
                written.decisions.push(Decision::Answer(outcome));
                continue;
            }
            if !begun {
                self.log.begin()?;
                begun = true;
            }
            // From here on the blob may be named by a frame on the disk.
            if let Some(blob) = &mut change.blob {
                blob.keep();
            }
            let (segment, entry) = self.log.append(&Appending {
                names: &change.names,
                draft: &change.draft,
                usage: change.usage,
                modified_ms,
            })?;
            let revision = Revision::new(entry.revision);
            let newest = (change.draft.kind == Kind::Put).then_some(revision);
            written.newest.insert(hash, newest);
            written.decisions.push(Decision::Appended(segment, entry));
        }
        Ok(())
    }

    /// Appends copies of those frames that are still current behind the batch. Where
    /// that fails, the batch is as it was without them.
    fn append_copies(&mut self, copies: &[Copy], written: &mut Written) -> Result<(), Failure> {
        let current = |copy: &&Copy| {
            self.shared.table.entry(copy.draft.hash) == Some(copy.from)
                && !written.newest.contains_key(&copy.draft.hash)
        };
        let copies: Vec<&Copy> = copies.iter().filter(current).collect();
        if copies.is_empty() {
            return Ok(());
        }
        if written.newest.is_empty() {
            match self.log.begin() {
                Err(Failure::Refused(error)) => {
                    written.copies_refused = Some(error);
                    return Ok(());
                }
                outcome => outcome?,
            }
        }
        let mark = self.log.mark()?;
        let appended = copies.iter().try_for_each(|copy| {
            let frame = Appending {
                names: &copy.names,
                draft: &copy.draft,
                usage: copy.usage,
                modified_ms: copy.modified_ms,
            };
            written
                .copied
                .push(self.log.copy(&frame, copy.from.revision)?);
            Ok(())
        });
        if let Err(error) = appended.and_then(|()| self.log.write()) {
            self.log.cut_back(mark)?;
            written.copied.clear();
            written.copies_refused = Some(error);
        }
        Ok(())
    }

    /// The revision that a precondition is judged against. One on a namespace whose
    /// newest frame cannot be read cannot be judged; without one, it is replaced.
    fn current(&self, hash: NamespaceHash, change: &Change) -> Result<Option<Revision>> {
        match self.shared.table.newest(hash) {
            Newest::Absent => Ok(None),
            Newest::Document(entry) => Ok(Some(Revision::new(entry.revision))),
            Newest::Unreadable { .. } if change.precondition.is_none() => Ok(None),
            Newest::Unreadable { segment, offset } => Err(self.shared.unreadable(segment, offset)),
        }
    }

    fn is_unreadable(&self, hash: NamespaceHash) -> bool {
        matches!(self.shared.table.newest(hash), Newest::Unreadable { .. })
    }
}

/// Milliseconds since 1970 by the clock of the machine.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
