//! Statistics over the rounds of a report, and the format of numbers.

use super::data::Report;
use crate::contender::Contender;
use crate::phase_result::PhaseResult;

/// A figure over all rounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct FigureSummary {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
}

impl Report {
    pub(super) fn contenders(&self) -> impl Iterator<Item = Contender> + '_ {
        self.metadata.contenders.keys().copied()
    }

    /// The names of all phases, in the order in which they ran.
    pub(super) fn phases(&self) -> Vec<&str> {
        let mut phases = Vec::new();
        for result in &self.results {
            if !phases.contains(&result.phase.as_str()) {
                phases.push(&result.phase);
            }
        }
        phases
    }

    /// Summarizes a figure of a phase. Returns `None` if the contender did not run the phase.
    pub(super) fn summary(
        &self,
        contender: Contender,
        phase: &str,
        figure: impl Fn(&PhaseResult) -> f64,
    ) -> Option<FigureSummary> {
        let mut figures: Vec<f64> = self
            .results
            .iter()
            .filter(|result| result.contender == contender && result.phase == phase)
            .map(figure)
            .collect();
        figures.sort_by(f64::total_cmp);
        Some(FigureSummary {
            min: *figures.first()?,
            median: figures[figures.len() / 2],
            max: *figures.last()?,
        })
    }

    /// The median of the operations per second.
    pub(super) fn median_throughput(&self, contender: Contender, phase: &str) -> Option<f64> {
        let summary = self.summary(contender, phase, PhaseResult::throughput)?;
        Some(summary.median)
    }
}

/// Formats a number with three significant digits.
pub(super) fn format_number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e4 => format!("{:.1} k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
