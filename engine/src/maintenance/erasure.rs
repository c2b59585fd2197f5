//! Erasure deletes a user's documents, and then removes the files that contain bytes of the
//! documents or the user's name. Before a file is removed, the data of other users in the file is
//! copied to the end of the log.
//!
//! Erasure finds the user's segments by the names in the summaries of all segments. This search
//! does not need the catalogue, and also finds frames of documents that were deleted or replaced
//! long ago. Segments are rewritten oldest first. In a store without damage, a tombstone is
//! therefore reached only after all older frames of its namespace are gone, so the tombstone can be
//! dropped. Compaction waits until the erasure is complete. If compaction ran during the erasure,
//! it could move a frame of the user to a new segment that the erasure does not search.
//!
//! The catalogue's directory is removed and rebuilt, because sled keeps removed entries in its
//! files.
//!
//! If the process crashes during an erasure, documents that were already deleted stay deleted.
//! Erasing the same user again completes the erasure.

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
use crate::maintenance::purge::{purge_all, remove_stray_bytes};
use crate::model::config::Durability;
use crate::model::damage::Damage;
use crate::model::error::Result;
use crate::model::ids::SegmentId;
use crate::model::names::{Name, Names, NamespaceHash};
use crate::model::progress::Progress;

/// Maximum number of deletes that are queued together. Deletes are queued together so that several
/// deletes share one sync.
const MAX_QUEUED_DELETES: usize = 256;

/// The result of [`crate::Engine::erase`].
///
/// An erasure can succeed although some data of the user could not be removed. Call
/// [`Self::is_complete`] to check whether all data was removed.
///
/// # Examples
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let engine = Engine::open(Config::new(dir.path()))?;
/// let namespace = engine.namespace("alice", "editor")?;
/// namespace.write(b"{\"theme\":\"dark\"}", WriteOptions::default())?;
/// let erased = engine.erase("alice", &mut |_progress| {})?;
/// assert_eq!(erased.documents, 1);
/// assert!(erased.is_complete());
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Erased {
    /// Number of documents that were deleted. A namespace is also counted if damage makes it
    /// unknown whether the namespace contains a document.
    pub documents: u64,
    /// Number of segments that were rewritten and removed from the log.
    pub segments: u64,
    /// Number of segments and blobs that are no longer part of the store, but whose files are kept
    /// for a [`crate::Snapshot`]. These files may contain data of the user. Each kept file is
    /// removed after the last snapshot that needs it is dropped.
    pub held_by_snapshots: u64,
    /// The damage of segments that could not be searched or rewritten, because a frame that may be
    /// current is damaged, or because a read failed. These segments may contain data of the user,
    /// including documents that were not deleted.
    pub unreadable: Vec<Damage>,
    /// Number of tombstones (frames that record a delete) that had to be kept. A tombstone must be
    /// kept if a damaged segment may contain older frames of the same namespace. A tombstone
    /// contains the names of the user and the client, but no other data of the user.
    pub deletes_kept: u64,
}

impl Erased {
    /// Returns true if all data of the user was removed: [`Self::held_by_snapshots`] and
    /// [`Self::deletes_kept`] are 0, and [`Self::unreadable`] is empty.
    pub fn is_complete(&self) -> bool {
        self.held_by_snapshots == 0 && self.unreadable.is_empty() && self.deletes_kept == 0
    }
}

/// The frames of one user in the log.
#[derive(Default)]
struct UserFrames {
    /// Segments that have been searched completely.
    searched: BTreeSet<SegmentId>,
    /// Segments that contain a frame of the user, or a damaged frame that may belong to the user.
    segments: BTreeSet<SegmentId>,
    /// The damage of segments that could not be searched completely. They may contain frames of the
    /// user that are not found.
    damage: BTreeMap<SegmentId, Damage>,
    clients: BTreeSet<Arc<str>>,
    /// The user's namespaces.
    hashes: HashSet<NamespaceHash>,
}

/// Implements [`crate::Engine::erase`].
pub(crate) fn erase(
    core: &Core,
    user: &Name,
    progress: &mut dyn FnMut(Progress),
) -> Result<Erased> {
    core.check_open()?;
    core.check_not_read_only()?;
    let turn = core.acquire_compaction_turn();
    let mut erased = Erased::default();
    let mut found = UserFrames::default();
    found.search(core, &turn, user)?;
    erased.documents = delete_documents(core, user, &found)?;
    // The second search finds the tombstones of the deleted documents, and the frames of writes
    // that were committed after the first search.
    found.search(core, &turn, user)?;
    // If the first search could not read a segment, the second search can find further documents.
    let found_later = delete_documents(core, user, &found)?;
    if found_later > 0 {
        erased.documents += found_later;
        found.search(core, &turn, user)?;
    }
    rewrite_segments(core, &turn, &found, &mut erased, progress)?;
    erased.held_by_snapshots = remove_files(core, &turn)?;
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
    /// Seals the active segment, and then searches every segment that has not been searched
    /// completely yet. The active segment is sealed because only sealed segments can be rewritten.
    fn search(&mut self, core: &Core, _turn: &CompactionTurn<'_>, user: &str) -> Result<()> {
        core.queue.run_task(JobTask::Seal, true)?;
        let (sealed, ends): (Vec<_>, _) = {
            let segments = core.accounting.lock();
            (segments.sealed().collect(), segments.committed_ends())
        };
        for (id, usage) in sealed {
            if self.searched.contains(&id) {
                continue;
            }
            let (details, mut failure) = match core.directory.details(id, usage.end()) {
                Ok(details) => (details, None),
                Err(error) if error.is_damage() => (Vec::new(), Some(error)),
                Err(error) => return Err(error),
            };
            for (entry, detail) in details {
                if entry.kind.is_damaged() {
                    self.segments.insert(id);
                    if core.table.may_hide_document(id, &entry, &ends) {
                        let unreadable = || core.directory.unreadable_frame(id, entry.offset);
                        failure.get_or_insert_with(unreadable);
                    }
                } else if detail.user == user {
                    self.segments.insert(id);
                    self.hashes.insert(entry.hash);
                    self.clients.insert(detail.client);
                }
            }
            if let Some(damage) = failure.as_ref().and_then(Damage::from_error) {
                self.damage.insert(id, damage);
            } else {
                self.damage.remove(&id);
                self.searched.insert(id);
            }
        }
        Ok(())
    }
}

/// Durably deletes the user's documents. Returns the number of deleted documents.
fn delete_documents(core: &Core, user: &Name, found: &UserFrames) -> Result<u64> {
    let is_stored = |client: &&Arc<str>| {
        let hash = core.directory.hash(user, client);
        core.table.newest(hash) != NewestFrame::Absent
    };
    let stored: Vec<&Arc<str>> = found.clients.iter().filter(is_stored).collect();
    for clients in stored.chunks(MAX_QUEUED_DELETES) {
        let submit = |client: &&Arc<str>| -> Result<Commit> {
            let names = Names::new(user, &***client)?;
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

/// Rewrites the segments that contain frames of the user, starting with the oldest segment. A
/// segment in which a damaged frame may be current, or which could not be searched completely, is
/// left unchanged, and its damage is added to [`Erased::unreadable`]. If such a segment were
/// rewritten, documents of the user that were not found would be copied.
fn rewrite_segments(
    core: &Core,
    turn: &CompactionTurn<'_>,
    found: &UserFrames,
    erased: &mut Erased,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let is_found = |id: &SegmentId| found.searched.contains(id) || found.damage.contains_key(id);
    let searched: Vec<(SegmentId, SegmentUsage)> = {
        let segments = core.accounting.lock();
        let sealed = segments.sealed();
        sealed.filter(|(id, _)| is_found(id)).collect()
    };
    // A segment without current frames contains no document of the user, and can be removed even if
    // it cannot be read.
    let is_kept = |(id, usage): &(SegmentId, SegmentUsage)| {
        usage.damaged > 0 || (usage.is_needed() && found.damage.contains_key(id))
    };
    let (damaged, intact): (Vec<_>, Vec<_>) = searched.into_iter().partition(is_kept);
    let mut unreadable: BTreeMap<SegmentId, Damage> = damaged
        .into_iter()
        .map(|(id, _)| (id, damage_of(core, found, id)))
        .collect();
    let victims: Vec<(SegmentId, u64)> = intact
        .into_iter()
        .filter(|(id, _)| found.segments.contains(id) || found.damage.contains_key(id))
        .map(|(id, usage)| (id, usage.bytes))
        .collect();
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
        match compaction::rewrite(core, turn, victim, CompactionPace::FullSpeed) {
            Ok(()) => erased.segments += 1,
            Err(error) if compaction::is_segment_error(&error) => {
                compaction::skip_segment(core, id, &error);
                let damage = Damage::from_error(&error);
                let path = file_header::segment_path(&core.directory.dir, id);
                let other = || Damage::new(&path, 0, error.to_string());
                unreadable.insert(id, damage.unwrap_or_else(other));
            }
            Err(error) => return Err(error),
        }
    }
    erased.unreadable = unreadable.into_values().collect();
    Ok(())
}

/// Returns the known damage of a segment.
fn damage_of(core: &Core, found: &UserFrames, id: SegmentId) -> Damage {
    let path = file_header::segment_path(&core.directory.dir, id);
    let known = core.damage.iter().find(|damage| damage.path == path);
    known
        .or(found.damage.get(&id))
        .cloned()
        .unwrap_or_else(|| Damage::new(&path, 0, "a frame cannot be read"))
}

/// Durably removes all files that are no longer part of the store. Returns the number of segments
/// and blobs whose files are kept for snapshots.
fn remove_files(core: &Core, turn: &CompactionTurn<'_>) -> Result<u64> {
    let kept = purge_all(core)?;
    remove_stray_bytes(core, turn)?;
    core.write_context.blobs.sync_dir_entries()?;
    Ok(kept)
}
