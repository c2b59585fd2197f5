//! Whose turn it is to commit. A thread of the engine's own takes what was submitted; a
//! writer that would only wait for that thread commits by itself where nobody does yet,
//! which spares two switches of threads: for a lone writer they take longer than all but
//! the sync.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::commit::change::WriteRequest;
use crate::commit::committer::Committer;
use crate::commit::core::Core;
use crate::commit::promise::CommitOutcome;
use crate::commit::queue::QueuedWrite;
use crate::model::config::Durability;
use crate::model::error::{Error, Result};
use crate::platform::cache_padded::CachePadded;

/// How often a writer looks for its turn before it has another thread commit: what need
/// not be synced is committed in less time than it takes to sleep and wake up.
const SPINS: u32 = 100;
/// How often it lets other threads run after that, and looks again.
const YIELDS: u32 = 200;

/// The committer, and who waits for a turn.
pub(crate) struct GroupCommit {
    core: Arc<Core>,
    committer: CachePadded<Mutex<Committer>>,
    /// Whether somebody has the committer. Those who wait look at this: to try the lock
    /// itself would take its cache line, and what lies beside it, from who has it.
    is_taken: CachePadded<AtomicBool>,
    /// Whether the last batch had more than one write. Writers that are many gain more
    /// by sharing a sync than each of them by beginning its own at once.
    is_shared: AtomicBool,
}

impl GroupCommit {
    pub(crate) fn new(core: Arc<Core>, committer: Committer) -> Self {
        Self {
            core,
            committer: CachePadded(Mutex::new(committer)),
            is_taken: CachePadded(AtomicBool::new(false)),
            is_shared: AtomicBool::new(false),
        }
    }

    /// Commits what is submitted until the queue is closed and empty, then closes the
    /// store.
    pub(crate) fn run(&self) -> Result<()> {
        let _abort = AbortOnPanic(&self.core);
        while self.core.queue.wait() {
            let mut turn = self.lock();
            while let Some(writes) = turn.committer.step() {
                self.note(writes);
            }
        }
        self.lock().committer.close()
    }

    /// Commits a write, and whatever waits with it, or has it committed.
    pub(crate) fn commit(&self, write: WriteRequest) -> CommitOutcome {
        let attempts = match write.durability {
            Durability::Buffered => SPINS + YIELDS,
            Durability::Sync if self.is_shared.load(Ordering::Relaxed) => 0,
            Durability::Sync => 1,
        };
        for attempt in 0..attempts {
            if let Some(turn) = self.try_lead() {
                return self.lead(turn, write);
            }
            if attempt < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        self.core.queue.submit_blocking(write).wait()
    }

    fn lead(&self, mut turn: LeaderGuard<'_>, write: WriteRequest) -> CommitOutcome {
        let _abort = AbortOnPanic(&self.core);
        let queue = &self.core.queue;
        let is_idle = queue.is_idle();
        // The thread that closes the store needs the committer for that.
        if !is_idle && queue.is_closed() {
            return Err(Error::Closed);
        }
        let (request, commit) = QueuedWrite::new(write);
        let writes = if is_idle {
            turn.committer.step_alone(request)
        } else {
            turn.committer.step_with(request)
        };
        drop(turn);
        self.note(writes);
        commit.wait()
    }

    fn note(&self, writes: usize) {
        self.is_shared.store(writes > 1, Ordering::Relaxed);
    }

    fn try_lead(&self) -> Option<LeaderGuard<'_>> {
        if self.is_taken.0.load(Ordering::Relaxed) {
            return None;
        }
        match self.committer.0.try_lock() {
            Ok(committer) => Some(self.turn(committer)),
            Err(TryLockError::Poisoned(poisoned)) => Some(self.turn(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lock(&self) -> LeaderGuard<'_> {
        let committer = self.committer.0.lock();
        self.turn(committer.unwrap_or_else(PoisonError::into_inner))
    }

    fn turn<'a>(&'a self, committer: MutexGuard<'a, Committer>) -> LeaderGuard<'a> {
        self.is_taken.0.store(true, Ordering::Relaxed);
        LeaderGuard {
            committer,
            is_taken: &self.is_taken.0,
        }
    }
}

/// The committer, for as long as this is held.
struct LeaderGuard<'a> {
    committer: MutexGuard<'a, Committer>,
    is_taken: &'a AtomicBool,
}

/// Before the lock is let go.
impl Drop for LeaderGuard<'_> {
    fn drop(&mut self) {
        self.is_taken.store(false, Ordering::Relaxed);
    }
}

/// Should committing panic, nobody may wait for it for ever.
struct AbortOnPanic<'a>(&'a Core);

impl Drop for AbortOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue.abort();
        }
    }
}
