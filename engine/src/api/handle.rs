//! The handle of an open engine: the last one to be dropped closes the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::commit::core::Core;
use crate::commit::group_commit::GroupCommit;
use crate::maintenance::purge;
use crate::model::error::{Error, Result};
use crate::platform::semaphore::Semaphore;
use crate::storage::lock::DirectoryLock;

/// What engines and namespaces hold on to.
pub(crate) struct EngineHandle {
    pub(super) core: Arc<Core>,
    pub(super) group_commit: Arc<GroupCommit>,
    pub(super) committer: Mutex<Option<JoinHandle<Result<()>>>>,
    pub(super) compactor: Mutex<Option<JoinHandle<()>>>,
    pub(super) closing: Semaphore,
    /// Released last.
    pub(super) lock: Mutex<Option<DirectoryLock>>,
}

impl EngineHandle {
    /// Commits what is queued and closes the store. A second call blocks until the first
    /// has returned, and does nothing.
    pub(super) fn close(&self) -> Result<()> {
        self.core.queue.close();
        self.core.compaction_wakeup.close();
        self.core.close();
        let _turn = self.closing.acquire();
        let thread = lock(&self.committer).take();
        let outcome = match thread.map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            // A panic of the committer is a bug. What it had acknowledged is on the disk.
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
