//! Group commit: decides which thread is the commit leader.
//!
//! The committer thread commits writes that are queued. A thread that calls
//! [`Namespace::write`](crate::Namespace::write) can become the leader, and then commits its write
//! and all queued writes. Committing on the calling thread saves two thread switches, which take
//! longer than all other steps of a single write except the sync.

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

/// Number of times that a thread with a buffered write tries to become the leader before it starts
/// to yield to other threads. The thread spins instead of sleeping, because a write without a sync
/// is committed faster than a thread can sleep and wake up.
const SPINS: u32 = 100;
/// Number of times that a thread with a buffered write yields to other threads between attempts to
/// become the leader. If all attempts fail, the write is queued.
const YIELDS: u32 = 200;

/// The committer, and the state that decides which thread may use it.
pub(crate) struct GroupCommit {
    core: Arc<Core>,
    committer: CachePadded<Mutex<Committer>>,
    /// True if a thread is the leader. Waiting threads poll this flag instead of the mutex, because
    /// attempts to lock the mutex would slow down the leader.
    has_leader: CachePadded<AtomicBool>,
    /// True if the last batch had more than one write. After a batch with several writes, writes
    /// with [`Durability::Sync`] are queued, so that concurrent writers share a sync.
    is_batching: AtomicBool,
}

impl GroupCommit {
    pub(crate) fn new(core: Arc<Core>, committer: Committer) -> Self {
        Self {
            core,
            committer: CachePadded(Mutex::new(committer)),
            has_leader: CachePadded(AtomicBool::new(false)),
            is_batching: AtomicBool::new(false),
        }
    }

    /// Runs the committer thread: commits queued writes until the queue is closed and empty, and
    /// then seals the log.
    ///
    /// # Errors
    /// The errors of [`Committer::close`].
    pub(crate) fn run(&self) -> Result<()> {
        let _abort = AbortOnPanic(&self.core);
        while self.core.queue.wait() {
            let mut leader = self.lead();
            while let Some(writes) = leader.committer.commit_queued() {
                self.record_batch(writes);
            }
        }
        self.lead().committer.close()
    }

    /// Commits a write on the calling thread, or queues it for the committer thread. Blocks
    /// until the write is committed.
    pub(crate) fn commit(&self, write: WriteRequest) -> CommitOutcome {
        let attempts = match write.durability {
            Durability::Buffered => SPINS + YIELDS,
            Durability::Sync if self.is_batching.load(Ordering::Relaxed) => 0,
            Durability::Sync => 1,
        };
        for attempt in 0..attempts {
            if let Some(leader) = self.try_lead() {
                return self.commit_as_leader(leader, write);
            }
            if attempt < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        self.core.queue.submit_blocking(write).wait()
    }

    fn commit_as_leader(&self, mut leader: LeaderGuard<'_>, write: WriteRequest) -> CommitOutcome {
        let _abort = AbortOnPanic(&self.core);
        let queue = &self.core.queue;
        let is_idle = queue.is_idle();
        // After the queue is closed, the committer thread seals the log, so the write must be
        // rejected.
        if !is_idle && queue.is_closed() {
            return Err(Error::Closed);
        }
        let (queued, commit) = QueuedWrite::new(write);
        let writes = if is_idle {
            leader.committer.commit_alone(queued)
        } else {
            leader.committer.commit_after_queued(queued)
        };
        drop(leader);
        self.record_batch(writes);
        commit.wait()
    }

    fn record_batch(&self, writes: usize) {
        self.is_batching.store(writes > 1, Ordering::Relaxed);
    }

    /// Makes the calling thread the leader, unless another thread is the leader. Never blocks.
    fn try_lead(&self) -> Option<LeaderGuard<'_>> {
        if self.has_leader.0.load(Ordering::Relaxed) {
            return None;
        }
        match self.committer.0.try_lock() {
            Ok(committer) => Some(self.guard(committer)),
            Err(TryLockError::Poisoned(poisoned)) => Some(self.guard(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Makes the calling thread the leader. Blocks while another thread is the leader.
    fn lead(&self) -> LeaderGuard<'_> {
        let committer = self.committer.0.lock();
        self.guard(committer.unwrap_or_else(PoisonError::into_inner))
    }

    fn guard<'a>(&'a self, committer: MutexGuard<'a, Committer>) -> LeaderGuard<'a> {
        self.has_leader.0.store(true, Ordering::Relaxed);
        LeaderGuard {
            committer,
            has_leader: &self.has_leader.0,
        }
    }
}

/// Access to the committer. The thread that owns the guard is the commit leader.
struct LeaderGuard<'a> {
    committer: MutexGuard<'a, Committer>,
    has_leader: &'a AtomicBool,
}

/// Clears the flag. The mutex is unlocked later, when the fields are dropped after `drop` returns.
impl Drop for LeaderGuard<'_> {
    fn drop(&mut self) {
        self.has_leader.store(false, Ordering::Relaxed);
    }
}

/// Closes and empties the commit queue if the commit leader panics, so that no writer waits
/// forever.
struct AbortOnPanic<'a>(&'a Core);

impl Drop for AbortOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue.abort();
        }
    }
}
