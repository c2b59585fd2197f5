//! Measures the resources that a phase uses.

use std::path::Path;

use crate::Result;
use crate::contender::Contender;
use crate::phase_result::{PhaseResult, PhaseTiming};
use crate::processes::{self, MemoryUsage, ResourceUsage};

/// Measures the processor time, memory and writes of processes, from its creation on.
pub(crate) struct ResourceMeter {
    /// The measured processes. All their descendants are measured too.
    roots: Vec<i32>,
    /// Usage at the time of creation.
    before: ResourceUsage,
}

impl ResourceMeter {
    /// Starts to measure these processes and their descendants.
    pub(crate) fn start(roots: Vec<i32>) -> Result<Self> {
        let before = ResourceUsage::of(&processes::tree(&roots)?)?;
        Ok(Self { roots, before })
    }

    /// Starts to measure this process.
    pub(crate) fn start_for_this_process() -> Result<Self> {
        Self::start(vec![processes::current_pid()?])
    }

    /// Returns the result of the phase that has just ended. `value_bytes` is the size of
    /// each document, and `dir` contains the contender's data.
    pub(crate) fn phase_result(
        &self,
        contender: Contender,
        phase: &str,
        value_bytes: usize,
        timing: PhaseTiming,
        dir: &Path,
    ) -> Result<PhaseResult> {
        let pids = processes::tree(&self.roots)?;
        let used = ResourceUsage::of(&pids)?.since(self.before);
        let memory = MemoryUsage::of(&pids)?;
        let (disk_bytes, folders) = processes::disk_bytes(dir)?;
        Ok(PhaseResult {
            contender,
            phase: phase.to_owned(),
            round: 0,
            operations: timing.operations,
            seconds: timing.seconds,
            document_bytes: timing.operations * value_bytes as u64,
            p50_us: timing.p50_us,
            p99_us: timing.p99_us,
            p999_us: timing.p999_us,
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
