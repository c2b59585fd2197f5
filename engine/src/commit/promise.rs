//! A promise that resolves to the outcome of a write. The commit leader resolves the promise, and
//! the writer waits for the outcome.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::model::error::{Error, Result};
use crate::model::revision::Revision;

/// A future that resolves to the outcome of a submitted write.
///
/// A `Commit` works on any async executor. In synchronous code, call [`Commit::wait`] to wait for
/// the outcome. Dropping a `Commit` does not cancel the write.
///
/// # Errors
/// The outcome can be one of these errors:
///
/// - [`Error::PreconditionFailed`]: nothing was written.
/// - [`Error::StorageFull`], [`Error::Io`]: nothing was written.
/// - [`Error::Corrupt`]: the write has a precondition that cannot be checked, because the newest
///   stored frame of the namespace is damaged. Nothing was written.
/// - [`Error::Poisoned`]: a change to the log failed, usually a sync. Whether the write is stored
///   is unknown until the store is opened again. The outcome is also `Poisoned` if the committer
///   panics, which is a bug in the engine.
/// - [`Error::Overloaded`], [`Error::Closed`]: the write was not queued.
///
/// # Examples
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let engine = Engine::open(Config::new(dir.path()))?;
/// let namespace = engine.namespace("alice", "editor")?;
/// let first = namespace.submit(b"{}", WriteOptions::default());
/// let second = namespace.submit(b"{\"a\":1}", WriteOptions::default());
/// // Both writes are queued, and may share one sync.
/// assert!(first.wait()? < second.wait()?);
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "the write may fail, and only the `Commit` reports the error"]
pub struct Commit(Arc<Promise>);

/// The outcome of a write: the new revision of the namespace, or `None` after a delete.
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
    /// Creates a `Commit` that is already resolved, for a write that was not queued.
    pub(crate) fn decided(outcome: CommitOutcome) -> Self {
        let commit = Self(Arc::default());
        commit.0.lock().outcome = Some(outcome);
        commit
    }

    /// Blocks until the write is acknowledged, and returns the new revision of the namespace, or
    /// `None` after a delete. On an async worker thread, await the `Commit` instead.
    ///
    /// # Errors
    /// See [`Commit`].
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

/// The committer resolves a [`Commit`] with its `Acknowledgement`. If the `Acknowledgement` is
/// dropped without an outcome, the `Commit` resolves to [`Error::Closed`], or to
/// [`Error::Poisoned`] if the commit leader panicked, so that no writer waits forever.
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
        let error = if std::thread::panicking() {
            leader_panicked()
        } else {
            Error::Closed
        };
        self.settle(Err(error));
    }
}

/// The error of writes that were waiting when the commit leader panicked, which is a bug. The frame
/// of such a write may be in the log.
pub(super) fn leader_panicked() -> Error {
    let source = io::Error::other("the commit leader panicked, which is a bug");
    Error::poisoned("write", Path::new("log"), source)
}
