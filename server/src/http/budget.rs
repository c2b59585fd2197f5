//! Limits the total memory and the total disk space of all uploads.
//!
//! After an upload has received a small amount of data, it acquires in one step all the memory that
//! it may need. The upload keeps this memory until it ends. An upload of a large document also
//! reserves disk space, step by step, for the part of the body that it has received.
//!
//! If a request waits for memory, or the disk space is used up, some uploads are told to end, so
//! that neither slow clients nor a single user can block all other uploads. [`ledger`] decides
//! which uploads must end.

mod ledger;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::counters::Counter;
use crate::http::budget::ledger::{DiskOutcome, Ledger, UploadId, UploadSignal, UploadState};
use crate::http::error::{ApiError, Code};
pub(crate) use ledger::Eviction;

/// The memory and the disk space for request bodies that are being received.
pub(crate) struct Budget {
    ledger: Mutex<Ledger>,
    /// Notifies the uploads that wait for disk space when an upload has ended.
    ended: tokio::sync::Notify,
    /// Maximum time for which an upload waits for memory or disk space.
    wait: Duration,
    evictions: EvictionCounters,
}

/// Uploads that ended because of an [`Eviction`].
#[derive(Default)]
pub(crate) struct EvictionCounters {
    pub(crate) stalled: Counter,
    pub(crate) memory: Counter,
    pub(crate) disk: Counter,
}

/// The memory and the disk space of one upload. Both are released when the permit is dropped.
pub(crate) struct UploadPermit {
    budget: Arc<Budget>,
    user: Arc<str>,
    id: UploadId,
    signal: Arc<UploadSignal>,
}

impl Budget {
    /// Creates a budget of `memory` and `disk` bytes. No upload waits longer than `wait`.
    pub(crate) fn new(memory: u64, disk: u64, wait: Duration) -> Self {
        Self {
            ledger: Mutex::new(Ledger::new(memory, disk)),
            ended: tokio::sync::Notify::new(),
            wait,
            evictions: EvictionCounters::default(),
        }
    }

    /// Acquires `bytes` bytes of memory for an upload of `user`, and waits if not enough memory is
    /// free.
    ///
    /// # Errors
    /// [`Code::Overloaded`] if not enough memory becomes free in time.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        user: &str,
        bytes: u64,
    ) -> Result<UploadPermit, Box<ApiError>> {
        let (user, id, signal) = self.ledger().open(user, bytes);
        // If this future is dropped while it waits, the drop of the permit ends the wait.
        let permit = UploadPermit {
            budget: Arc::clone(self),
            user,
            id,
            signal,
        };
        match timeout(self.wait, permit.signal.granted.notified()).await {
            Ok(()) => Ok(permit),
            Err(_) => Err(ApiError::new(
                Code::Overloaded,
                "Too many documents are being uploaded. Try again later.",
            )),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of bytes of memory that uploads have acquired.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.ledger().used_memory()
    }

    /// Maximum number of bytes of memory that uploads can acquire.
    pub(crate) fn max_memory_bytes(&self) -> u64 {
        self.ledger().max_memory()
    }

    /// Number of bytes of disk space that uploads have reserved.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.ledger().used_disk()
    }

    /// Maximum number of bytes of disk space that uploads can reserve.
    pub(crate) fn max_disk_bytes(&self) -> u64 {
        self.ledger().max_disk()
    }

    /// Uploads that ended because of an [`Eviction`].
    pub(crate) fn evictions(&self) -> &EvictionCounters {
        &self.evictions
    }
}

impl UploadPermit {
    /// Waits until the upload must end before its body is complete.
    pub(crate) async fn evicted(&self) -> Eviction {
        loop {
            if let Some(eviction) = self.signal.eviction() {
                return self.count(eviction);
            }
            self.signal.evicted.notified().await;
        }
    }

    /// Records whether the client has sent almost nothing for some time. A stalled upload is the
    /// first to end when another request waits for memory.
    pub(crate) fn set_stalled(&self, is_stalled: bool) {
        self.set_state(if is_stalled {
            UploadState::Stalled
        } else {
            UploadState::Receiving
        });
    }

    /// Records that the body is complete. The upload is no longer told to end.
    pub(crate) fn set_received(&self) {
        self.set_state(UploadState::Received);
    }

    fn set_state(&self, state: UploadState) {
        self.budget.ledger().set_state(&self.user, self.id, state);
    }

    /// Reserves further disk space for the upload, and waits if not enough is free.
    ///
    /// # Errors
    /// The reason why the upload must end.
    pub(crate) async fn reserve_disk(&self, bytes: u64) -> Result<(), Eviction> {
        let deadline = Instant::now() + self.budget.wait;
        loop {
            // The future is created before the ledger is asked, so that it is completed by an
            // upload that ends in between.
            let ended = self.budget.ended.notified();
            let outcome = self
                .budget
                .ledger()
                .reserve_disk(&self.user, self.id, bytes);
            match outcome {
                DiskOutcome::Reserved => return Ok(()),
                DiskOutcome::Refused => return Err(self.count(Eviction::Disk)),
                DiskOutcome::Wait => {}
            }
            tokio::select! {
                eviction = self.evicted() => return Err(eviction),
                ended = timeout_at(deadline, ended) => {
                    ended.map_err(|_| self.count(Eviction::Disk))?;
                }
            }
        }
    }

    fn count(&self, eviction: Eviction) -> Eviction {
        let counters = &self.budget.evictions;
        match eviction {
            Eviction::Stalled => counters.stalled.add_one(),
            Eviction::Memory => counters.memory.add_one(),
            Eviction::Disk => counters.disk.add_one(),
        }
        eviction
    }
}

impl Drop for UploadPermit {
    fn drop(&mut self) {
        self.budget.ledger().close(&self.user, self.id);
        self.budget.ended.notify_waiters();
    }
}
