//! Limits the total memory of all uploads.
//!
//! After an upload has received a small amount of data, it acquires in one step all the memory that
//! it may need. The upload keeps this memory until it ends. If a request waits for memory, uploads
//! that have stalled are asked to end, one at a time. Clients that send almost nothing therefore
//! cannot block other uploads for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::http::error::{ApiError, Code};

/// Number of bytes for each semaphore permit. The budget is counted in KiB instead of bytes,
/// because one call can acquire at most `u32::MAX` semaphore permits.
const UNIT_BYTES: u64 = 1024;
/// How long an upload may stall before it can be asked to end.
const STALL_GRACE: Duration = Duration::from_secs(1);
/// Interval at which a waiting request asks the next stalled upload to end.
const RECLAIM_INTERVAL: Duration = Duration::from_millis(5);

/// The memory budget for request bodies that are being received.
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    /// Size of the budget in units of `UNIT_BYTES`.
    capacity: u32,
    /// Maximum memory of one upload in bytes. An upload of a larger document needs no more memory,
    /// because the document is written to a file while it is received.
    max_upload_bytes: u64,
    /// Maximum time for which a request waits for memory.
    wait: Duration,
    /// Number of requests that are waiting for memory.
    waiters: AtomicUsize,
    /// A notification asks one stalled upload to end.
    reclaim: Notify,
}

/// Counts one waiting request until this value is dropped.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Budget {
    /// Creates a budget of `bytes` bytes. No upload acquires more than `max_upload_bytes`, and no
    /// request waits for memory longer than `wait`.
    pub(crate) fn new(bytes: u64, max_upload_bytes: u64, wait: Duration) -> Self {
        let capacity = u32::try_from(bytes.div_ceil(UNIT_BYTES))
            .unwrap_or(u32::MAX)
            .clamp(1, u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self {
            units: Arc::new(Semaphore::new(capacity as usize)),
            capacity,
            max_upload_bytes,
            wait,
            waiters: AtomicUsize::new(0),
            reclaim: Notify::new(),
        }
    }

    /// Acquires the memory for a request body, and waits if not enough memory is free. `bytes` is
    /// the length of the body. If the length is not known, the maximum for one upload is acquired.
    /// The memory is released when the permit is dropped.
    ///
    /// # Errors
    /// [`Code::Overloaded`] if not enough memory becomes free in time.
    pub(crate) async fn acquire(
        &self,
        bytes: Option<u64>,
    ) -> Result<OwnedSemaphorePermit, Box<ApiError>> {
        let bytes = bytes
            .unwrap_or(self.max_upload_bytes)
            .min(self.max_upload_bytes);
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES))
            .unwrap_or(u32::MAX)
            .min(self.capacity);
        if let Ok(permit) = Arc::clone(&self.units).try_acquire_many_owned(units) {
            return Ok(permit);
        }
        let _waiter = Waiter::new(&self.waiters);
        let permit = async {
            tokio::select! {
                permit = Arc::clone(&self.units).acquire_many_owned(units) => permit.ok(),
                () = self.request_reclaim() => None,
            }
        };
        match timeout(self.wait, permit).await {
            Ok(Some(permit)) => Ok(permit),
            _ => Err(ApiError::new(
                Code::Overloaded,
                "Too many documents are being uploaded. Try again later.",
            )),
        }
    }

    /// Number of bytes that uploads have acquired.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        let free = self.units.available_permits() as u64;
        u64::from(self.capacity).saturating_sub(free) * UNIT_BYTES
    }

    /// Size of the budget in bytes.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        u64::from(self.capacity) * UNIT_BYTES
    }

    /// Asks one stalled upload after another to end. Never returns.
    async fn request_reclaim(&self) {
        loop {
            self.reclaim.notify_one();
            sleep(RECLAIM_INTERVAL).await;
        }
    }

    /// Waits until the calling upload must end because it has stalled and another request waits for
    /// memory. `last_progress` is the time at which the upload last made progress.
    pub(crate) async fn reclaim_requested(&self, last_progress: Instant) {
        sleep_until(last_progress + STALL_GRACE).await;
        loop {
            self.reclaim.notified().await;
            // The notification may be outdated, because the request that sent it may no longer be
            // waiting.
            if self.waiters.load(Ordering::Relaxed) > 0 {
                return;
            }
        }
    }
}
