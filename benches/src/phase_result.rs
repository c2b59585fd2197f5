//! The figures that are measured in one phase.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::contender::Contender;

/// Largest latency in a histogram, in nanoseconds: ten minutes. Longer ones count as this.
const MAX_LATENCY_NS: u64 = 600_000_000_000;
/// Significant decimal digits of a latency in a histogram.
const LATENCY_DIGITS: u8 = 3;

/// Everything that was measured in one phase, as it is written to a report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PhaseResult {
    /// The contender.
    pub contender: Contender,
    /// Name of the phase.
    pub phase: String,
    /// Number of the repetition, from 0.
    pub round: u32,
    /// Number of operations.
    pub operations: u64,
    /// Duration of the phase, in seconds.
    pub seconds: f64,
    /// Total size of the documents that were written or read, in bytes.
    pub document_bytes: u64,
    /// Median latency of the timed operations, in microseconds.
    pub p50_us: f64,
    /// 99th percentile of the latency, in microseconds.
    pub p99_us: f64,
    /// 99.9th percentile of the latency, in microseconds.
    pub p999_us: f64,
    /// Processor time, in seconds.
    pub cpu_seconds: f64,
    /// Bytes written to the disk.
    pub written_bytes: u64,
    /// Resident memory at the end of the phase, in bytes.
    pub rss_bytes: u64,
    /// The part of the resident memory that is not file pages.
    pub anonymous_bytes: u64,
    /// Peak resident memory since the processes started, in bytes.
    pub peak_bytes: u64,
    /// Disk space that the contender's folder uses at the end of the phase, in bytes.
    pub disk_bytes: u64,
    /// Disk space of each folder directly inside it, by name.
    pub folders: BTreeMap<String, u64>,
}

impl PhaseResult {
    /// Seconds per operation.
    pub fn seconds_per_operation(&self) -> f64 {
        self.seconds / self.operations.max(1) as f64
    }

    /// Operations per second.
    pub fn throughput(&self) -> f64 {
        self.operations as f64 / self.seconds.max(1e-9)
    }
}

/// Throughput and latencies of one phase.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PhaseTiming {
    pub(crate) operations: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
}

impl PhaseTiming {
    /// `latencies` are in nanoseconds.
    pub(crate) fn new(operations: u64, seconds: f64, latencies: &Histogram<u64>) -> Self {
        let micros = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            operations,
            seconds,
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
        }
    }

    /// The timing of a single operation.
    pub(crate) fn of_single_operation(duration: Duration) -> Result<Self> {
        let mut latencies = latency_histogram()?;
        latencies.saturating_record(duration.as_nanos() as u64);
        Ok(Self::new(1, duration.as_secs_f64(), &latencies))
    }
}

/// An empty histogram for latencies in nanoseconds.
pub(crate) fn latency_histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(
        1,
        MAX_LATENCY_NS,
        LATENCY_DIGITS,
    )?)
}
