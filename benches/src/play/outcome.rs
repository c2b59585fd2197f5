//! What a phase came to, and how that is found out.

use std::collections::BTreeMap;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::contender::Contender;
use crate::measure::{self, MemoryUsage, ResourceUsage};

/// What a phase came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PhaseResult {
    /// The contender.
    pub contender: Contender,
    /// The phase.
    pub phase: String,
    /// Which repetition.
    pub round: u32,
    /// Operations done.
    pub operations: u64,
    /// Seconds that they took, all threads together.
    pub seconds: f64,
    /// Bytes of documents that went in or out.
    pub document_bytes: u64,
    /// Latency in microseconds that half of the operations stayed within, of those that
    /// were timed.
    pub p50_us: f64,
    /// The same for 99 in 100.
    pub p99_us: f64,
    /// The same for 999 in 1000.
    pub p999_us: f64,
    /// Seconds of the processor.
    pub cpu_seconds: f64,
    /// Bytes written to the disk.
    pub written_bytes: u64,
    /// Resident memory at its end, in bytes.
    pub rss_bytes: u64,
    /// Of that what is no page of a file.
    pub anonymous_bytes: u64,
    /// The most that was ever resident of these processes, earlier phases included.
    pub peak_bytes: u64,
    /// Bytes of the folder on the disk at its end.
    pub disk_bytes: u64,
    /// Of that what is in folders of it, by their names.
    pub folders: BTreeMap<String, u64>,
}

impl PhaseResult {
    /// Seconds for one operation.
    pub fn seconds_each(&self) -> f64 {
        self.seconds / self.operations.max(1) as f64
    }

    /// Operations in a second.
    pub fn throughput(&self) -> f64 {
        self.operations as f64 / self.seconds.max(1e-9)
    }
}

/// How much was done in a phase, and how fast.
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
}

/// What is measured in a phase, and what it had used before.
pub(crate) struct ResourceMeter {
    /// Processes of which all descendants count.
    roots: Vec<i32>,
    before: ResourceUsage,
}

impl ResourceMeter {
    /// Of these processes and what they start, from now on.
    pub(crate) fn of(roots: Vec<i32>) -> Result<Self> {
        let before = ResourceUsage::of(&measure::tree(&roots)?)?;
        Ok(Self { roots, before })
    }

    /// Of this process, from now on.
    pub(super) fn of_this() -> Result<Self> {
        Self::of(vec![measure::this()?])
    }

    /// What the phase came to that ends now, with its documents of so many bytes each in
    /// a folder.
    pub(super) fn outcome(
        &self,
        contender: Contender,
        phase: &str,
        bytes: usize,
        done: PhaseTiming,
        dir: &Path,
    ) -> Result<PhaseResult> {
        let pids = measure::tree(&self.roots)?;
        let used = ResourceUsage::of(&pids)?.since(self.before);
        let memory = MemoryUsage::of(&pids)?;
        let (disk_bytes, folders) = measure::disk_bytes(dir)?;
        Ok(PhaseResult {
            contender,
            phase: phase.to_owned(),
            round: 0,
            operations: done.operations,
            seconds: done.seconds,
            document_bytes: done.operations * bytes as u64,
            p50_us: done.p50_us,
            p99_us: done.p99_us,
            p999_us: done.p999_us,
            cpu_seconds: used.cpu_seconds,
            written_bytes: used.written_bytes,
            rss_bytes: memory.resident,
            anonymous_bytes: memory.anonymous,
            peak_bytes: memory.peak,
            disk_bytes,
            folders,
        })
    }
}
