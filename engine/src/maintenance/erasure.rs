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

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::commit::change::{WriteOptions, WriteTarget};
use crate::commit::core::{CompactionTurn, Core};
use crate::commit::job::JobTask;
use crate::commit::promise::Commit;
use crate::format::file_header;
use crate::format::frame::header::EntryKind;
use crate::index::accounting::{CompactionVictim, SegmentUsage};
use crate::index::table::NewestFrame;
use crate::maintenance::compaction::{self, CompactionPace};
use crate::maintenance::purge::{purge_all, tidy};
use crate::model::config::Durability;
use crate::model::damage::Damage;
use crate::model::error::Result;
use crate::model::ids::SegmentId;
use crate::model::names::{Names, NamespaceHash, valid};
use crate::model::progress::Progress;

/// Deletes that are queued before the first of them is waited for.
const MAX_QUEUED_DELETES: usize = 256;

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
    pub unreadable: Vec<Damage>,
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
struct UserFrames {
    /// Segments that were looked at.
    seen: BTreeSet<SegmentId>,
    /// Those that hold a frame of the user, or one that may be.
    segments: BTreeSet<SegmentId>,
    /// Why nothing could be read of a segment.
    damage: BTreeMap<SegmentId, Damage>,
    clients: BTreeSet<Arc<str>>,
    hashes: HashSet<NamespaceHash>,
}

/// See [`crate::Engine::erase`].
pub(crate) fn erase(core: &Core, user: &str, progress: &mut dyn FnMut(Progress)) -> Result<Erased> {
    valid("user", user)?;
    core.refuse_closed()?;
    let turn = core.turn_to_compact();
    let mut erased = Erased::default();
    let mut found = UserFrames::default();
    found.look(core, &turn, user)?;
    erased.documents = delete(core, user, &found)?;
    // The deletes are found too, and what was put meanwhile.
    found.look(core, &turn, user)?;
    rewrite(core, &turn, &found, &mut erased, progress)?;
    erased.held_by_snapshots = remove(core, &turn)?;
    core.cache.remove_namespaces(&core.table, &found.hashes);
    core.catalogue.rebuild()?;
    let is_delete = |hash: &&NamespaceHash| {
        let entry = core.table.entry(**hash);
        entry.is_some_and(|entry| entry.kind == EntryKind::Delete)
    };
    erased.deletes_kept = found.hashes.iter().filter(is_delete).count() as u64;
    Ok(erased)
}

impl UserFrames {
    /// Looks through every segment that was not seen yet; the one that is being written is
    /// ended first.
    fn look(&mut self, core: &Core, _turn: &CompactionTurn<'_>, user: &str) -> Result<()> {
        core.queue.run_task(JobTask::Seal, true)?;
        let sealed: Vec<SegmentId> = {
            let segments = core.accounting.lock();
            segments.sealed().map(|(id, _)| id).collect()
        };
        for id in sealed {
            if !self.seen.insert(id) {
                continue;
            }
            let details = match core.directory.details(id) {
                Ok(details) => details,
                Err(error) if error.is_damage() => {
                    self.damage
                        .extend(Damage::from_error(&error).map(|damage| (id, damage)));
                    Vec::new()
                }
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
fn delete(core: &Core, user: &str, found: &UserFrames) -> Result<u64> {
    let is_stored = |client: &&Arc<str>| {
        let hash = core.directory.hash(user, client);
        core.table.newest(hash) != NewestFrame::Absent
    };
    let stored: Vec<&Arc<str>> = found.clients.iter().filter(is_stored).collect();
    for clients in stored.chunks(MAX_QUEUED_DELETES) {
        let submit = |client: &&Arc<str>| -> Result<Commit> {
            let names = Names::new(user, client)?;
            let target = WriteTarget {
                hash: core.directory.hash(user, client),
                names: &names,
                table: &core.table,
                default_durability: Durability::Sync,
            };
            let delete = target.request(None, WriteOptions::default())?;
            Ok(core.queue.submit_blocking(delete))
        };
        let commits: Vec<Commit> = clients.iter().map(submit).collect::<Result<_>>()?;
        for commit in commits {
            commit.wait()?;
        }
    }
    Ok(stored.len() as u64)
}

/// Writes the segments anew that hold something of the user, the oldest first.
fn rewrite(
    core: &Core,
    turn: &CompactionTurn<'_>,
    found: &UserFrames,
    erased: &mut Erased,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let held: Vec<(SegmentId, SegmentUsage)> = {
        let segments = core.accounting.lock();
        let seen = segments.sealed().filter(|(id, _)| found.seen.contains(id));
        seen.collect()
    };
    let path = |id| file_header::path(&core.directory.dir, id);
    let (damaged, intact): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|(_, held)| held.damaged > 0);
    let known = |id| {
        let path = path(id);
        let known = core.damage.iter().find(|damage| damage.path == path);
        known.or(found.damage.get(&id)).cloned()
    };
    let unknown = |id| Damage::new(&path(id), 0, "a frame cannot be read");
    let damaged = damaged.into_iter().map(|(id, _)| id);
    let mut unreadable: BTreeMap<SegmentId, Damage> = damaged
        .map(|id| (id, known(id).unwrap_or_else(|| unknown(id))))
        .collect();
    let victims = intact
        .into_iter()
        .filter(|(id, _)| found.segments.contains(id));
    let victims: Vec<(SegmentId, u64)> = victims.map(|(id, held)| (id, held.bytes)).collect();
    let total_bytes = victims.iter().map(|(_, bytes)| bytes).sum();
    let mut done_bytes = 0;
    for (id, bytes) in victims {
        progress(Progress {
            done_bytes,
            total_bytes,
        });
        done_bytes += bytes;
        let victim = CompactionVictim {
            id,
            is_forced: true,
        };
        match compaction::rewrite(core, turn, victim, CompactionPace::Hurried) {
            Ok(()) => erased.segments += 1,
            Err(error) if compaction::is_lasting(&error) => {
                compaction::leave(core, id, &error);
                let damage = Damage::from_error(&error);
                let other = || Damage::new(&path(id), 0, error.to_string());
                unreadable.insert(id, damage.unwrap_or_else(other));
            }
            Err(error) => return Err(error),
        }
    }
    erased.unreadable = unreadable.into_values().collect();
    Ok(())
}

/// Removes the files of what is no part of the store any more, durably. How many a snapshot
/// holds.
fn remove(core: &Core, turn: &CompactionTurn<'_>) -> Result<u64> {
    let held = purge_all(core)?;
    tidy(core, turn)?;
    core.write_context.blobs.sync_dir_entries()?;
    Ok(held)
}
