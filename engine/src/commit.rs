//! The queue in front of the committer, and the promise that each write gets.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::alignment::Apart;
use crate::blob::BlobDraft;
use crate::compaction::Job;
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::limits::Usage;
use crate::log::frame::Draft;
use crate::names::Names;
use crate::revision::{Precondition, Revision};
use crate::snapshot::CutRequest;

/// A write on its way to stable storage.
///
/// It can be awaited on any executor, or waited for with [`Commit::wait`]. Dropping
/// it does not take the write back.
#[derive(Debug)]
#[must_use = "a write that nobody waits for may have failed"]
pub struct Commit(Arc<Promise>);

/// What a write answers: the revision that is current after it, `None` where the
/// namespace is then empty.
pub(crate) type Outcome = Result<Option<Revision>>;

#[derive(Debug, Default)]
struct Promise {
    state: Mutex<PromiseState>,
}

#[derive(Debug, Default)]
struct PromiseState {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

impl Promise {
    fn lock(&self) -> MutexGuard<'_, PromiseState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Commit {
    /// A write that was decided before it was queued.
    pub(crate) fn decided(outcome: Outcome) -> Self {
        let commit = Self(Arc::default());
        commit.0.lock().outcome = Some(outcome);
        commit
    }

    /// Blocks until the write is acknowledged.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`]; [`Error::StorageFull`] and [`Error::Io`]
    /// (nothing was changed); [`Error::Poisoned`] (the outcome is unknown until the
    /// next open); [`Error::Overloaded`] and [`Error::Closed`] (it was not queued).
    pub fn wait(mut self) -> Result<Option<Revision>> {
        if let Some(outcome) = self.0.lock().outcome.take() {
            return outcome;
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(outcome) = Pin::new(&mut self).poll(&mut context) {
                return outcome;
            }
            std::thread::park();
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Future for Commit {
    type Output = Result<Option<Revision>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => state.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

/// The committer's end of a [`Commit`]. Dropped without an answer, it answers that
/// the engine is closed, so that nobody waits for ever.
#[derive(Debug)]
pub(crate) struct Acknowledgement(Option<Arc<Promise>>);

impl Acknowledgement {
    fn new() -> (Self, Commit) {
        let promise = Arc::<Promise>::default();
        (Self(Some(Arc::clone(&promise))), Commit(promise))
    }

    pub(crate) fn answer(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        let Some(promise) = self.0.take() else {
            return;
        };
        let waker = {
            let mut state = promise.lock();
            state.outcome = Some(outcome);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Acknowledgement {
    fn drop(&mut self) {
        self.settle(Err(Error::Closed));
    }
}

/// One write, ready to be committed.
pub(crate) struct Change {
    pub(crate) names: Names,
    pub(crate) draft: Draft,
    pub(crate) usage: Usage,
    /// The blob that the draft names, if any.
    pub(crate) blob: Option<BlobDraft>,
    pub(crate) precondition: Precondition,
    pub(crate) durability: Durability,
}

/// One write that waits for the committer.
pub(crate) struct Request {
    pub(crate) change: Change,
    pub(crate) acknowledgement: Acknowledgement,
}

impl Request {
    /// And what its writer waits for.
    pub(crate) fn new(change: Change) -> (Self, Commit) {
        let (acknowledgement, commit) = Acknowledgement::new();
        let request = Self {
            change,
            acknowledgement,
        };
        (request, commit)
    }
}

/// What the committer takes at once.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) requests: Vec<Request>,
    pub(crate) job: Option<Job>,
    /// Snapshots that are to be taken behind the writes.
    pub(crate) cuts: Vec<CutRequest>,
    /// Whether nothing is left behind it in the queue.
    pub(crate) is_all: bool,
}

impl Work {
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.job.is_none() && self.cuts.is_empty()
    }
}

/// The writes that wait, bounded in bytes, a place for one job of compaction, and the
/// snapshots that are asked for.
pub(crate) struct Queue {
    max_bytes: u64,
    state: Mutex<QueueState>,
    /// Whether a writer who commits by itself has to look behind the lock. Changed with it
    /// held, and only where it changes: who reads it need not take its cache line from
    /// another thread.
    is_busy: Apart<AtomicBool>,
    /// Something was queued, or the queue was closed.
    filled: Condvar,
    /// Something was taken, or the queue was closed.
    drained: Condvar,
}

#[derive(Default)]
struct QueueState {
    requests: VecDeque<Request>,
    bytes: u64,
    job: Option<Job>,
    cuts: Vec<CutRequest>,
    closed: bool,
    /// Whether the committer's thread sleeps: to wake one that does not is a system call
    /// all the same.
    is_awaited: bool,
}

impl QueueState {
    fn has_work(&self) -> bool {
        !self.requests.is_empty() || self.job.is_some() || !self.cuts.is_empty()
    }
}

/// Memory that a request takes besides its frame, roughly.
const REQUEST_BYTES: u64 = 512;

impl Queue {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            state: Mutex::default(),
            is_busy: Apart::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is open, and nothing waits: what this thread has queued before is seen,
    /// and, by who holds the committer, that it was closed before the committer was.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_busy.0.load(Ordering::Relaxed)
    }

    /// To be called with the lock held, once what it guards was changed.
    fn note(&self, state: &QueueState) {
        let is_busy = state.closed || state.has_work();
        if self.is_busy.0.load(Ordering::Relaxed) != is_busy {
            self.is_busy.0.store(is_busy, Ordering::Relaxed);
        }
    }

    /// Queues a write, or decides at once that it cannot be.
    pub(crate) fn submit(&self, change: Change) -> Commit {
        let state = self.lock();
        if !state.closed && state.bytes >= self.max_bytes {
            return Commit::decided(Err(Error::Overloaded));
        }
        self.push(state, change)
    }

    /// The same, waiting for room.
    pub(crate) fn submit_blocking(&self, change: Change) -> Commit {
        let state = self
            .drained
            .wait_while(self.lock(), |state| {
                !state.closed && state.bytes >= self.max_bytes
            })
            .unwrap_or_else(PoisonError::into_inner);
        self.push(state, change)
    }

    fn push(&self, mut state: MutexGuard<'_, QueueState>, change: Change) -> Commit {
        if state.closed {
            return Commit::decided(Err(Error::Closed));
        }
        let (request, commit) = Request::new(change);
        state.bytes += weight(&request.change.draft);
        state.requests.push_back(request);
        self.note(&state);
        self.wake(state);
        commit
    }

    /// Wakes the committer's thread, if it sleeps.
    fn wake(&self, mut state: MutexGuard<'_, QueueState>) {
        let is_awaited = std::mem::take(&mut state.is_awaited);
        drop(state);
        if is_awaited {
            self.filled.notify_one();
        }
    }

    /// Hands the committer a job, which goes with the next batch. There is one at a
    /// time: the next is handed over once the last is done.
    pub(crate) fn submit_job(&self, job: Job) -> Result<()> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        state.job = Some(job);
        self.note(&state);
        self.wake(state);
        Ok(())
    }

    /// Asks the committer for a snapshot between two batches.
    pub(crate) fn submit_cut(&self, request: CutRequest) -> Result<()> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        state.cuts.push(request);
        self.note(&state);
        self.wake(state);
        Ok(())
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
    pub(crate) fn take(&self, work: &mut Work, max_bytes: u64, max_requests: usize) {
        let mut state = self.lock();
        work.job = state.job.take();
        work.cuts.append(&mut state.cuts);
        let batch = &mut work.requests;
        let mut bytes = 0;
        while let Some(next) = state.requests.front() {
            let weight = weight(&next.change.draft);
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
        let abandoned = (requests, state.job.take(), std::mem::take(&mut state.cuts));
        drop(state);
        drop(abandoned);
    }
}

fn weight(draft: &Draft) -> u64 {
    draft.max_frame_bytes() + REQUEST_BYTES
}
