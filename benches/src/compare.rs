//! Runs a comparison: every contender runs every scenario, each in a process and a folder of
//! its own.

mod process;

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Result;
use crate::machine::Machine;
use crate::plan::{ComparisonPlan, PlannedRun};
use crate::report::{Failure, Report};
use crate::scenario::{Scenario, WorkloadSize};
use crate::syncs;
use process::ScenarioProcess;

/// Longest duration of a phase while its syncs are counted, in seconds. strace slows down
/// every call, and the number of syncs per put does not depend on the duration.
const SYNC_COUNT_SECONDS: f64 = 1.0;

/// Runs the whole comparison. A run that fails is listed in the report, and the others
/// continue.
pub fn compare(plan: &ComparisonPlan) -> Result<Report> {
    let scratch = tempfile::Builder::new()
        .prefix("prefd-bench-")
        .tempdir_in(&plan.dir)?;
    let mut report = Report::new(Machine::current(&plan.dir)?, plan);
    let runs = plan.runs();
    let bar = ProgressBar::new(runs.len() as u64).with_style(ProgressStyle::with_template(
        "{elapsed_precise} {bar:40} {pos}/{len} {msg}",
    )?);
    bar.enable_steady_tick(std::time::Duration::from_millis(500));
    for run in runs {
        let PlannedRun {
            round,
            scenario,
            contender,
        } = run;
        bar.set_message(format!("{} {scenario:?}", contender.name()));
        let process = ScenarioProcess {
            contender,
            scenario,
            size: plan.size,
            dir: scratch.path().join("data"),
            prefd: plan.prefd.clone(),
        };
        match process.run(&bar) {
            Ok(results) => report.results.extend(results.into_iter().map(|mut result| {
                result.round = round;
                result
            })),
            Err(error) => report.failures.push(Failure {
                contender,
                scenario,
                round,
                error: error.to_string(),
            }),
        }
        bar.inc(1);
    }
    count_syncs(plan, scratch.path(), &mut report, &bar);
    bar.finish_and_clear();
    Ok(report)
}

/// Runs the durable puts once more to count their syncs. Contenders whose durable puts have
/// failed are left out.
fn count_syncs(plan: &ComparisonPlan, scratch: &Path, report: &mut Report, bar: &ProgressBar) {
    let has_durable_puts =
        |scenario: &&Scenario| matches!(scenario, Scenario::Durable | Scenario::Http);
    for scenario in plan.scenarios.iter().filter(has_durable_puts) {
        for contender in &plan.contenders {
            let has_failed = |failure: &Failure| {
                failure.contender == *contender && failure.scenario == *scenario
            };
            let puts = contender.supports(*scenario) && contender.stores_documents();
            if !puts || report.failures.iter().any(has_failed) {
                continue;
            }
            bar.set_message(format!("{} syncs", contender.name()));
            let process = ScenarioProcess {
                contender: *contender,
                scenario: *scenario,
                size: WorkloadSize {
                    phase_seconds: plan.size.phase_seconds.min(SYNC_COUNT_SECONDS),
                    http_seconds: 1,
                    puts_only: true,
                    ..plan.size
                },
                dir: scratch.join("data"),
                prefd: plan.prefd.clone(),
            };
            match syncs::count(|strace| process.run_under(strace), scratch) {
                Ok(counts) => report.syncs.extend(counts),
                Err(error) => report.failures.push(Failure {
                    contender: *contender,
                    scenario: *scenario,
                    round: 0,
                    error: format!("cannot count the syncs: {error}"),
                }),
            }
        }
    }
}
