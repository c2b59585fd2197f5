//! The shared handle of an open engine. Dropping the last reference to the handle closes the store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::commit::core::Core;
use crate::commit::group_commit::GroupCommit;
use crate::maintenance::purge;
use crate::model::error::{Error, Result};
use crate::platform::semaphore::Semaphore;

/// The state and the threads of an open engine. All [`Engine`](crate::Engine),
/// [`Namespace`](crate::Namespace) and [`Located`](crate::Located) values of a store share one
/// `EngineHandle`.
pub(crate) struct EngineHandle {
    pub(super) core: Arc<Core>,
    pub(super) group_commit: Arc<GroupCommit>,
    /// The committer thread. `None` after `close`.
    pub(super) committer: Mutex<Option<JoinHandle<Result<()>>>>,
    /// The compaction thread. `None` after `close`, or if background compaction is disabled.
    pub(super) compactor: Mutex<Option<JoinHandle<()>>>,
    /// A semaphore with one permit, so that a second call of `close` waits for the first one.
    pub(super) closing: Semaphore,
    /// The thread that watches the directories of the store. `None` after `close`.
    pub(super) watcher: Mutex<Option<JoinHandle<()>>>,
    /// True until the last step of `close` releases the lock of the data directory.
    pub(super) is_locked: AtomicBool,
}

impl EngineHandle {
    /// Commits all queued writes, and closes the store. A second call blocks until the first call
    /// has closed the store, and then does nothing.
    pub(super) fn close(&self) -> Result<()> {
        self.stop_threads();
        let _turn = self.closing.acquire();
        let thread = lock(&self.committer).take();
        let outcome = match thread.map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            // The committer thread panicked, which is a bug. The next open recovers all
            // acknowledged writes.
            Some(Err(_)) => Err(self.core.poison().unwrap_or(Error::Closed)),
        };
        let compactor = lock(&self.compactor).take();
        let _ = compactor.map(JoinHandle::join);
        let watcher = lock(&self.watcher).take();
        let _ = watcher.map(JoinHandle::join);
        if self.is_locked.swap(false, Ordering::Relaxed) {
            if !self.core.is_read_only() {
                let _ = purge::purge(&self.core);
            }
            self.core.watch.lock().release();
        }
        outcome
    }

    /// Tells all threads of the engine to finish their work and end. Does not wait for them.
    fn stop_threads(&self) {
        self.core.queue.close();
        self.core.compaction_wakeup.close();
        self.core.watch.wakeup.close();
        self.core.close();
    }

    /// Returns true if the calling thread is the committer thread.
    fn is_committer_thread(&self) -> bool {
        let current = std::thread::current().id();
        let committer = lock(&self.committer);
        committer
            .as_ref()
            .is_some_and(|committer| committer.thread().id() == current)
    }
}

/// The committer thread calls the wakers of its writers, and a waker can drop the last handle. The
/// committer thread cannot wait for its own end, so the engine's threads then close the store on
/// their own. The directory stays locked until the last of these threads ends.
impl Drop for EngineHandle {
    fn drop(&mut self) {
        if self.is_committer_thread() {
            self.stop_threads();
        } else {
            let _ = self.close();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
