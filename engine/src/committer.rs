//! The committer: the one thread that writes to the log.
//!
//! It takes everything that waits, judges each precondition against the newest
//! revision, those of earlier writes of the same batch included, appends, syncs
//! once, publishes and acknowledges. There is no timer: a lone writer pays for one
//! sync, and what arrives during a sync shares the next.
//!
//! Invariant: nothing is visible or answered before what it rests on is synced.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::blob::BlobDraft;
use crate::catalogue::{Identity, Value};
use crate::commit::{Acknowledgement, Change, Outcome, Request};
use crate::config::Durability;
use crate::engine::Shared;
use crate::error::{Error, Result};
use crate::log::frame::Kind;
use crate::log::summary::Entry;
use crate::log::{Failure, Log, MAX_BATCH_FRAMES};
use crate::names::{Names, NamespaceHash};
use crate::revision::Revision;
use crate::table::{self, Newest};

/// Bytes of one batch, at most, one frame excepted: what a writer may have to wait
/// for besides the sync.
const MAX_BATCH_BYTES: u64 = 8 * 1024 * 1024;

pub(crate) struct Committer {
    shared: Arc<Shared>,
    log: Log,
    /// Blobs of frames that were published without a sync: what they replaced may
    /// go only once they are synced.
    unsynced_names: Vec<(NamespaceHash, Vec<u64>)>,
}

/// One request, once its batch has decided on it.
enum Decision {
    /// Answered with this, once what it rests on is synced.
    Answer(Outcome),
    Appended(Appended),
}

/// A change whose frame is in the batch.
struct Appended {
    names: Names,
    segment: u32,
    entry: Entry,
    kind: Kind,
    value: Value,
    blobs: Vec<u64>,
    draft: Option<BlobDraft>,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, log: Log) -> Self {
        Self {
            shared,
            log,
            unsynced_names: Vec::new(),
        }
    }

    /// Commits until the queue is closed and empty, then closes the store.
    pub(crate) fn run(mut self) -> Result<()> {
        let mut batch = Vec::new();
        while self
            .shared
            .queue
            .take(&mut batch, MAX_BATCH_BYTES, MAX_BATCH_FRAMES)
        {
            self.commit(&mut batch);
            self.shared.catalogue.wait_for_room();
        }
        self.close()
    }

    fn commit(&mut self, batch: &mut Vec<Request>) {
        if let Some(poison) = self.shared.poison() {
            for request in batch.drain(..) {
                request.acknowledgement.answer(Err(poison.clone()));
            }
            return;
        }
        let sync = batch
            .iter()
            .any(|request| request.change.durability == Durability::Sync);
        let mut acknowledgements = Vec::with_capacity(batch.len());
        let mut changes = Vec::with_capacity(batch.len());
        for request in batch.drain(..) {
            acknowledgements.push(request.acknowledgement);
            changes.push(request.change);
        }
        match self.write(changes, sync) {
            Ok(decisions) => self.publish(decisions, acknowledgements),
            Err(error) => {
                for acknowledgement in acknowledgements {
                    acknowledgement.answer(Err(error.clone()));
                }
            }
        }
    }

    /// Decides on every change and writes those that pass.
    fn write(&mut self, changes: Vec<Change>, sync: bool) -> Result<Vec<Decision>> {
        let mut decisions = Vec::with_capacity(changes.len());
        let outcome = self
            .append(changes, &mut decisions)
            .and_then(|()| self.log.flush(sync && !self.is_settled(&decisions)));
        let Err(failure) = outcome else {
            return Ok(decisions);
        };
        match failure {
            Failure::Refused(error) => {
                // Nothing of the batch is left in the log.
                for decision in &mut decisions {
                    if let Decision::Appended(Appended { draft: Some(d), .. }) = decision {
                        d.unkeep();
                    }
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
    fn is_settled(&self, decisions: &[Decision]) -> bool {
        self.log.is_synced() && decisions.iter().all(|d| matches!(d, Decision::Answer(_)))
    }

    fn append(
        &mut self,
        changes: Vec<Change>,
        decisions: &mut Vec<Decision>,
    ) -> Result<(), Failure> {
        // What the batch has made of a namespace, which the table does not show yet.
        let mut newest: HashMap<NamespaceHash, Option<Revision>> = HashMap::new();
        let modified_ms = now_ms();
        let mut begun = false;
        for mut change in changes {
            let hash = change.draft.hash;
            let current = match newest.get(&hash) {
                Some(current) => Ok(*current),
                None => self.current(hash, &change),
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
                decisions.push(Decision::Answer(outcome));
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
            let appended = self
                .log
                .append(&change.names, &change.draft, change.usage, modified_ms);
            let (segment, entry) = match appended {
                Ok(place) => place,
                Err(failure) => {
                    if let (Failure::Refused(_), Some(blob)) = (&failure, &mut change.blob) {
                        blob.unkeep();
                    }
                    return Err(failure);
                }
            };
            let revision = Revision::new(entry.revision);
            newest.insert(hash, (change.draft.kind == Kind::Put).then_some(revision));
            decisions.push(Decision::Appended(Appended {
                names: change.names,
                segment,
                entry,
                kind: change.draft.kind,
                value: Value {
                    revision: entry.revision,
                    modified_ms,
                    usage: change.usage,
                },
                blobs: change.draft.blobs,
                draft: change.blob,
            }));
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

    /// Makes a written batch visible, and answers it.
    fn publish(&mut self, decisions: Vec<Decision>, acknowledgements: Vec<Acknowledgement>) {
        for decision in &decisions {
            if let Decision::Appended(appended) = decision {
                let entry = table::Entry::at(appended.segment, &appended.entry);
                self.shared.table.advance(appended.entry.hash, entry);
            }
        }
        let changes = decisions.iter().filter_map(|decision| match decision {
            Decision::Appended(appended) => Some((
                &appended.names,
                (appended.kind == Kind::Put).then_some(appended.value),
            )),
            Decision::Answer(_) => None,
        });
        self.shared.catalogue.record(changes);
        for (decision, acknowledgement) in decisions.into_iter().zip(acknowledgements) {
            match decision {
                Decision::Answer(outcome) => acknowledgement.answer(outcome),
                Decision::Appended(appended) => {
                    let revision = Revision::new(appended.entry.revision);
                    let outcome = (appended.kind == Kind::Put).then_some(revision);
                    self.unsynced_names
                        .push((appended.entry.hash, appended.blobs));
                    acknowledgement.answer(Ok(outcome));
                }
            }
        }
        if self.log.is_synced() {
            for (hash, blobs) in self.unsynced_names.drain(..) {
                self.shared.intake.blobs.name(hash, &blobs);
            }
        }
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
        self.shared.intake.blobs.close();
        outcome
    }
}

impl Drop for Committer {
    /// Should it panic, nobody may wait for it for ever.
    fn drop(&mut self) {
        self.shared.queue.abort();
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
