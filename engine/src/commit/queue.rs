//! The queue in front of the committer, and the promise that each write gets.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::commit::change::WriteRequest;
use crate::commit::job::{CommitJob, JobTask, SnapshotPoint, SnapshotRequest};
use crate::commit::promise::{Acknowledgement, Commit};
use crate::format::frame::encoded::EncodedFrame;
use crate::model::error::{Error, Result};
use crate::platform::cache_padded::CachePadded;

/// One write that waits for the committer.
pub(crate) struct QueuedWrite {
    pub(crate) write: WriteRequest,
    pub(crate) acknowledgement: Acknowledgement,
}

impl QueuedWrite {
    /// And what its writer waits for.
    pub(crate) fn new(write: WriteRequest) -> (Self, Commit) {
        let (acknowledgement, commit) = Acknowledgement::new();
        let request = Self {
            write,
            acknowledgement,
        };
        (request, commit)
    }
}

/// What the committer takes at once.
#[derive(Default)]
pub(crate) struct QueuedWork {
    pub(crate) requests: Vec<QueuedWrite>,
    pub(crate) job: Option<CommitJob>,
    /// Snapshots that are to be taken behind the writes.
    pub(crate) snapshots: Vec<SnapshotRequest>,
    /// Whether nothing is left behind it in the queue.
    pub(crate) is_all: bool,
}

impl QueuedWork {
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.job.is_none() && self.snapshots.is_empty()
    }
}

/// The writes that wait, bounded in bytes, a place for one job of compaction, and the
/// snapshots that are asked for.
pub(crate) struct CommitQueue {
    max_bytes: u64,
    state: Mutex<CommitQueueState>,
    /// Whether a writer who commits by itself has to look behind the lock. Changed with it
    /// held, and only where it changes: who reads it need not take its cache line from
    /// another thread.
    is_busy: CachePadded<AtomicBool>,
    /// Something was queued, or the queue was closed.
    filled: Condvar,
    /// Something was taken, or the queue was closed.
    drained: Condvar,
}

#[derive(Default)]
struct CommitQueueState {
    requests: VecDeque<QueuedWrite>,
    bytes: u64,
    job: Option<CommitJob>,
    snapshots: Vec<SnapshotRequest>,
    closed: bool,
    /// Whether the committer's thread sleeps: to wake one that does not is a system call
    /// all the same.
    is_awaited: bool,
}

impl CommitQueueState {
    fn has_work(&self) -> bool {
        !self.requests.is_empty() || self.job.is_some() || !self.snapshots.is_empty()
    }
}

/// Memory that a request takes besides its frame, roughly.
const REQUEST_BYTES: u64 = 512;

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

    /// Whether it is open, and nothing waits: what this thread has queued before is seen,
    /// and, by who holds the committer, that it was closed before the committer was.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_busy.0.load(Ordering::Relaxed)
    }

    /// To be called with the lock held, once what it guards was changed.
    fn note(&self, state: &CommitQueueState) {
        let is_busy = state.closed || state.has_work();
        if self.is_busy.0.load(Ordering::Relaxed) != is_busy {
            self.is_busy.0.store(is_busy, Ordering::Relaxed);
        }
    }

    /// Queues a write, or decides at once that it cannot be.
    pub(crate) fn submit(&self, write: WriteRequest) -> Commit {
        let state = self.lock();
        if !state.closed && state.bytes >= self.max_bytes {
            return Commit::decided(Err(Error::Overloaded));
        }
        self.push(state, write)
    }

    /// The same, waiting for room.
    pub(crate) fn submit_blocking(&self, write: WriteRequest) -> Commit {
        let state = self
            .drained
            .wait_while(self.lock(), |state| {
                !state.closed && state.bytes >= self.max_bytes
            })
            .unwrap_or_else(PoisonError::into_inner);
        self.push(state, write)
    }

    fn push(&self, mut state: MutexGuard<'_, CommitQueueState>, write: WriteRequest) -> Commit {
        if state.closed {
            return Commit::decided(Err(Error::Closed));
        }
        let (request, commit) = QueuedWrite::new(write);
        state.bytes += weight(&request.write.frame);
        state.requests.push_back(request);
        self.note(&state);
        self.wake(state);
        commit
    }

    /// Wakes the committer's thread, if it sleeps.
    fn wake(&self, mut state: MutexGuard<'_, CommitQueueState>) {
        let is_awaited = std::mem::take(&mut state.is_awaited);
        drop(state);
        if is_awaited {
            self.filled.notify_one();
        }
    }

    /// Has the committer carry out a task with its next batch. Blocks until that is done.
    /// There is one task at a time: the callers hold the turn to compact.
    ///
    /// # Errors
    /// [`Error::Closed`], and those of the task.
    pub(crate) fn run_task(&self, task: JobTask, may_use_reserve: bool) -> Result<()> {
        let (done, outcome) = sync_channel(1);
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        debug_assert!(state.job.is_none(), "there is one task at a time");
        state.job = Some(CommitJob {
            task,
            may_use_reserve,
            done,
        });
        self.note(&state);
        self.wake(state);
        outcome.recv().unwrap_or(Err(Error::Closed))
    }

    /// The store between two batches. Blocks until the current batch is committed.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub(crate) fn snapshot_point(&self) -> Result<SnapshotPoint> {
        let (done, point) = sync_channel(1);
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        state.snapshots.push(done);
        self.note(&state);
        self.wake(state);
        point.recv().map_err(|_| Error::Closed)
    }

    /// Waits for work. False once the queue is closed and empty.
    pub(crate) fn wait(&self) -> bool {
        let mut state = self.lock();
        while !state.closed && !state.has_work() {
            state.is_awaited = true;
            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.is_awaited = false;
        state.has_work()
    }

    /// Writes that wait, and the memory that they take.
    pub(crate) fn waiting(&self) -> (u64, u64) {
        let state = self.lock();
        (state.requests.len() as u64, state.bytes)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Moves what waits into `work`: writes in order, up to these bounds but at least one,
    /// the job, if there is one, and the snapshots that are asked for.
    pub(crate) fn take(&self, work: &mut QueuedWork, max_bytes: u64, max_requests: usize) {
        let mut state = self.lock();
        work.job = state.job.take();
        work.snapshots.append(&mut state.snapshots);
        let batch = &mut work.requests;
        let mut bytes = 0;
        while let Some(next) = state.requests.front() {
            let weight = weight(&next.write.frame);
            if !batch.is_empty() && (bytes + weight > max_bytes || batch.len() >= max_requests) {
                break;
            }
            bytes += weight;
            batch.extend(state.requests.pop_front());
        }
        let was_full = state.bytes >= self.max_bytes;
        state.bytes -= bytes;
        work.is_all = state.requests.is_empty();
        self.note(&state);
        drop(state);
        if was_full {
            self.drained.notify_all();
        }
    }

    /// Refuses what comes from now on. What is queued will be taken.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.note(&state);
        drop(state);
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// Closes it, and answers what is queued that it will not be committed.
    pub(crate) fn abort(&self) {
        self.close();
        let mut state = self.lock();
        let requests = std::mem::take(&mut state.requests);
        let abandoned = (
            requests,
            state.job.take(),
            std::mem::take(&mut state.snapshots),
        );
        drop(state);
        drop(abandoned);
    }
}

fn weight(frame: &EncodedFrame) -> u64 {
    frame.max_frame_bytes() + REQUEST_BYTES
}
