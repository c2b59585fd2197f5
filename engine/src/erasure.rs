//! Erasure: a user's documents are deleted, and then every file that holds a byte of them,
//! or the user's name, is written anew without it and removed.
//!
//! Which segments these are is told by the names in their summaries, so no catalogue is
//! needed, and what was deleted or replaced long ago is found as well. They are rewritten
//! as compaction does, the oldest first: by the time that a delete is come to, no older
//! segment has a frame for it to hide, and the delete is left out too. Compaction waits
//! meanwhile, so that nothing moves. What sled keeps of what was removed from it goes with
//! the catalogue's folder, which is built again.
//!
//! Each step is one that a crash may follow: what was deleted stays so, and to erase again
//! finds the rest.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::commit::Commit;
use crate::compaction::{self, Pace, Task};
use crate::config::Durability;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::log::segment;
use crate::log::summary::EntryKind;
use crate::names::{NamespaceHash, valid};
use crate::namespace::WriteOptions;
use crate::shared::Shared;
use crate::space::{Held, Victim};
use crate::table::Newest;
use crate::verify::Progress;

/// Deletes that are queued before the first of them is waited for.
const DELETES_AT_ONCE: usize = 256;

/// What [`crate::Engine::erase`] has done, and what it could not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Erased {
    /// Documents that were deleted, those that could not be read included.
    pub documents: u64,
    /// Segments of the log that were rewritten and taken out of it.
    pub segments: u64,
    /// Segments and blobs that are no part of the store any more, and whose files a
    /// [`crate::Snapshot`] still holds. They may be of the user, and go once the last
    /// snapshot that holds them is dropped.
    pub held_by_snapshots: u64,
    /// Segments that stay as they are, because a frame in them cannot be read that may be
    /// current: it may be of the user, and so may all that was stale in them.
    pub unreadable: Vec<PathBuf>,
    /// Deletes that had to be kept, since a segment that cannot be read may hold what they
    /// hide. They name the user and the client, and nothing else.
    pub deletes_kept: u64,
}

impl Erased {
    /// Whether nothing of the user is left in any file.
    pub fn is_complete(&self) -> bool {
        self.held_by_snapshots == 0 && self.unreadable.is_empty() && self.deletes_kept == 0
    }
}

/// What of a user is in the log.
#[derive(Default)]
struct Found {
    /// Segments that were looked at.
    seen: BTreeSet<u32>,
    /// Those that hold a frame of the user, or one that may be.
    segments: BTreeSet<u32>,
    clients: BTreeSet<Arc<str>>,
    hashes: HashSet<NamespaceHash>,
}

/// See [`Engine::erase`].
pub(crate) fn erase(
    engine: &Engine,
    user: &str,
    progress: &mut dyn FnMut(Progress),
) -> Result<Erased> {
    valid("user", user)?;
    let shared = engine.shared();
    shared.refuse_closed()?;
    let _turn = shared.turn_to_compact();
    let mut erased = Erased::default();
    let mut found = Found::default();
    found.look(shared, user)?;
    erased.documents = delete(engine, user, &found)?;
    // The deletes are found too, and what was put meanwhile.
    found.look(shared, user)?;
    rewrite(shared, &found, &mut erased, progress)?;
    erased.held_by_snapshots = remove(shared)?;
    shared.cache.forget(&shared.table, &found.hashes);
    shared.catalogue.start_over()?;
    let is_delete = |hash: &&NamespaceHash| {
        let entry = shared.table.entry(**hash);
        entry.is_some_and(|entry| entry.kind == EntryKind::Delete)
    };
    erased.deletes_kept = found.hashes.iter().filter(is_delete).count() as u64;
    Ok(erased)
}

impl Found {
    /// Looks through every segment that was not seen yet; the one that is being written is
    /// ended first.
    fn look(&mut self, shared: &Shared, user: &str) -> Result<()> {
        compaction::submit(shared, Task::Seal, true)?;
        let sealed: Vec<u32> = {
            let segments = shared.space.lock();
            segments.sealed().map(|(id, _)| id).collect()
        };
        for id in sealed {
            if !self.seen.insert(id) {
                continue;
            }
            let details = match shared.place.details(id) {
                Ok(details) => details,
                Err(error) if error.is_damage() => Vec::new(),
                Err(error) => return Err(error),
            };
            // There is a frame in each: nothing can be read of this one, nor rewritten.
            if details.is_empty() {
                self.segments.insert(id);
            }
            for (entry, detail) in details {
                let is_damaged = matches!(entry.kind, EntryKind::Damaged | EntryKind::Lost);
                if is_damaged {
                    self.segments.insert(id);
                } else if detail.user == user {
                    self.segments.insert(id);
                    self.hashes.insert(entry.hash);
                    self.clients.insert(detail.client);
                }
            }
        }
        Ok(())
    }
}

/// Deletes what is stored of these clients. How many documents that were.
fn delete(engine: &Engine, user: &str, found: &Found) -> Result<u64> {
    let shared = engine.shared();
    let options = || WriteOptions {
        durability: Some(Durability::Sync),
        ..WriteOptions::default()
    };
    let is_stored = |client: &&Arc<str>| {
        let hash = shared.hash(user, client);
        shared.table.newest(hash) != Newest::Absent
    };
    let stored: Vec<&Arc<str>> = found.clients.iter().filter(is_stored).collect();
    for clients in stored.chunks(DELETES_AT_ONCE) {
        let submit = |client: &&Arc<str>| -> Result<Commit> {
            let namespace = engine.namespace(user, client)?;
            Ok(namespace.submit_delete(options()))
        };
        let commits: Vec<Commit> = clients.iter().map(submit).collect::<Result<_>>()?;
        for (client, commit) in clients.iter().zip(commits) {
            match commit.wait() {
                // The queue is full; this waits for room.
                Err(Error::Overloaded) => engine.namespace(user, client)?.delete(options())?,
                outcome => drop(outcome?),
            }
        }
    }
    Ok(stored.len() as u64)
}

/// Writes the segments anew that hold something of the user, the oldest first.
fn rewrite(
    shared: &Shared,
    found: &Found,
    erased: &mut Erased,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let held: Vec<(u32, Held)> = {
        let segments = shared.space.lock();
        let seen = segments.sealed().filter(|(id, _)| found.seen.contains(id));
        seen.collect()
    };
    let (damaged, whole): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|(_, held)| held.damaged > 0);
    let mut unreadable: BTreeSet<u32> = damaged.into_iter().map(|(id, _)| id).collect();
    let victims = whole
        .into_iter()
        .filter(|(id, _)| found.segments.contains(id));
    let victims: Vec<(u32, u64)> = victims.map(|(id, held)| (id, held.bytes)).collect();
    let total_bytes = victims.iter().map(|(_, bytes)| bytes).sum();
    let mut done_bytes = 0;
    for (id, bytes) in victims {
        progress(Progress {
            done_bytes,
            total_bytes,
        });
        done_bytes += bytes;
        let victim = Victim { id, whole: true };
        match compaction::rewrite_in_turn(shared, victim, Pace::Hurried) {
            Ok(()) => erased.segments += 1,
            Err(error) if compaction::is_lasting(&error) => {
                compaction::leave(shared, id, &error);
                unreadable.insert(id);
            }
            Err(error) => return Err(error),
        }
    }
    let path = |id| segment::path(&shared.place.dir, id);
    erased.unreadable = unreadable.into_iter().map(path).collect();
    Ok(())
}

/// Removes the files of what is no part of the store any more, durably. How many a snapshot
/// holds.
fn remove(shared: &Shared) -> Result<u64> {
    let held = compaction::sweep_all(shared)?;
    compaction::submit(shared, Task::Tidy, false)?;
    shared.intake.blobs.sync_names()?;
    Ok(held)
}
