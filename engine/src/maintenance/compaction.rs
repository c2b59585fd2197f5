//! Compaction: segments of the log that are mostly stale are written anew and removed,
//! and so are blobs that no document lies in any more.
//!
//! It reads and decides what to copy; the committer, the only writer of the log,
//! appends the copies behind the writes that wait anyway, so that they share a sync,
//! and takes the old segment out of the manifest. A copy keeps its revision. Whatever
//! happens in between, the log holds every current frame at least once.
//!
//! Pace: one small step at a time, and then a rest of the same length; large steps
//! without a rest once the log has outgrown what it may take.

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
use crate::model::names::{Names, NamespaceHash};
use crate::model::progress::Progress;
use crate::storage::log::reader::Frame;

/// Bytes that are copied in one step, at most, one frame excepted: little more than a
/// small write that shares the sync.
const STEP_BYTES: u64 = 16 * 1024;
/// The same where there is no time for a rest.
const HURRIED_STEP_BYTES: u64 = 256 * 1024;

/// The background thread: gives back what can be given back, as long as the engine is
/// open.
pub(crate) fn run(core: &Core) {
    // Blobs of an earlier life that no document lies in wait already.
    let _ = purge(core);
    loop {
        while let Some(victim) = next_victim(core) {
            let outcome = rewrite(
                core,
                &core.turn_to_compact(),
                victim,
                CompactionPace::Polite,
            );
            let _ = purge(core);
            match outcome {
                Ok(()) => {}
                Err(error) if is_lasting(&error) => leave(core, victim.id, &error),
                // Tried again when the bell rings next.
                Err(_) => break,
            }
        }
        if !core.compaction_wakeup.wait() {
            return;
        }
        let _ = purge(core);
    }
}

/// Whether a segment cannot be read, and is to stay as it is for that.
pub(crate) fn is_lasting(error: &Error) -> bool {
    error.is_damage() || matches!(error, Error::UnsupportedFormat { .. })
}

/// Leaves a segment as it is, so that the others are not kept waiting for it.
pub(crate) fn leave(core: &Core, segment: SegmentId, error: &Error) {
    let mut segments = core.accounting.lock();
    match error {
        // The disk may give it back another time.
        Error::Unreadable { .. } => segments.defer(segment),
        _ => segments.mark_damaged(segment),
    }
}

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

/// How much of the disk is left to others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompactionPace {
    /// Half of the time, and little at once, unless the log has outgrown its bound.
    Polite,
    Hurried,
}

impl CompactionPace {
    fn now(self, core: &Core) -> Self {
        if core.accounting.lock().is_overgrown(core.segment_bytes) {
            Self::Hurried
        } else {
            self
        }
    }

    fn step_bytes(self) -> u64 {
        match self {
            Self::Polite => STEP_BYTES,
            Self::Hurried => HURRIED_STEP_BYTES,
        }
    }
}

/// Writes every sealed segment anew that holds anything stale, without a rest.
pub(crate) fn compact(core: &Core, progress: &mut dyn FnMut(Progress)) -> Result<()> {
    core.refuse_closed()?;
    let stale = |held: &SegmentUsage| held.damaged == 0 && held.reclaimable_bytes() > 0;
    let sealed: Vec<(SegmentId, SegmentUsage)> = {
        let segments = core.accounting.lock();
        segments.sealed().filter(|(_, held)| stale(held)).collect()
    };
    let total_bytes = sealed.iter().map(|(_, held)| held.bytes).sum();
    let mut done_bytes = 0;
    let mut damage = None;
    // The oldest first: what is older than a delete goes before the delete does.
    for (id, held) in sealed {
        progress(Progress {
            done_bytes,
            total_bytes,
        });
        done_bytes += held.bytes;
        let victim = CompactionVictim {
            id,
            is_forced: true,
        };
        match rewrite(
            core,
            &core.turn_to_compact(),
            victim,
            CompactionPace::Hurried,
        ) {
            Ok(()) => {}
            Err(error) if is_lasting(&error) => {
                leave(core, id, &error);
                damage.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let _ = purge_all(core);
    damage.map_or(Ok(()), Err)
}

/// Copies what is current in a segment to the end of the log, and removes it.
///
/// The turn must be held for the whole time in which the victim is chosen by what it holds.
pub(crate) fn rewrite(
    core: &Core,
    _turn: &CompactionTurn<'_>,
    victim: CompactionVictim,
    pace: CompactionPace,
) -> Result<()> {
    let segment = victim.id;
    let Some(held) = core.accounting.lock().get(segment) else {
        // Whoever had the turn before has done it.
        return Ok(());
    };
    let entries = core.directory.entries(segment, held.bytes)?;
    let deletes = needless_deletes(core, segment, &entries)?;
    if !victim.is_forced && held.tombstones > 0 && !is_worthwhile(&held, &deletes) {
        core.accounting.lock().mark_tombstones_needed(segment);
        return Ok(());
    }
    let may_use_reserve = held.current_bytes() <= core.reserve_bytes / 4 * 3;
    let mut step = Vec::new();
    let mut step_bytes = 0;
    let mut now = pace.now(core);
    for entry in &entries {
        let from = FrameLocation::at(segment, entry);
        if core.table.entry(entry.hash) != Some(from) || deletes.contains_key(&entry.hash) {
            continue;
        }
        let bytes = u64::from(entry.bytes);
        let is_full = step_bytes + bytes > now.step_bytes() || step.len() >= MAX_COPIED_FRAMES;
        if is_full && !step.is_empty() {
            let began = Instant::now();
            let copies = JobTask::Copy(std::mem::take(&mut step));
            core.queue.run_task(copies, may_use_reserve)?;
            if now == CompactionPace::Polite {
                core.compaction_wakeup.sleep(began.elapsed());
            }
            step_bytes = 0;
            now = pace.now(core);
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

/// Reads a frame that is to be copied, and checks all of it.
fn read_copy(core: &Core, hash: NamespaceHash, from: FrameLocation) -> Result<FrameCopy> {
    let is_right = |meta: &FrameMeta| core.directory.hash(&meta.user, &meta.client) == hash;
    let Frame {
        header,
        user,
        client,
        members,
        usage,
        inline,
    } = core.reader.any_frame(&from, is_right)?;
    let path = core.reader.path(from.segment);
    let corrupt = |what| Error::corrupt(&path, from.offset.into(), what);
    let names = Names::new(&user, &client)
        .map_err(|_| corrupt("the frame has names that no namespace can have"))?;
    let frame = EncodedFrame::new(header.kind, hash, (&user, &client), &members, inline)
        .ok_or_else(|| corrupt("the frame is too long"))?;
    Ok(FrameCopy {
        from,
        names,
        frame,
        usage,
        modified_ms: header.modified_ms,
    })
}

/// Whether rewriting gives back enough although some deletes have to stay.
fn is_worthwhile(held: &SegmentUsage, deletes: &HashMap<NamespaceHash, FrameLocation>) -> bool {
    let needless: u64 = deletes.values().map(|entry| u64::from(entry.bytes)).sum();
    let given_back = held.reclaimable_bytes() - held.tombstone_bytes.min(held.reclaimable_bytes());
    given_back + needless > held.bytes / 4
}

/// The current deletes in a segment that hide nothing any more: no older segment
/// holds a frame of their namespace. (A newer one cannot: a frame is copied to the end
/// of the log, and only while it is current.)
fn needless_deletes(
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
    // Without its delete, a namespace would be among those of which nothing is known.
    if core.table.loss().is_some() {
        deletes.clear();
    }
    let older: Vec<_> = {
        let segments = core.accounting.lock();
        let older = segments.all().take_while(|(id, _)| *id < segment);
        older.filter(|(_, held)| held.has_stale()).collect()
    };
    for (id, held) in older {
        if deletes.is_empty() {
            break;
        }
        match core.directory.entries(id, held.bytes) {
            Ok(entries) => {
                for entry in entries {
                    deletes.remove(&entry.hash);
                }
            }
            // What it held is not known.
            Err(error) if error.is_damage() => deletes.clear(),
            Err(error) => return Err(error),
        }
    }
    Ok(deletes)
}
