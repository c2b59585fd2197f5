//! The promise that each write gets: the commit leader resolves it, and the writer waits for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::model::error::{Error, Result};
use crate::model::revision::Revision;

/// A write on its way to stable storage.
///
/// It can be awaited on any executor, or waited for with [`Commit::wait`]. Dropping
/// it does not take the write back.
#[derive(Debug)]
#[must_use = "a write that nobody waits for may have failed"]
pub struct Commit(Arc<Promise>);

/// What a write answers: the revision that is current after it, `None` where the
/// namespace is then empty.
pub(crate) type CommitOutcome = Result<Option<Revision>>;

#[derive(Debug, Default)]
struct Promise {
    state: Mutex<PromiseState>,
}

#[derive(Debug, Default)]
struct PromiseState {
    outcome: Option<CommitOutcome>,
    waker: Option<Waker>,
}

impl Promise {
    fn lock(&self) -> MutexGuard<'_, PromiseState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Commit {
    /// A write that was decided before it was queued.
    pub(crate) fn decided(outcome: CommitOutcome) -> Self {
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
        let waker = Waker::from(Arc::new(UnparkWaker(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(outcome) = Pin::new(&mut self).poll(&mut context) {
                return outcome;
            }
            std::thread::park();
        }
    }
}

struct UnparkWaker(Thread);

impl Wake for UnparkWaker {
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
    pub(super) fn new() -> (Self, Commit) {
        let promise = Arc::<Promise>::default();
        (Self(Some(Arc::clone(&promise))), Commit(promise))
    }

    pub(super) fn resolve(mut self, outcome: CommitOutcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: CommitOutcome) {
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
