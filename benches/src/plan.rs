//! What a comparison runs, and in which order.

use std::path::PathBuf;

use crate::contender::Contender;
use crate::scenario::{Scenario, WorkloadSize};

/// The settings of a comparison.
pub struct ComparisonPlan {
    /// The contenders.
    pub contenders: Vec<Contender>,
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
    /// Durations and document counts.
    pub size: WorkloadSize,
    /// Number of repetitions. Long scenarios run only once.
    pub rounds: u32,
    /// A folder on the disk to measure. A temporary folder is created in it.
    pub dir: PathBuf,
    /// Path of the `prefd` binary. With `None`, it is expected next to this program.
    pub prefd: Option<PathBuf>,
}

/// One scenario run by one contender.
pub(crate) struct PlannedRun {
    /// Number of the repetition, from 0.
    pub(crate) round: u32,
    pub(crate) scenario: Scenario,
    pub(crate) contender: Contender,
}

impl ComparisonPlan {
    /// All runs in order. Contenders take turns, and their order is rotated in each round, so a
    /// slow period of the machine is less likely to affect the same contender in all rounds.
    pub(crate) fn runs(&self) -> Vec<PlannedRun> {
        let mut runs = Vec::new();
        for round in 0..self.rounds.max(1) {
            for scenario in &self.scenarios {
                let runs_once = matches!(scenario, Scenario::Bulk | Scenario::Scale);
                if runs_once && round > 0 {
                    continue;
                }
                let contenders = self.contenders.iter().cycle().skip(round as usize);
                for contender in contenders.take(self.contenders.len()) {
                    if contender.supports(*scenario) {
                        runs.push(PlannedRun {
                            round,
                            scenario: *scenario,
                            contender: *contender,
                        });
                    }
                }
            }
        }
        runs
    }
}
