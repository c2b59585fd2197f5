//! Everything that a comparison has measured, and its file of JSON lines.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::contender::Contender;
use crate::machine::Machine;
use crate::phase_result::PhaseResult;
use crate::plan::ComparisonPlan;
use crate::scenario::Scenario;
use crate::syncs::SyncCounts;

/// Everything that one comparison has measured.
pub struct Report {
    /// The machine and the contenders.
    pub metadata: ReportMetadata,
    /// The result of each phase of each run.
    pub results: Vec<PhaseResult>,
    /// The syncs of durable puts.
    pub syncs: Vec<SyncCounts>,
    /// The runs that failed.
    pub failures: Vec<Failure>,
}

/// A run that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// The contender.
    pub contender: Contender,
    /// The scenario.
    #[serde(rename = "topic")]
    pub scenario: Scenario,
    /// Number of the repetition, from 0.
    pub round: u32,
    /// The error message.
    #[serde(rename = "what")]
    pub error: String,
}

/// The conditions that the figures were measured under.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReportMetadata {
    /// The machine.
    pub machine: Machine,
    /// Number of repetitions.
    pub rounds: u32,
    /// Version and settings of each contender.
    pub contenders: BTreeMap<Contender, ContenderInfo>,
}

/// Version and settings of a contender.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContenderInfo {
    /// Name and version of the crate or the program.
    pub version: String,
    /// See [`Contender::durable_mode`].
    pub durable: String,
    /// See [`Contender::plain_mode`].
    pub plain: String,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReportLine {
    Setting(ReportMetadata),
    Outcome(PhaseResult),
    Syncs(SyncCounts),
    Failure(Failure),
}

impl Report {
    /// An empty report.
    pub fn new(machine: Machine, plan: &ComparisonPlan) -> Self {
        let info = |contender: &Contender| {
            let info = ContenderInfo {
                version: contender.version(),
                durable: contender.durable_mode().to_owned(),
                plain: contender.plain_mode().to_owned(),
            };
            (*contender, info)
        };
        let takes_part = |contender: &&Contender| {
            let mut scenarios = plan.scenarios.iter();
            scenarios.any(|scenario| contender.supports(*scenario))
        };
        let contenders = plan.contenders.iter().filter(takes_part).map(info);
        Self {
            metadata: ReportMetadata {
                machine,
                rounds: plan.rounds,
                contenders: contenders.collect(),
            },
            results: Vec::new(),
            syncs: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Reads a file that [`Report::write`] has written.
    pub fn read(path: &Path) -> Result<Self> {
        let mut metadata = None;
        let (mut results, mut syncs, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        for line in BufReader::new(std::fs::File::open(path)?).lines() {
            match serde_json::from_str(&line?)? {
                ReportLine::Setting(line) => metadata = Some(line),
                ReportLine::Outcome(line) => results.push(line),
                ReportLine::Syncs(line) => syncs.push(line),
                ReportLine::Failure(line) => failures.push(line),
            }
        }
        let missing = || format!("{}: no line describes the machine", path.display());
        Ok(Self {
            metadata: metadata.ok_or_else(missing)?,
            results,
            syncs,
            failures,
        })
    }

    /// Writes the report as one JSON object per line.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        let metadata = ReportLine::Setting(self.metadata.clone());
        let results = self.results.iter().cloned().map(ReportLine::Outcome);
        let syncs = self.syncs.iter().cloned().map(ReportLine::Syncs);
        let failures = self.failures.iter().cloned().map(ReportLine::Failure);
        let lines = std::iter::once(metadata).chain(results).chain(syncs);
        for line in lines.chain(failures) {
            serde_json::to_writer(&mut file, &line)?;
            file.write_all(b"\n")?;
        }
        Ok(file.flush()?)
    }
}
