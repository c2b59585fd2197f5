//! What was measured, as JSON lines; and medians of it, as tables and plots.

mod plot;
mod table;
mod targets;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use plot::plots;
pub use table::markdown;

use crate::Result;
use crate::compare::ComparisonPlan;
use crate::contender::Contender;
use crate::measure::Machine;
use crate::play::PhaseResult;
use crate::scenario::Scenario;
use crate::syncs::SyncCounts;

/// All that one comparison has measured.
pub struct Report {
    /// Where, and with which versions.
    pub metadata: ReportMetadata,
    /// What every phase of every run came to.
    pub outcomes: Vec<PhaseResult>,
    /// How often durable puts sync.
    pub syncs: Vec<SyncCounts>,
    /// What could not be played to its end.
    pub failures: Vec<Failure>,
}

/// A scenario that a contender did not come through.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// The contender.
    pub contender: Contender,
    /// The scenario.
    #[serde(rename = "topic")]
    pub scenario: Scenario,
    /// Which repetition.
    pub round: u32,
    /// What it said.
    pub what: String,
}

/// What must be known to make sense of the figures.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportMetadata {
    /// The machine.
    pub machine: Machine,
    /// Repetitions.
    pub rounds: u32,
    /// The contenders' versions, and what a durable and a plain put is to each.
    pub contenders: BTreeMap<Contender, ContenderInfo>,
}

/// A contender's version and modes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContenderInfo {
    /// The crate, and its version.
    pub version: String,
    /// See [`Contender::durable_mode`].
    pub durable: String,
    /// See [`Contender::plain_mode`].
    pub plain: String,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReportLine {
    Setting(ReportMetadata),
    Outcome(PhaseResult),
    Syncs(SyncCounts),
    Failure(Failure),
}

/// A figure over the rounds.
#[derive(Debug, Clone, Copy)]
struct FigureSummary {
    min: f64,
    median: f64,
    max: f64,
}

impl Report {
    /// Nothing yet.
    pub fn new(machine: Machine, plan: &ComparisonPlan) -> Self {
        let modes = |contender: &Contender| {
            let modes = ContenderInfo {
                version: contender.version(),
                durable: contender.durable_mode().to_owned(),
                plain: contender.plain_mode().to_owned(),
            };
            (*contender, modes)
        };
        let plays = |contender: &&Contender| {
            plan.scenarios
                .iter()
                .any(|scenario| contender.supports(*scenario))
        };
        Self {
            metadata: ReportMetadata {
                machine,
                rounds: plan.rounds,
                contenders: plan.contenders.iter().filter(plays).map(modes).collect(),
            },
            outcomes: Vec::new(),
            syncs: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Reads what [`Report::write`] has written.
    pub fn read(path: &Path) -> Result<Self> {
        let mut setting = None;
        let (mut outcomes, mut syncs, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        for line in BufReader::new(std::fs::File::open(path)?).lines() {
            match serde_json::from_str(&line?)? {
                ReportLine::Setting(line) => setting = Some(line),
                ReportLine::Outcome(line) => outcomes.push(line),
                ReportLine::Syncs(line) => syncs.push(line),
                ReportLine::Failure(line) => failures.push(line),
            }
        }
        Ok(Self {
            metadata: setting.ok_or("the first line, on the machine, is missing")?,
            outcomes,
            syncs,
            failures,
        })
    }

    /// Writes a line of JSON for each thing that was measured.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        let setting = ReportLine::Setting(self.metadata.clone());
        let outcomes = self.outcomes.iter().cloned().map(ReportLine::Outcome);
        let syncs = self.syncs.iter().cloned().map(ReportLine::Syncs);
        let failures = self.failures.iter().cloned().map(ReportLine::Failure);
        let lines = std::iter::once(setting).chain(outcomes).chain(syncs);
        for line in lines.chain(failures) {
            serde_json::to_writer(&mut file, &line)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    }

    fn contenders(&self) -> impl Iterator<Item = Contender> + '_ {
        self.metadata.contenders.keys().copied()
    }

    /// The phases, in the order in which they were played.
    fn phases(&self) -> Vec<&str> {
        let mut phases = Vec::new();
        for outcome in &self.outcomes {
            if !phases.contains(&outcome.phase.as_str()) {
                phases.push(&outcome.phase);
            }
        }
        phases
    }

    fn summary(
        &self,
        contender: Contender,
        phase: &str,
        figure: impl Fn(&PhaseResult) -> f64,
    ) -> Option<FigureSummary> {
        let mut figures: Vec<f64> = self
            .outcomes
            .iter()
            .filter(|outcome| outcome.contender == contender && outcome.phase == phase)
            .map(figure)
            .collect();
        figures.sort_by(f64::total_cmp);
        Some(FigureSummary {
            min: *figures.first()?,
            median: figures[figures.len() / 2],
            max: *figures.last()?,
        })
    }

    fn throughput(&self, contender: Contender, phase: &str) -> Option<f64> {
        Some(
            self.summary(contender, phase, PhaseResult::throughput)?
                .median,
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::scenario::WorkloadSize;

    fn outcome(contender: Contender, phase: &str, operations: u64) -> PhaseResult {
        PhaseResult {
            contender,
            phase: phase.to_owned(),
            round: 0,
            operations,
            seconds: 1.0,
            document_bytes: operations * 1024,
            p50_us: 1.0,
            p99_us: 2.0,
            p999_us: 3.0,
            cpu_seconds: 0.5,
            written_bytes: operations * 2048,
            rss_bytes: 1 << 20,
            anonymous_bytes: 1 << 19,
            peak_bytes: 1 << 21,
            disk_bytes: 1 << 20,
            folders: BTreeMap::new(),
        }
    }

    fn report() -> Report {
        let plan = ComparisonPlan {
            contenders: Contender::value_variants().to_vec(),
            scenarios: vec![Scenario::Durable, Scenario::Http],
            size: WorkloadSize::TINY,
            rounds: 1,
            dir: ".".into(),
            prefd: None,
        };
        let machine = Machine::this(Path::new(".")).unwrap();
        let mut report = Report::new(machine, &plan);
        let http = "HTTP durable PUT 1 KiB, 64 connections, ES256";
        report.outcomes = vec![
            outcome(Contender::Prefd, "durable put, 64 writers", 90),
            outcome(Contender::Lmdb, "durable put, 64 writers", 10),
            outcome(Contender::Redb, "durable put, 64 writers", 12),
            outcome(Contender::Prefd, http, 60),
            outcome(Contender::Webdis, http, 50),
        ];
        report
    }

    #[test]
    fn tables_show_those_who_have_a_figure_in_them() {
        let markdown = markdown(&report());
        let (_, tables) = markdown.split_once("\n## Storage\n").unwrap();
        let (storage, http) = tables.split_once("\n## HTTP\n").unwrap();
        assert!(storage.contains("| prefd | redb | LMDB |"), "{storage}");
        assert!(http.contains("| prefd | webdis, Redis |"), "{http}");
        assert!(!storage.contains("HTTP"), "{storage}");
    }

    #[test]
    fn a_target_may_compare_a_phase_with_another() {
        let markdown = markdown(&report());
        let row =
            "times the best of redb, fjall, LMDB, SQLite by 64 writers | ≥ 4.00 | 5.00 | yes |";
        assert!(markdown.contains(row), "{markdown}");
    }

    #[test]
    fn a_report_is_read_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("comparison.jsonl");
        let report = report();
        report.write(&path).unwrap();
        let read = Report::read(&path).unwrap();
        assert_eq!(markdown(&read), markdown(&report));
    }
}
