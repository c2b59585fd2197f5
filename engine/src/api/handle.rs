//! The shared handle of an open engine. Dropping the last reference to the handle closes the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::commit::core::Core;
use crate::commit::group_commit::GroupCommit;
use crate::maintenance::purge;
use crate::model::error::{Error, Result};
use crate::platform::semaphore::Semaphore;
use crate::storage::lock::DirectoryLock;

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
    /// The lock of the data directory. The last step of `close` releases the lock.
    pub(super) lock: Mutex<Option<DirectoryLock>>,
}

impl EngineHandle {
    /// Commits all queued writes, and closes the store. A second call blocks until the first call
    /// has closed the store, and then does nothing.
    pub(super) fn close(&self) -> Result<()> {
        self.core.queue.close();
        self.core.compaction_wakeup.close();
        self.core.close();
        let _turn = self.closing.acquire();
        let thread = lock(&self.committer).take();
        let outcome = match thread.map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            // The committer thread panicked, which is a bug. The next open recovers all
            // acknowledged writes.
            Some(Err(_)) => Err(Error::Closed),
        };
        let compactor = lock(&self.compactor).take();
        let _ = compactor.map(JoinHandle::join);
        if lock(&self.lock).is_some() {
            let _ = purge::purge(&self.core);
        }
        *lock(&self.lock) = None;
        outcome
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
