//! The durations of the log's syncs.

use std::time::Duration;

use crate::model::metrics::LOG_SYNC_BOUNDS_US;
use crate::platform::counters::{Histogram, SingleWriterHistogram};

/// A histogram of sync durations in microseconds. Only the commit leader adds durations to the
/// histogram.
pub(crate) struct SyncLatency(SingleWriterHistogram<{ LOG_SYNC_BOUNDS_US.len() }>);

impl Default for SyncLatency {
    fn default() -> Self {
        Self(SingleWriterHistogram::new(&LOG_SYNC_BOUNDS_US))
    }
}

impl SyncLatency {
    /// Adds the duration of a sync.
    pub(crate) fn record(&self, took: Duration) {
        self.0
            .add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns the histogram of the sync durations that were recorded since the store was opened.
    pub(crate) fn histogram(&self) -> Histogram {
        self.0.histogram()
    }
}
