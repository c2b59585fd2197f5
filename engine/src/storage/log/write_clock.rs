//! The times of writes, which never go backwards in a store.

use std::sync::Arc;

use crate::platform::clock::Clock;
use crate::storage::log::closed_time::ClosedTime;

/// Time that is added to the highest time when the clock falls behind it. HTTP dates have a
/// resolution of one second, so a document that is written after the clock went back gets a later
/// date than all documents that were written before.
const STEP_MS: u64 = 1000;

/// Gives each write a time that is not earlier than the time of any earlier write.
pub(super) struct WriteClock {
    clock: Arc<dyn Clock>,
    /// The highest time in the log, in milliseconds since 1970-01-01 UTC.
    highest_ms: u64,
    /// True if the clock was behind the highest time when it was last read. The step is added only
    /// once, when the clock falls behind, so that many writes do not push the time far ahead of the
    /// clock.
    is_behind: bool,
    closed: Arc<ClosedTime>,
}

impl WriteClock {
    pub(super) fn new(clock: Arc<dyn Clock>, highest_ms: u64) -> Self {
        Self {
            clock,
            highest_ms,
            is_behind: false,
            closed: Arc::new(ClosedTime::new(highest_ms)),
        }
    }

    /// Begins a batch of writes, and returns its time, in milliseconds since 1970-01-01 UTC. After
    /// the batch has become visible or has failed, [`Self::end_batch`] must be called.
    pub(super) fn begin_batch(&mut self) -> u64 {
        let now_ms = self.clock.now_ms();
        if now_ms >= self.highest_ms {
            self.is_behind = false;
            self.highest_ms = now_ms;
        } else if !self.is_behind {
            self.is_behind = true;
            self.highest_ms = self.highest_ms.saturating_add(STEP_MS);
        }
        self.highest_ms = self.closed.begin_batch(self.highest_ms);
        self.is_behind |= now_ms < self.highest_ms;
        self.highest_ms
    }

    /// Ends the batch that was begun last. Has no effect if the batch was ended before.
    pub(super) fn end_batch(&self) {
        self.closed.end_batch();
    }

    /// The closed time of the store.
    pub(super) fn closed_time(&self) -> &Arc<ClosedTime> {
        &self.closed
    }

    /// The highest time in the log, in milliseconds since 1970-01-01 UTC.
    pub(super) fn highest_ms(&self) -> u64 {
        self.highest_ms
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct TestClock(AtomicU64);

    impl Clock for TestClock {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Returns the times that writes get at these times of the clock.
    fn times(highest_ms: u64, clock_ms: &[u64]) -> Vec<u64> {
        let clock = Arc::<TestClock>::default();
        let mut times = WriteClock::new(Arc::<TestClock>::clone(&clock), highest_ms);
        let next = |now_ms: &u64| {
            clock.0.store(*now_ms, Ordering::Relaxed);
            let time = times.begin_batch();
            times.end_batch();
            time
        };
        clock_ms.iter().map(next).collect()
    }

    #[test]
    fn time_of_a_correct_clock_is_used_unchanged() {
        assert_eq!(
            times(0, &[5000, 5000, 5001, 9000]),
            [5000, 5000, 5001, 9000]
        );
    }

    #[test]
    fn clock_that_goes_back_raises_the_time_by_one_second_once() {
        let found = times(0, &[50_000, 10_000, 10_001, 9_000, 50_999, 51_000, 51_001]);
        assert_eq!(
            found,
            [50_000, 51_000, 51_000, 51_000, 51_000, 51_000, 51_001]
        );
        // The clock goes back a second time.
        let found = times(0, &[50_000, 10_000, 60_000, 10_000]);
        assert_eq!(found, [50_000, 51_000, 60_000, 61_000]);
    }

    #[test]
    fn clock_behind_the_log_at_open_is_detected_at_the_first_write() {
        assert_eq!(times(50_000, &[7, 8]), [51_000, 51_000]);
        assert_eq!(times(u64::MAX, &[7]), [u64::MAX]);
    }
}
