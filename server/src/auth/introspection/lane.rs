//! Limits the requests that wait for introspection.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore};

/// Maximum number of concurrent introspection requests in one lane.
pub(super) const LANE_REQUESTS: usize = 32;

/// The limits for one class of tokens. Each class has a lane of its own, so that the requests of
/// one class cannot block the requests of the other.
pub(super) struct Lane {
    /// Limits the number of requests that wait in this lane.
    waiting: Arc<Semaphore>,
    /// A request holds one of these locks while it asks the provider. All requests with the same
    /// token use the same lock, so only one of them asks the provider at a time.
    request_locks: [Mutex<()>; LANE_REQUESTS],
}

impl Lane {
    pub(super) fn new(max_waiting: usize) -> Self {
        Self {
            waiting: Arc::new(Semaphore::new(max_waiting)),
            request_locks: [const { Mutex::const_new(()) }; LANE_REQUESTS],
        }
    }

    /// Returns a permit to wait in this lane, or `None` if too many requests are waiting. The
    /// request must keep the permit while it waits.
    pub(super) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.waiting).try_acquire_owned().ok()
    }

    /// Waits until no other request with this token, or with a token that shares its lock, asks the
    /// provider.
    pub(super) async fn lock(&self, token: &[u8]) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        hasher.write(token);
        let index = hasher.finish() % (LANE_REQUESTS as u64);
        let [first, ..] = &self.request_locks;
        let index = usize::try_from(index).unwrap_or_default();
        self.request_locks.get(index).unwrap_or(first).lock().await
    }
}
