//! Compaction reclaims the disk space of stale frames and obsolete blobs.
//!
//! To rewrite a segment, compaction reads the current frames of the segment. The committer is the
//! only writer of the log. The committer appends copies of the frames after the queued writes of a
//! batch, so that one sync is sufficient for the copies and the writes. After all copies are
//! synced, the committer removes the segment from the manifest. A copied frame has the same
//! revision as the original frame. At every moment, the log contains the frame of each current
//! document at least once, so a crash during compaction loses no document.
//!
//! In the background, compaction copies frames in small steps. Between two steps, background
//! compaction pauses for as long as the commit of the earlier step took. While the log exceeds its
//! size limit (`SegmentUsages::is_overgrown`), compaction copies frames in large steps without
//! pauses.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::commit::core::{CompactionTurn, Core};
use crate::commit::job::{FrameCopy, JobTask, MAX_COPIED_FRAMES};
use crate::format::frame::encoded::EncodedFrame;
use crate::format::frame::header::EntryKind;
use crate::format::frame::meta::FrameMeta;
use crate::format::location::FrameLocation;
use crate::format::summary::entry::SummaryEntry;
use crate::index::accounting::{CompactionVictim, SegmentUsage};
use crate::maintenance::purge::{purge, purge_all};
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::model::names::NamespaceHash;
use crate::model::progress::Progress;
use crate::storage::log::reader::Frame;

/// Maximum number of bytes that background compaction copies in one step. A frame that is larger
/// than this maximum is copied in a separate step. The steps are small, so that the copies hardly
/// delay the writes in the same batch.
const BACKGROUND_STEP_BYTES: u64 = 16 * 1024;
/// Maximum number of bytes that compaction at full speed copies in one step. A frame that is larger
/// than this maximum is copied in a separate step.
const FULL_SPEED_STEP_BYTES: u64 = 256 * 1024;

/// The main function of the compaction thread. Rewrites segments and removes obsolete files until
/// the engine is closed.
pub(crate) fn run(core: &Core) {
    // A previous process may have ended before it removed all obsolete blobs.
    let _ = purge(core);
    loop {
        while let Some(victim) = next_victim(core) {
            let outcome = rewrite(
                core,
                &core.acquire_compaction_turn(),
                victim,
                CompactionPace::Background,
            );
            let _ = purge(core);
            match outcome {
                Ok(()) => {}
                Err(error) if is_segment_error(&error) => skip_segment(core, victim.id, &error),
                // If the error is not limited to one segment, compaction waits for the next wakeup,
                // and then tries again.
                Err(_) => break,
            }
        }
        if !core.compaction_wakeup.wait() {
            return;
        }
        let _ = purge(core);
    }
}

/// Returns true if the error concerns only the segment that was read, so that compaction can
/// continue with other segments.
pub(crate) fn is_segment_error(error: &Error) -> bool {
    error.is_damage() || matches!(error, Error::UnsupportedFormat { .. })
}

/// Makes background compaction skip a segment that could not be read, so that compaction can
/// continue with other segments.
pub(crate) fn skip_segment(core: &Core, segment: SegmentId, error: &Error) {
    let mut segments = core.accounting.lock();
    match error {
        // A read has failed, but a later read of the segment may succeed, so no frame is counted as
        // damaged.
        Error::Unreadable { .. } => segments.defer(segment),
        _ => segments.mark_damaged(segment),
    }
}

/// Returns the segment to rewrite next. On a full disk, returns the segment with the fewest bytes
/// to copy. Returns `None` if no segment needs to be rewritten, or if the engine is closing.
fn next_victim(core: &Core) -> Option<CompactionVictim> {
    if core.compaction_wakeup.is_closed() {
        return None;
    }
    let segments = core.accounting.lock();
    if core.has_reserve.load(Ordering::Relaxed) {
        segments.victim(core.segment_bytes)
    } else {
        segments.cheapest_victim()
    }
}

/// The speed at which compaction copies frames.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompactionPace {
    /// Small steps with pauses, so that writes are hardly delayed. While the log exceeds its size
    /// limit, compaction uses [`Self::FullSpeed`] instead.
    Background,
    /// Large steps without pauses.
    FullSpeed,
}

impl CompactionPace {
    /// Returns the pace of the next step, which is full speed while the log exceeds its size limit.
    fn effective(self, core: &Core) -> Self {
        if core.accounting.lock().is_overgrown(core.segment_bytes) {
            Self::FullSpeed
        } else {
            self
        }
    }

    fn step_bytes(self) -> u64 {
        match self {
            Self::Background => BACKGROUND_STEP_BYTES,
            Self::FullSpeed => FULL_SPEED_STEP_BYTES,
        }
    }
}

/// Rewrites the sealed segments that have reclaimable bytes, and removes obsolete files. Segments
/// with damaged frames that may be current are not rewritten. Uses [`CompactionPace::FullSpeed`].
///
/// # Errors
/// The errors of [`crate::Engine::compact`].
pub(crate) fn compact(core: &Core, progress: &mut dyn FnMut(Progress)) -> Result<()> {
    core.check_open()?;
    core.check_not_read_only()?;
    let is_worth_rewriting =
        |usage: &SegmentUsage| usage.damaged == 0 && usage.reclaimable_bytes() > 0;
    let victims: Vec<(SegmentId, SegmentUsage)> = {
        let segments = core.accounting.lock();
        let sealed = segments.sealed();
        sealed
            .filter(|(_, usage)| is_worth_rewriting(usage))
            .collect()
    };
    let total_bytes = victims.iter().map(|(_, usage)| usage.bytes).sum();
    let mut done_bytes = 0;
    let mut damage = None;
    // The oldest segment is rewritten first, because a tombstone can be dropped only after all
    // older frames of its namespace are gone.
    for (id, usage) in victims {
        progress(Progress {
            done_bytes,
            total_bytes,
        });
        done_bytes += usage.bytes;
        let victim = CompactionVictim {
            id,
            is_forced: true,
        };
        match rewrite(
            core,
            &core.acquire_compaction_turn(),
            victim,
            CompactionPace::FullSpeed,
        ) {
            Ok(()) => {}
            Err(error) if is_segment_error(&error) => {
                skip_segment(core, id, &error);
                damage.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let _ = purge_all(core);
    damage.map_or(Ok(()), Err)
}

/// Copies the current frames of a segment to the end of the log, and retires the segment. The files
/// of the segment become obsolete, and are later removed by [`purge`].
///
/// Tombstones that can be dropped ([`droppable_deletes`]) are not copied. If `victim.is_forced` is
/// false, a segment with tombstones is rewritten only if the rewrite reclaims enough space
/// ([`is_worthwhile`]).
///
/// # Errors
/// - A [segment error](is_segment_error): the segment cannot be read.
/// - The errors of the committer when it executes [`JobTask::Copy`] and [`JobTask::Retire`].
pub(crate) fn rewrite(
    core: &Core,
    _turn: &CompactionTurn<'_>,
    victim: CompactionVictim,
    pace: CompactionPace,
) -> Result<()> {
    let segment = victim.id;
    let Some(usage) = core.accounting.lock().get(segment) else {
        // Another thread retired the segment before this thread acquired its compaction turn.
        return Ok(());
    };
    let entries = core.directory.entries(segment, usage.bytes)?;
    let deletes = droppable_deletes(core, segment, &entries)?;
    if !victim.is_forced && usage.tombstones > 0 && !is_worthwhile(&usage, &deletes) {
        core.accounting.lock().mark_tombstones_needed(segment);
        return Ok(());
    }
    // On a full disk, the reserve file can be removed to free disk space for the copies. The
    // reserve file may be removed only if the copies need at most three quarters of its space. The
    // last quarter is a margin.
    let may_use_reserve = usage.current_bytes() <= core.reserve_bytes / 4 * 3;
    let mut step = Vec::new();
    let mut step_bytes = 0;
    let mut step_pace = pace.effective(core);
    for entry in &entries {
        let from = FrameLocation::at(segment, entry);
        if core.table.entry(entry.hash) != Some(from) || deletes.contains_key(&entry.hash) {
            continue;
        }
        let bytes = u64::from(entry.bytes);
        let is_full =
            step_bytes + bytes > step_pace.step_bytes() || step.len() >= MAX_COPIED_FRAMES;
        if is_full && !step.is_empty() {
            let start = Instant::now();
            let copies = JobTask::Copy(std::mem::take(&mut step));
            core.queue.run_task(copies, may_use_reserve)?;
            if step_pace == CompactionPace::Background {
                core.compaction_wakeup.sleep(start.elapsed());
            }
            step_bytes = 0;
            step_pace = pace.effective(core);
        }
        step_bytes += bytes;
        step.push(read_copy(core, entry.hash, from)?);
    }
    if !step.is_empty() {
        core.queue.run_task(JobTask::Copy(step), may_use_reserve)?;
    }
    let deletes = deletes.into_iter().collect();
    let retire = JobTask::Retire { segment, deletes };
    core.queue.run_task(retire, may_use_reserve)?;
    core.obsolete_segments().push(segment);
    core.counters.segment_rewritten();
    Ok(())
}

/// Reads a frame that will be copied, and verifies all checksums of the frame.
fn read_copy(core: &Core, hash: NamespaceHash, from: FrameLocation) -> Result<FrameCopy> {
    let is_expected =
        |meta: &FrameMeta| core.directory.hash(&meta.names.user, &meta.names.client) == hash;
    let Frame {
        header,
        names,
        members,
        usage,
        inline,
    } = core.reader.any_frame(&from, is_expected)?;
    let path = core.reader.path(from.segment);
    let corrupt = |what| Error::corrupt(&path, from.offset.into(), what);
    let frame = EncodedFrame::new(
        header.kind,
        hash,
        (&names.user, &names.client),
        &members,
        inline,
    )
    .ok_or_else(|| corrupt("the frame exceeds the maximum length"))?;
    Ok(FrameCopy {
        from,
        names,
        frame,
        usage,
        modified_ms: header.modified_ms,
    })
}

/// Returns true if rewriting a segment reclaims more than a quarter of the bytes of the segment.
/// `deletes` are the tombstones that need not be copied.
fn is_worthwhile(usage: &SegmentUsage, deletes: &HashMap<NamespaceHash, FrameLocation>) -> bool {
    let droppable: u64 = deletes.values().map(|entry| u64::from(entry.bytes)).sum();
    let reclaimable = usage.reclaimable_bytes();
    let stale = reclaimable - usage.tombstone_bytes.min(reclaimable);
    stale + droppable > usage.bytes / 4
}

/// Returns the current tombstones of a segment that can be dropped, because no older segment
/// contains a frame of the same namespace.
///
/// Newer segments cannot contain an older frame of the namespace, because only current frames are
/// copied to the end of the log.
fn droppable_deletes(
    core: &Core,
    segment: SegmentId,
    entries: &[SummaryEntry],
) -> Result<HashMap<NamespaceHash, FrameLocation>> {
    let mut deletes: HashMap<NamespaceHash, FrameLocation> = entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Delete)
        .map(|entry| (entry.hash, FrameLocation::at(segment, entry)))
        .filter(|(hash, entry)| core.table.entry(*hash) == Some(*entry))
        .collect();
    // A lost frame (damaged bytes of an unknown namespace) makes every namespace without a newer
    // frame unreadable. Dropping a tombstone could make its namespace unreadable, because the
    // tombstone may be the only frame of the namespace that is newer than the lost frame.
    // Therefore, no tombstone is dropped if the store has a lost frame.
    if core.table.loss().is_some() {
        deletes.clear();
    }
    let older: Vec<_> = {
        let segments = core.accounting.lock();
        let older = segments.all().take_while(|(id, _)| *id < segment);
        older.filter(|(_, usage)| usage.has_stale()).collect()
    };
    for (id, usage) in older {
        if deletes.is_empty() {
            break;
        }
        match core.directory.entries(id, usage.bytes) {
            Ok(entries) => {
                for entry in entries {
                    deletes.remove(&entry.hash);
                }
            }
            // An older segment that cannot be read may contain a frame of any namespace, so no
            // tombstone can be dropped.
            Err(error) if error.is_damage() => deletes.clear(),
            Err(error) => return Err(error),
        }
    }
    Ok(deletes)
}
