//! The memory for documents on their way in, all uploads together.
//!
//! An upload takes its room once it has brought more than a little, all at once, and
//! keeps it to its end. So that clients that then send next to nothing do not keep it
//! from the others, an upload that has stalled gives its room back where somebody waits
//! for that, one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::http::error::{Code, Refusal};

/// The budget is counted in these, since a semaphore counts in 32 bits.
const UNIT_BYTES: u64 = 1024;
/// For so long an upload may stall although others wait for its room.
const PATIENCE: Duration = Duration::from_secs(1);
/// Who waits asks one upload after the other.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// The memory for bodies in flight.
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    all_units: u32,
    /// What one upload takes at most, however large it is.
    max_upload_bytes: u64,
    wait: Duration,
    /// How many wait for room.
    waiting: AtomicUsize,
    wanted: Notify,
}

/// Counts one that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Budget {
    pub(crate) fn new(bytes: u64, max_upload_bytes: u64, wait: Duration) -> Self {
        let all_units = u32::try_from(bytes.div_ceil(UNIT_BYTES))
            .unwrap_or(u32::MAX)
            .clamp(1, u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self {
            units: Arc::new(Semaphore::new(all_units as usize)),
            all_units,
            max_upload_bytes,
            wait,
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
        }
    }

    /// Waits for the memory that a body takes; `bytes` is its length, where known.
    pub(crate) async fn take(
        &self,
        bytes: Option<u64>,
    ) -> Result<OwnedSemaphorePermit, Box<Refusal>> {
        let bytes = bytes
            .unwrap_or(self.max_upload_bytes)
            .min(self.max_upload_bytes);
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES))
            .unwrap_or(u32::MAX)
            .min(self.all_units);
        if let Ok(permit) = Arc::clone(&self.units).try_acquire_many_owned(units) {
            return Ok(permit);
        }
        let _waiting = Waiting::new(&self.waiting);
        let permit = async {
            tokio::select! {
                permit = Arc::clone(&self.units).acquire_many_owned(units) => permit.ok(),
                () = self.ask() => None,
            }
        };
        match timeout(self.wait, permit).await {
            Ok(Some(permit)) => Ok(permit),
            _ => Err(Refusal::new(
                Code::Overloaded,
                "Too many documents are being received; try again later.",
            )),
        }
    }

    /// Bytes that bodies have been given.
    pub(crate) fn taken_bytes(&self) -> u64 {
        let free = self.units.available_permits() as u64;
        u64::from(self.all_units).saturating_sub(free) * UNIT_BYTES
    }

    /// Bytes that there are.
    pub(crate) fn all_bytes(&self) -> u64 {
        u64::from(self.all_units) * UNIT_BYTES
    }

    /// Asks uploads that have stalled for their room, without end.
    async fn ask(&self) {
        loop {
            self.wanted.notify_one();
            sleep(ASK_EVERY).await;
        }
    }

    /// Waits until somebody wants the room of an upload that has been waiting for its
    /// client since then.
    pub(crate) async fn is_wanted_from(&self, waits_since: Instant) {
        sleep_until(waits_since + PATIENCE).await;
        loop {
            self.wanted.notified().await;
            // Who asked last may have been served since.
            if self.waiting.load(Ordering::Relaxed) > 0 {
                return;
            }
        }
    }
}
