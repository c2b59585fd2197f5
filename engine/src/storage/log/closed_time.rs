//! The closed time of a store: no later write has a time in this second or an earlier one.
//!
//! HTTP dates have a resolution of one second, and the clock can go back. A date that the server
//! has sent for a document must not become the time of a later version of the document. Before a
//! reader uses the date of a document, it therefore closes the second of that date, and the log
//! gives later writes a time in a later second.

use std::sync::atomic::{AtomicU64, Ordering};

const MS_PER_SECOND: u64 = 1000;
/// The value of [`ClosedTime::committing`] while no batch is being committed.
const NO_BATCH: u64 = u64::MAX;

/// The closed time of a store. All times are whole seconds since 1970-01-01 UTC, unless stated
/// otherwise.
///
/// A reader closes a second, and then reads the time of the batch that is being committed. The
/// committer announces the time of a batch, and then reads the closed second. These operations are
/// sequentially consistent, so at least one of the two threads sees the value of the other, and
/// uses a different second.
pub(crate) struct ClosedTime {
    /// The latest closed second.
    closed: AtomicU64,
    /// The time of the newest batch, or of the batch that is being committed. A later second is
    /// not closed, because no document has a date in it. If it were closed, reads while the clock
    /// is wrong could move the times of later writes into the future.
    newest: AtomicU64,
    /// The time of the batch that is being committed, or [`NO_BATCH`].
    committing: AtomicU64,
}

impl ClosedTime {
    /// `highest_ms` is the highest time in the log, in milliseconds. Its second is closed, because
    /// it may have been sent as a date before the store was opened. A log without times, whose
    /// highest time is 0, has no such second.
    pub(super) fn new(highest_ms: u64) -> Self {
        let newest = highest_ms / MS_PER_SECOND;
        Self {
            closed: AtomicU64::new(newest),
            newest: AtomicU64::new(newest),
            committing: AtomicU64::new(NO_BATCH),
        }
    }

    /// Closes the seconds up to `limit` in which documents have been written, and returns the
    /// latest second that is certainly closed. Documents that are looked up after this call can be
    /// shown with this date or an earlier one. Never blocks.
    pub(crate) fn close_until(&self, limit: u64) -> u64 {
        let second = limit.min(self.newest.load(Ordering::SeqCst));
        // Most reads find the second closed, and need not write to memory that threads share.
        if self.closed.load(Ordering::SeqCst) < second {
            self.closed.fetch_max(second, Ordering::SeqCst);
        }
        let committing = self.committing.load(Ordering::SeqCst);
        second.min(committing.saturating_sub(1))
    }

    /// Announces a batch with the time `time_ms`, in milliseconds. Returns the time that the batch
    /// must have: the same time, or the first later one that is not closed.
    pub(super) fn begin_batch(&self, time_ms: u64) -> u64 {
        let second = time_ms / MS_PER_SECOND;
        self.committing.store(second, Ordering::SeqCst);
        let closed = self.closed.load(Ordering::SeqCst);
        let time_ms = if closed < second || closed == 0 {
            time_ms
        } else {
            closed.saturating_add(1).saturating_mul(MS_PER_SECOND)
        };
        let second = time_ms / MS_PER_SECOND;
        self.committing.store(second, Ordering::SeqCst);
        self.newest.store(second, Ordering::SeqCst);
        time_ms
    }

    /// Ends a batch, which has become visible or has failed.
    pub(super) fn end_batch(&self) {
        self.committing.store(NO_BATCH, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_batch_has_a_later_second_than_a_closed_one() {
        let times = ClosedTime::new(0);
        assert_eq!(times.begin_batch(50_300), 50_300);
        times.end_batch();
        assert_eq!(times.close_until(49), 49);
        assert_eq!(times.begin_batch(50_400), 50_400);
        times.end_batch();
        assert_eq!(times.close_until(50), 50);
        assert_eq!(times.begin_batch(50_999), 51_000);
        assert_eq!(times.begin_batch(52_001), 52_001);
    }

    #[test]
    fn second_of_a_batch_is_not_closed_before_the_batch_is_visible() {
        let times = ClosedTime::new(0);
        times.begin_batch(50_300);
        assert_eq!(times.close_until(60), 49);
        times.end_batch();
        assert_eq!(times.close_until(60), 50);
    }

    #[test]
    fn read_while_the_clock_is_ahead_does_not_move_later_writes() {
        let times = ClosedTime::new(50_300);
        assert_eq!(times.close_until(1_000_000), 50);
        assert_eq!(times.begin_batch(50_400), 51_000);
    }

    #[test]
    fn highest_second_of_the_log_is_closed_at_open() {
        assert_eq!(ClosedTime::new(50_300).begin_batch(50_400), 51_000);
        assert_eq!(ClosedTime::new(0).begin_batch(400), 400);
        assert_eq!(ClosedTime::new(u64::MAX).begin_batch(u64::MAX), u64::MAX);
    }
}
