//! Group commit: decides which thread is the commit leader.
//!
//! The committer thread commits writes that are queued. A thread that calls
//! [`Namespace::write`](crate::Namespace::write) can become the leader, and then commits its write
//! and all queued writes. Committing on the calling thread saves two thread switches, which take
//! longer than all other steps of a single write except the sync.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::commit::change::WriteRequest;
use crate::commit::committer::Committer;
use crate::commit::core::Core;
use crate::commit::promise::{CommitOutcome, leader_panicked};
use crate::commit::queue::{QueueState, QueuedWrite};
use crate::model::config::Durability;
use crate::model::error::Result;
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
    idle: CachePadded<IdleDetection>,
}

/// Detects that no batch has been committed for some time, so that a mark can be written.
struct IdleDetection {
    /// The time without batches after which a mark is written. `None` if marks are disabled.
    delay: Option<Duration>,
    /// The number of batches. Only the commit leader changes it.
    batches: AtomicU64,
    /// True if no batch was committed since the last attempt to write a mark. While this flag is
    /// set, the committer thread waits without a timeout.
    is_marked: AtomicBool,
}

impl GroupCommit {
    /// `mark_delay` is [`Config::mark_delay`](crate::Config::mark_delay).
    pub(crate) fn new(core: Arc<Core>, committer: Committer, mark_delay: Duration) -> Self {
        Self {
            core,
            committer: CachePadded(Mutex::new(committer)),
            has_leader: CachePadded(AtomicBool::new(false)),
            is_batching: AtomicBool::new(false),
            idle: CachePadded(IdleDetection {
                delay: (mark_delay < Duration::MAX).then_some(mark_delay),
                batches: AtomicU64::new(0),
                is_marked: AtomicBool::new(true),
            }),
        }
    }

    /// Runs the committer thread: commits queued writes until the queue is closed and empty, and
    /// then seals the log. Writes a mark when no batch has been committed for some time.
    ///
    /// # Errors
    /// The errors of [`Committer::close`].
    pub(crate) fn run(&self) -> Result<()> {
        let mut seen = 0;
        loop {
            let is_marked = self.idle.0.is_marked.load(Ordering::Relaxed);
            let timeout = self.idle.0.delay.filter(|_| !is_marked);
            match self.core.queue.wait(timeout) {
                QueueState::HasWork => {
                    let mut leader = self.lead();
                    while let Some(writes) = leader.committer.commit_queued() {
                        self.record_batch(writes);
                    }
                }
                QueueState::TimedOut => self.mark_if_idle(&mut seen),
                QueueState::Woken => {}
                QueueState::Closed => return self.lead().committer.close(),
            }
        }
    }

    /// Writes a mark if the number of batches is still `seen`, and updates `seen`.
    fn mark_if_idle(&self, seen: &mut u64) {
        let mut leader = self.lead();
        let batches = self.idle.0.batches.load(Ordering::Relaxed);
        if std::mem::replace(seen, batches) == batches {
            leader.committer.mark();
            self.idle.0.is_marked.store(true, Ordering::Relaxed);
        }
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
        let queue = &self.core.queue;
        let is_idle = queue.is_idle();
        // After the queue is closed, the committer thread seals the log, so the write must be
        // rejected.
        if !is_idle && let Some(error) = queue.closed_error() {
            return Err(error);
        }
        let (queued, commit) = QueuedWrite::new(write);
        let writes = if is_idle {
            leader.committer.commit_alone(queued)
        } else {
            leader.committer.commit_after_queued(queued)
        };
        self.record_batch(writes);
        drop(leader);
        commit.wait()
    }

    /// Records that a batch has been committed. Only the commit leader may call this function.
    fn record_batch(&self, writes: usize) {
        self.is_batching.store(writes > 1, Ordering::Relaxed);
        let IdleDetection {
            delay,
            batches,
            is_marked,
        } = &self.idle.0;
        if delay.is_none() {
            return;
        }
        batches.store(batches.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if is_marked.load(Ordering::Relaxed) {
            is_marked.store(false, Ordering::Relaxed);
            // The committer thread waits without a timeout, and must now wait with a timeout.
            self.core.queue.wake();
        }
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
            core: &self.core,
            committer,
            has_leader: &self.has_leader.0,
        }
    }
}

/// Access to the committer. The thread that owns the guard is the commit leader.
struct LeaderGuard<'a> {
    core: &'a Core,
    committer: MutexGuard<'a, Committer>,
    has_leader: &'a AtomicBool,
}

/// Clears the flag. The mutex is unlocked later, when the fields are dropped after `drop` returns.
///
/// If the leader panics, the state of the log is unknown, so writing stops before another thread
/// can become the leader, and before a writer gets an outcome. The batch and the queue are emptied,
/// so that no writer waits forever.
impl Drop for LeaderGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.core.set_poison(leader_panicked());
            self.core.queue.abort(leader_panicked());
            self.committer.abandon_batch();
        }
        self.has_leader.store(false, Ordering::Relaxed);
    }
}
