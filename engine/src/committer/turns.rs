//! Whose turn it is to commit. A thread of the engine's own takes what was submitted; a
//! writer that would only wait for that thread commits by itself where nobody does yet,
//! which spares two switches of threads: for a lone writer they take longer than all but
//! the sync.
//!
//! Invariant: whoever lets go of the committer looks at the queue afterwards, so that
//! what was queued while it was held is never forgotten.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::Committer;
use crate::commit::{Change, Outcome};
use crate::config::Durability;
use crate::error::Result;
use crate::shared::Shared;

/// How often a writer looks for its turn before it sleeps: what need not be synced is
/// committed in less time than it takes to wake up.
const SPINS: u32 = 200;

/// The committer, and who waits for a turn.
pub(crate) struct Turns {
    shared: Arc<Shared>,
    committer: Mutex<Committer>,
    /// Writers that look for their turn, and need not be told.
    spinning: AtomicUsize,
    /// Whether the last batch had more than one write. Writers that are many gain more
    /// by sharing a sync than each of them by beginning its own at once.
    is_shared: AtomicBool,
}

impl Turns {
    pub(crate) fn new(shared: Arc<Shared>, committer: Committer) -> Self {
        Self {
            shared,
            committer: Mutex::new(committer),
            spinning: AtomicUsize::new(0),
            is_shared: AtomicBool::new(false),
        }
    }

    /// Commits until the queue is closed and empty, then closes the store.
    pub(crate) fn run(&self) -> Result<()> {
        let _abort = AbortOnPanic(&self.shared);
        while self.shared.queue.wait() {
            let mut committer = self.lock();
            while self.step(&mut committer) {}
        }
        self.lock().close()
    }

    /// Commits a write, and whatever waits with it, or has it committed.
    pub(crate) fn commit(&self, change: Change) -> Outcome {
        let is_synced = change.durability == Durability::Sync;
        if is_synced && self.is_shared.load(Ordering::Relaxed) {
            return self.shared.queue.submit_blocking(change).wait();
        }
        if is_synced {
            let commit = self.shared.queue.enqueue(change);
            self.try_lead();
            commit.wait()
        } else {
            self.commit_spinning(change)
        }
    }

    fn commit_spinning(&self, change: Change) -> Outcome {
        // Before it is queued: whoever finds it there need not wake anybody for it.
        self.spinning.fetch_add(1, Ordering::SeqCst);
        let commit = self.shared.queue.enqueue(change);
        for _ in 0..SPINS {
            if commit.outcome().is_some() || self.try_lead() {
                break;
            }
            std::hint::spin_loop();
        }
        // Whoever has let go meanwhile may have counted on this one.
        if self.spinning.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.shared.queue.wake();
        }
        commit.wait()
    }

    /// Commits what waits, unless somebody else does.
    fn try_lead(&self) -> bool {
        let mut committer = match self.committer.try_lock() {
            Ok(committer) => committer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let _abort = AbortOnPanic(&self.shared);
        self.step(&mut committer);
        drop(committer);
        if self.spinning.load(Ordering::SeqCst) == 0 {
            self.shared.queue.wake();
        }
        true
    }

    /// Whether there was a batch to commit.
    fn step(&self, committer: &mut Committer) -> bool {
        let writes = committer.step();
        if let Some(writes) = writes {
            self.is_shared.store(writes > 1, Ordering::Relaxed);
        }
        writes.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Committer> {
        self.committer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Should committing panic, nobody may wait for it for ever.
struct AbortOnPanic<'a>(&'a Shared);

impl Drop for AbortOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue.abort();
        }
    }
}
