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
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::limits::Usage;
use crate::log::frame::{Draft, Meta};
use crate::log::reader::Frame;
use crate::log::summary::{self, EntryKind};
use crate::names::{Names, NamespaceHash};
use crate::shared::Shared;
use crate::space::{Held, Victim};
use crate::table::Entry;
use crate::verify::Progress;

/// Bytes that are copied in one step, at most, one frame excepted: little more than a
/// small write that shares the sync.
const STEP_BYTES: u64 = 16 * 1024;
/// The same where there is no time for a rest.
const HURRIED_STEP_BYTES: u64 = 256 * 1024;
/// Frames of one step, at most.
pub(crate) const MAX_STEP_FRAMES: usize = 1024;

/// What the committer is asked to do, and how it answers.
pub(crate) struct Job {
    pub(crate) task: Task,
    /// The space that is kept for deletes may be used: this gives more back.
    pub(crate) may_use_reserve: bool,
    /// Dropped without an answer, the engine has been closed.
    pub(crate) done: SyncSender<Result<()>>,
}

pub(crate) enum Task {
    /// Append copies of these frames, where they are still current.
    Copy(Vec<Copy>),
    /// Take a segment out of the log in which nothing but these deletes is current.
    Retire {
        segment: u32,
        deletes: Vec<(NamespaceHash, Entry)>,
    },
    /// End the segment that is being written.
    Seal,
    /// Remove what is in the folder of the log and no part of it.
    Tidy,
}

/// A frame that is to be copied.
pub(crate) struct Copy {
    pub(crate) from: Entry,
    pub(crate) names: Names,
    pub(crate) draft: Draft,
    pub(crate) usage: Usage,
    pub(crate) modified_ms: u64,
}

/// Wakes the thread that compacts, and tells it to stop.
#[derive(Default)]
pub(crate) struct Bell {
    state: Mutex<BellState>,
    changed: Condvar,
}

#[derive(Default)]
struct BellState {
    rung: bool,
    closed: bool,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, BellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to do.
    pub(crate) fn ring(&self) {
        self.lock().rung = true;
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits until there is something to do; false once it is closed.
    fn wait(&self) -> bool {
        let mut state = self
            .changed
            .wait_while(self.lock(), |state| !state.rung && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.rung = false;
        !state.closed
    }

    /// Waits so long, or until it is closed.
    fn rest(&self, time: Duration) {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), time, |state| !state.closed);
        drop(waited);
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

/// The background thread: gives back what can be given back, as long as the engine is
/// open.
pub(crate) fn run(shared: &Shared) {
    // Blobs of an earlier life that no document lies in wait already.
    let _ = sweep(shared);
    loop {
        while let Some(victim) = next_victim(shared) {
            let outcome = rewrite(shared, victim, Pace::Polite);
            let _ = sweep(shared);
            match outcome {
                Ok(()) => {}
                Err(error) if is_lasting(&error) => leave(shared, victim.id, &error),
                // Tried again when the bell rings next.
                Err(_) => break,
            }
        }
        if !shared.bell.wait() {
            return;
        }
        let _ = sweep(shared);
    }
}

/// Whether a segment cannot be read, and is to stay as it is for that.
pub(crate) fn is_lasting(error: &Error) -> bool {
    error.is_damage() || matches!(error, Error::UnsupportedFormat { .. })
}

/// Leaves a segment as it is, so that the others are not kept waiting for it.
pub(crate) fn leave(shared: &Shared, segment: u32, error: &Error) {
    let mut segments = shared.space.lock();
    match error {
        // The disk may give it back another time.
        Error::Io { .. } => segments.pass_over(segment),
        _ => segments.spare(segment),
    }
}

fn next_victim(shared: &Shared) -> Option<Victim> {
    if shared.bell.is_closed() {
        return None;
    }
    let segments = shared.space.lock();
    if shared.has_reserve.load(Ordering::Relaxed) {
        segments.victim(shared.segment_bytes)
    } else {
        segments.cheapest()
    }
}

/// How much of the disk is left to others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Half of the time, and little at once, unless the log has outgrown its bound.
    Polite,
    Hurried,
}

impl Pace {
    fn now(self, shared: &Shared) -> Self {
        if shared.space.lock().is_overgrown(shared.segment_bytes) {
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
pub(crate) fn compact(shared: &Shared, progress: &mut dyn FnMut(Progress)) -> Result<()> {
    shared.refuse_closed()?;
    let stale = |held: &Held| held.damaged == 0 && held.reclaimable_bytes() > 0;
    let sealed: Vec<(u32, Held)> = {
        let segments = shared.space.lock();
        segments.sealed().filter(|(_, held)| stale(held)).collect()
    };
    let total_bytes = sealed.iter().map(|(_, held)| held.bytes).sum();
    let mut done_bytes = 0;
    let whole = true;
    let mut damage = None;
    // The oldest first: what is older than a delete goes before the delete does.
    for (id, held) in sealed {
        progress(Progress {
            done_bytes,
            total_bytes,
        });
        done_bytes += held.bytes;
        match rewrite(shared, Victim { id, whole }, Pace::Hurried) {
            Ok(()) => {}
            Err(error) if is_lasting(&error) => {
                leave(shared, id, &error);
                damage.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let _ = sweep_all(shared);
    damage.map_or(Ok(()), Err)
}

/// Copies what is current in a segment to the end of the log, and removes it.
fn rewrite(shared: &Shared, victim: Victim, pace: Pace) -> Result<()> {
    let _turn = shared.turn_to_compact();
    rewrite_in_turn(shared, victim, pace)
}

/// The same, by who has the turn.
pub(crate) fn rewrite_in_turn(shared: &Shared, victim: Victim, pace: Pace) -> Result<()> {
    let segment = victim.id;
    let Some(held) = shared.space.lock().get(segment) else {
        // Whoever had the turn before has done it.
        return Ok(());
    };
    let entries = shared.place.entries(segment, held.bytes)?;
    let deletes = needless_deletes(shared, segment, &entries)?;
    if !victim.whole && held.tombstones > 0 && !is_worthwhile(&held, &deletes) {
        shared.space.lock().keep_tombstones(segment);
        return Ok(());
    }
    let may_use_reserve = held.current_bytes() <= shared.reserve_bytes / 4 * 3;
    let mut step = Vec::new();
    let mut step_bytes = 0;
    let mut now = pace.now(shared);
    for entry in &entries {
        let from = Entry::at(segment, entry);
        if shared.table.entry(entry.hash) != Some(from) || deletes.contains_key(&entry.hash) {
            continue;
        }
        let bytes = u64::from(entry.bytes);
        if step_bytes + bytes > now.step_bytes() || step.len() >= MAX_STEP_FRAMES {
            let began = Instant::now();
            submit(
                shared,
                Task::Copy(std::mem::take(&mut step)),
                may_use_reserve,
            )?;
            if now == Pace::Polite {
                shared.bell.rest(began.elapsed());
            }
            step_bytes = 0;
            now = pace.now(shared);
        }
        step_bytes += bytes;
        step.push(read_copy(shared, entry.hash, from)?);
    }
    submit(shared, Task::Copy(step), may_use_reserve)?;
    let deletes = deletes.into_iter().collect();
    let retire = Task::Retire { segment, deletes };
    submit(shared, retire, may_use_reserve)?;
    shared.doomed_segments().push(segment);
    shared.meters.rewritten();
    Ok(())
}

/// Reads a frame that is to be copied, and checks all of it.
fn read_copy(shared: &Shared, hash: NamespaceHash, from: Entry) -> Result<Copy> {
    let is_right = |meta: &Meta| shared.place.hash(&meta.user, &meta.client) == hash;
    let Frame {
        header,
        user,
        client,
        members,
        usage,
        inline,
    } = shared.reader.any_frame(&from, is_right)?;
    let path = shared.reader.path(from.segment);
    let corrupt = |what| Error::corrupt(&path, from.offset.into(), what);
    let names = Names::new(&user, &client)
        .map_err(|_| corrupt("the frame has names that no namespace can have"))?;
    let draft = Draft::new(header.kind, hash, (&user, &client), &members, inline)
        .ok_or_else(|| corrupt("the frame is too long"))?;
    Ok(Copy {
        from,
        names,
        draft,
        usage,
        modified_ms: header.modified_ms,
    })
}

/// Removes the files of what is no part of the store any more, and of no snapshot. What
/// cannot be removed is tried again by the next sweep; the error tells why.
pub(crate) fn sweep(shared: &Shared) -> Result<()> {
    let _turn = shared.turn_to_sweep();
    let mut outcome = shared.intake.blobs.sweep(&shared.pins);
    shared.doomed_segments().retain(|segment| {
        if shared.pins.holds_segment(*segment) {
            return true;
        }
        match shared.place.remove(*segment) {
            Ok(true) => {
                shared.reader.forget(*segment);
                false
            }
            Ok(false) => true,
            Err(error) => {
                outcome = std::mem::replace(&mut outcome, Ok(())).and(Err(error));
                true
            }
        }
    });
    outcome
}

/// The same, until nothing of what is to go now is left but what snapshots hold; how many
/// files that is. What is to go from then on is for a later sweep: there need be no end of it.
pub(crate) fn sweep_all(shared: &Shared) -> Result<u64> {
    let segments = shared.doomed_segments().clone();
    let blobs = shared.intake.blobs.doomed_ids();
    loop {
        sweep(shared)?;
        if let Some(held) = held_only(shared, &segments, &blobs) {
            return Ok(held);
        }
        // The catalogue is being built from them.
        shared.place.wait_for_walks();
    }
}

/// How many of these are still there, if snapshots hold every one that is.
fn held_only(shared: &Shared, segments: &[u32], blobs: &[u64]) -> Option<u64> {
    let _turn = shared.turn_to_sweep();
    let mut left = shared.doomed_segments().clone();
    left.retain(|id| segments.contains(id));
    let is_held = left.iter().all(|id| shared.pins.holds_segment(*id));
    let mut left_blobs = shared.intake.blobs.doomed_ids();
    left_blobs.retain(|id| blobs.contains(id));
    let are_held = left_blobs.iter().all(|id| shared.pins.holds_blob(*id));
    (is_held && are_held).then_some((left.len() + left_blobs.len()) as u64)
}

/// Hands the committer a task and waits until it is done.
pub(crate) fn submit(shared: &Shared, task: Task, may_use_reserve: bool) -> Result<()> {
    if matches!(&task, Task::Copy(copies) if copies.is_empty()) {
        return Ok(());
    }
    let (done, outcome) = sync_channel(1);
    shared.queue.submit_job(Job {
        task,
        may_use_reserve,
        done,
    })?;
    outcome.recv().unwrap_or(Err(Error::Closed))
}

/// Whether rewriting gives back enough although some deletes have to stay.
fn is_worthwhile(held: &Held, deletes: &HashMap<NamespaceHash, Entry>) -> bool {
    let needless: u64 = deletes.values().map(|entry| u64::from(entry.bytes)).sum();
    let given_back = held.reclaimable_bytes() - held.tombstone_bytes.min(held.reclaimable_bytes());
    given_back + needless > held.bytes / 4
}

/// The current deletes in a segment that hide nothing any more: no older segment
/// holds a frame of their namespace. (A newer one cannot: a frame is copied to the end
/// of the log, and only while it is current.)
fn needless_deletes(
    shared: &Shared,
    segment: u32,
    entries: &[summary::Entry],
) -> Result<HashMap<NamespaceHash, Entry>> {
    let mut deletes: HashMap<NamespaceHash, Entry> = entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::Delete)
        .map(|entry| (entry.hash, Entry::at(segment, entry)))
        .filter(|(hash, entry)| shared.table.entry(*hash) == Some(*entry))
        .collect();
    // Without its delete, a namespace would be among those of which nothing is known.
    if shared.table.loss().is_some() {
        deletes.clear();
    }
    let older: Vec<_> = {
        let segments = shared.space.lock();
        let older = segments.all().take_while(|(id, _)| *id < segment);
        older.filter(|(_, held)| held.has_stale()).collect()
    };
    for (id, held) in older {
        if deletes.is_empty() {
            break;
        }
        match shared.place.entries(id, held.bytes) {
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
