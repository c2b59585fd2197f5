//! The commit queue: writes, jobs and snapshot requests that are waiting for the committer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::commit::change::WriteRequest;
use crate::commit::job::{CommitJob, JobTask, SnapshotPoint, SnapshotRequest};
use crate::commit::promise::{Acknowledgement, Commit};
use crate::format::frame::encoded::EncodedFrame;
use crate::model::error::{Error, Result};
use crate::platform::cache_padded::CachePadded;

/// A write that is waiting for the committer.
pub(crate) struct QueuedWrite {
    pub(crate) write: WriteRequest,
    pub(crate) acknowledgement: Acknowledgement,
}

impl QueuedWrite {
    /// Creates a queued write, and the [`Commit`] that resolves to the outcome of the write.
    pub(crate) fn new(write: WriteRequest) -> (Self, Commit) {
        let (acknowledgement, commit) = Acknowledgement::new();
        let queued = Self {
            write,
            acknowledgement,
        };
        (queued, commit)
    }
}

/// The writes, job and snapshot requests that were taken from the queue for one batch.
#[derive(Default)]
pub(crate) struct QueuedWork {
    pub(crate) writes: Vec<QueuedWrite>,
    pub(crate) job: Option<CommitJob>,
    /// The snapshot requests, which are answered after the writes are committed.
    pub(crate) snapshots: Vec<SnapshotRequest>,
    /// True if no writes remain in the queue.
    pub(crate) is_queue_drained: bool,
}

impl QueuedWork {
    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.job.is_none() && self.snapshots.is_empty()
    }
}

/// The commit queue: writes up to a memory limit, at most one job, and any number of snapshot
/// requests.
pub(crate) struct CommitQueue {
    max_bytes: u64,
    state: Mutex<CommitQueueState>,
    /// True if the queue is closed or not empty. A blocking writer that is the commit leader reads
    /// this flag instead of locking `state`. The flag is changed only while `state` is locked. The
    /// flag is written only if its value changes, because each write to the flag invalidates the
    /// cache line that other threads read.
    is_busy: CachePadded<AtomicBool>,
    /// Notified when the queue is no longer empty, and when the queue is closed.
    filled: Condvar,
    /// Notified when a batch was taken from a full queue, and when the queue is closed.
    drained: Condvar,
}

#[derive(Default)]
struct CommitQueueState {
    writes: VecDeque<QueuedWrite>,
    /// Memory of the queued writes, in bytes.
    bytes: u64,
    job: Option<CommitJob>,
    snapshots: Vec<SnapshotRequest>,
    is_closed: bool,
    /// The error of later submissions, if [`CommitQueue::abort`] has closed the queue.
    failure: Option<Error>,
    /// True if [`CommitQueue::wake`] was called since the committer thread last waited.
    is_woken: bool,
    /// True if the committer thread is waiting for work. The committer thread is notified only if
    /// it is waiting, because every notification costs a system call.
    is_committer_waiting: bool,
}

impl CommitQueueState {
    fn has_work(&self) -> bool {
        !self.writes.is_empty() || self.job.is_some() || !self.snapshots.is_empty()
    }

    fn closed_error(&self) -> Error {
        self.failure.clone().unwrap_or(Error::Closed)
    }
}

/// The reason why [`CommitQueue::wait`] has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueueState {
    HasWork,
    /// The queue is empty and open, and [`CommitQueue::wake`] was called.
    Woken,
    /// The queue is empty and open, and the timeout has passed.
    TimedOut,
    /// The queue is empty and closed.
    Closed,
}

/// Approximate memory of a queued write, in bytes, excluding the frame.
const WRITE_OVERHEAD_BYTES: u64 = 512;

impl CommitQueue {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            state: Mutex::default(),
            is_busy: CachePadded::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, CommitQueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if the queue is open and empty. Never blocks.
    ///
    /// Only the commit leader may call this function. The result takes all earlier submissions of
    /// the calling thread into account. The function returns false after the committer has been
    /// closed.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_busy.0.load(Ordering::Relaxed)
    }

    /// Updates `is_busy`. Call this function after each change to `state`, before the lock is
    /// released.
    fn update_busy(&self, state: &CommitQueueState) {
        let is_busy = state.is_closed || state.has_work();
        if self.is_busy.0.load(Ordering::Relaxed) != is_busy {
            self.is_busy.0.store(is_busy, Ordering::Relaxed);
        }
    }

    /// Queues a write, and never waits for space. The returned [`Commit`] resolves to
    /// [`Error::Overloaded`] if the queue is full, and to [`Error::Closed`] if the queue is closed.
    pub(crate) fn submit(&self, write: WriteRequest) -> Commit {
        let state = self.lock();
        if !state.is_closed && state.bytes >= self.max_bytes {
            return Commit::decided(Err(Error::Overloaded));
        }
        self.push(state, write)
    }

    /// Queues a write. Blocks while the queue is full. If the queue is closed, the returned
    /// [`Commit`] resolves to [`Error::Closed`].
    pub(crate) fn submit_blocking(&self, write: WriteRequest) -> Commit {
        let state = self
            .drained
            .wait_while(self.lock(), |state| {
                !state.is_closed && state.bytes >= self.max_bytes
            })
            .unwrap_or_else(PoisonError::into_inner);
        self.push(state, write)
    }

    fn push(&self, mut state: MutexGuard<'_, CommitQueueState>, write: WriteRequest) -> Commit {
        if state.is_closed {
            return Commit::decided(Err(state.closed_error()));
        }
        let (queued, commit) = QueuedWrite::new(write);
        state.bytes += memory_bytes(&queued.write.frame);
        state.writes.push_back(queued);
        self.update_busy(&state);
        self.wake_committer(state);
        commit
    }

    /// Unlocks the state, and wakes the committer thread if it is waiting.
    fn wake_committer(&self, mut state: MutexGuard<'_, CommitQueueState>) {
        let is_waiting = std::mem::take(&mut state.is_committer_waiting);
        drop(state);
        if is_waiting {
            self.filled.notify_one();
        }
    }

    /// Queues a task for the committer, which executes the task with the next batch. Blocks until
    /// the task is done.
    ///
    /// Only one task may be queued at a time, so the caller must hold the
    /// [`CompactionTurn`](crate::commit::core::CompactionTurn).
    ///
    /// # Errors
    /// [`Error::Closed`]; the errors of the task.
    pub(crate) fn run_task(&self, task: JobTask, may_use_reserve: bool) -> Result<()> {
        let (done, outcome) = sync_channel(1);
        let mut state = self.lock();
        if state.is_closed {
            return Err(state.closed_error());
        }
        debug_assert!(state.job.is_none(), "only one task may be queued at a time");
        state.job = Some(CommitJob {
            task,
            may_use_reserve,
            done,
        });
        self.update_busy(&state);
        self.wake_committer(state);
        outcome.recv().unwrap_or(Err(Error::Closed))
    }

    /// Returns the state of the store after the next batch, which may be empty. Blocks until the
    /// committer has committed the batch.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub(crate) fn snapshot_point(&self) -> Result<SnapshotPoint> {
        let (done, point) = sync_channel(1);
        let mut state = self.lock();
        if state.is_closed {
            return Err(state.closed_error());
        }
        state.snapshots.push(done);
        self.update_busy(&state);
        self.wake_committer(state);
        point.recv().map_err(|_| Error::Closed)
    }

    /// Blocks until the queue is not empty or is closed, until [`Self::wake`] is called, or until
    /// `timeout` has passed. Only the committer thread may call this function.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> QueueState {
        // The flag is set again after each notification, because the notified thread may find that
        // another thread has already taken the work.
        let must_wait = |state: &mut CommitQueueState| {
            state.is_committer_waiting = !state.is_closed && !state.has_work() && !state.is_woken;
            state.is_committer_waiting
        };
        let state = self.lock();
        let mut state = match timeout {
            None => self
                .filled
                .wait_while(state, must_wait)
                .unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                self.filled
                    .wait_timeout_while(state, timeout, must_wait)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        state.is_committer_waiting = false;
        let is_woken = std::mem::take(&mut state.is_woken);
        if state.has_work() {
            QueueState::HasWork
        } else if state.is_closed {
            QueueState::Closed
        } else if is_woken {
            QueueState::Woken
        } else {
            QueueState::TimedOut
        }
    }

    /// Makes the committer thread return from [`Self::wait`], or makes its next call return at
    /// once.
    pub(crate) fn wake(&self) {
        let mut state = self.lock();
        state.is_woken = true;
        self.wake_committer(state);
    }

    /// Returns the number of queued writes, and their memory in bytes.
    pub(crate) fn size(&self) -> (u64, u64) {
        let state = self.lock();
        (state.writes.len() as u64, state.bytes)
    }

    /// Returns the error of submissions to the closed queue, or `None` if the queue is open.
    pub(crate) fn closed_error(&self) -> Option<Error> {
        let state = self.lock();
        state.is_closed.then(|| state.closed_error())
    }

    /// Moves the next batch into `work`: the job, all snapshot requests, and the first writes of
    /// the queue. The first write is moved even if it is larger than `max_bytes`. More writes are
    /// moved as long as the batch does not exceed `max_bytes` and `max_writes`.
    pub(crate) fn take_batch(&self, work: &mut QueuedWork, max_bytes: u64, max_writes: usize) {
        let mut state = self.lock();
        work.job = state.job.take();
        work.snapshots.append(&mut state.snapshots);
        let batch = &mut work.writes;
        let mut bytes = 0;
        while let Some(next) = state.writes.front() {
            let next_bytes = memory_bytes(&next.write.frame);
            if !batch.is_empty() && (bytes + next_bytes > max_bytes || batch.len() >= max_writes) {
                break;
            }
            bytes += next_bytes;
            batch.extend(state.writes.pop_front());
        }
        let was_full = state.bytes >= self.max_bytes;
        state.bytes -= bytes;
        work.is_queue_drained = state.writes.is_empty();
        self.update_busy(&state);
        drop(state);
        if was_full {
            self.drained.notify_all();
        }
    }

    /// Closes the queue. Later submissions fail with [`Error::Closed`], but writes that are already
    /// queued are committed.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        self.update_busy(&state);
        drop(state);
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// Closes the queue, and drops the writes, job and snapshot requests in the queue, so that no
    /// caller waits for them. Later submissions fail with `failure`.
    pub(crate) fn abort(&self, failure: Error) {
        self.lock().failure = Some(failure);
        self.close();
        let mut state = self.lock();
        let abandoned = (
            std::mem::take(&mut state.writes),
            state.job.take(),
            std::mem::take(&mut state.snapshots),
        );
        // The lock is released before the writes are dropped, because dropping a write wakes its
        // writer.
        drop(state);
        drop(abandoned);
    }
}

/// Returns the memory of a queued write, in bytes.
fn memory_bytes(frame: &EncodedFrame) -> u64 {
    frame.max_frame_bytes() + WRITE_OVERHEAD_BYTES
}
