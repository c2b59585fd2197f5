//! The settings of one run, and where its results go.

use std::path::Path;

use crate::Result;
use crate::contender::Contender;
use crate::meter::ResourceMeter;
use crate::phase_result::{PhaseResult, PhaseTiming};
use crate::scenario::WorkloadSize;

/// One run: a contender, and a folder that only this run uses.
pub struct ScenarioRun<'a> {
    /// The contender.
    pub contender: Contender,
    /// Folder for the contender's data.
    pub dir: &'a Path,
    /// Durations and document counts.
    pub size: WorkloadSize,
    /// Path of the `prefd` binary. With `None`, it is expected next to this program.
    pub prefd: Option<&'a Path>,
    /// Called with the result of each phase.
    pub on_result: &'a mut dyn FnMut(&PhaseResult) -> Result<()>,
}

impl ScenarioRun<'_> {
    /// Completes the timing of a phase with what `meter` has measured, and passes the result
    /// on. `value_bytes` is the size of each document that was written or read.
    pub(crate) fn record(
        &mut self,
        phase: &str,
        value_bytes: usize,
        timing: PhaseTiming,
        meter: &ResourceMeter,
    ) -> Result<()> {
        let result = meter.phase_result(self.contender, phase, value_bytes, timing, self.dir)?;
        (self.on_result)(&result)
    }
}
