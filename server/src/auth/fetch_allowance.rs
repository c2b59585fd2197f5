//! Limits how often tokens can trigger a fetch of an identity provider's keys.
//!
//! Anybody can send tokens that name unknown keys. Without this limit, such tokens could flood the
//! provider with fetches. The limit is a token bucket, so that a few invented tokens do not prevent
//! the fetch that a key rotation requires.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Number of fetches that tokens can trigger in quick succession, after a quiet time.
const BURST: u32 = 10;
/// Time after which one more fetch is allowed. During an attack with invented tokens, this is also
/// the maximum time until a new key is fetched.
const INTERVAL: Duration = Duration::from_secs(10);

/// The fetches that tokens can trigger for one provider.
#[derive(Debug, Default)]
pub(super) struct FetchAllowance {
    /// The time at which the bucket is full again. `None` if no token has triggered a fetch yet.
    full_at: Mutex<Option<Instant>>,
}

impl FetchAllowance {
    /// Uses one fetch. If none is left, returns the time after which the next one is allowed.
    pub(super) fn use_one(&self, now: Instant) -> Result<(), Duration> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let next = full_at.map_or(now, |full_at| full_at.max(now)) + INTERVAL;
        let excess = next.saturating_duration_since(now + BURST * INTERVAL);
        if excess.is_zero() {
            *full_at = Some(next);
            Ok(())
        } else {
            Err(excess)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_allowance_is_refilled_one_fetch_at_a_time() {
        let allowance = FetchAllowance::default();
        let start = Instant::now();
        let at = |seconds| allowance.use_one(start + Duration::from_secs(seconds));
        for _ in 0..BURST {
            assert_eq!(at(0), Ok(()));
        }
        assert_eq!(at(0), Err(INTERVAL));
        assert_eq!(at(4), Err(Duration::from_secs(6)));
        assert_eq!(at(10), Ok(()));
        assert_eq!(at(10), Err(INTERVAL));
        // After a quiet time, the complete burst is allowed again, but not more.
        for _ in 0..BURST {
            assert_eq!(at(1_000), Ok(()));
        }
        assert!(at(1_000).is_err());
    }
}
