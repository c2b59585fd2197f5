//! The comparison: every contender plays every scenario, each in a process and a folder of
//! its own, in turn and over again, so that a machine that is slow for a while is slow
//! for all of them.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Result;
use crate::contender::Contender;
use crate::measure::Machine;
use crate::play::PhaseResult;
use crate::report::{Failure, Report};
use crate::scenario::{BULK_MEMORY_BYTES, Scenario, WorkloadSize};
use crate::syncs;

/// What is to be compared.
pub struct ComparisonPlan {
    /// The contenders.
    pub contenders: Vec<Contender>,
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
    /// How much of each.
    pub size: WorkloadSize,
    /// Repetitions of those that do not take long.
    pub rounds: u32,
    /// A folder on the disk that is measured: a temporary one is made in it.
    pub dir: PathBuf,
    /// The server's binary; where it is `None`, the one beside this program.
    pub prefd: Option<PathBuf>,
}

/// Runs all of it.
pub fn compare(plan: &ComparisonPlan) -> Result<Report> {
    let scratch = tempfile::Builder::new()
        .prefix("prefd-bench-")
        .tempdir_in(&plan.dir)?;
    let mut report = Report::new(Machine::this(&plan.dir)?, plan);
    let plays = plays(plan);
    let bar = ProgressBar::new(plays.len() as u64).with_style(ProgressStyle::with_template(
        "{elapsed_precise} {bar:40} {pos}/{len} {msg}",
    )?);
    bar.enable_steady_tick(std::time::Duration::from_millis(500));
    for (round, scenario, contender) in plays {
        bar.set_message(format!("{} {scenario:?}", contender.name()));
        let stage = ScenarioProcess {
            contender,
            scenario,
            size: plan.size,
            dir: scratch.path().join("data"),
            prefd: plan.prefd.clone(),
        };
        match stage.play(&bar) {
            Ok(outcomes) => report
                .outcomes
                .extend(outcomes.into_iter().map(|mut outcome| {
                    outcome.round = round;
                    outcome
                })),
            // The others go on: what one cannot do is a result as well.
            Err(error) => report.failures.push(Failure {
                contender,
                scenario,
                round,
                what: error.to_string(),
            }),
        }
        bar.inc(1);
    }
    count_syncs(plan, scratch.path(), &mut report, &bar);
    bar.finish_and_clear();
    Ok(report)
}

/// Plays the durable puts once more, of those who came through them.
fn count_syncs(plan: &ComparisonPlan, scratch: &Path, report: &mut Report, bar: &ProgressBar) {
    let counted = |scenario: &&Scenario| matches!(scenario, Scenario::Durable | Scenario::Http);
    for scenario in plan.scenarios.iter().filter(counted) {
        for contender in &plan.contenders {
            let has_failed = |failure: &Failure| {
                failure.contender == *contender && failure.scenario == *scenario
            };
            let puts = contender.supports(*scenario) && contender.keeps_documents();
            if !puts || report.failures.iter().any(has_failed) {
                continue;
            }
            bar.set_message(format!("{} syncs", contender.name()));
            let stage = ScenarioProcess {
                contender: *contender,
                scenario: *scenario,
                size: WorkloadSize {
                    seconds: plan.size.seconds.min(1.0),
                    http_seconds: 1,
                    puts_only: true,
                    ..plan.size
                },
                dir: scratch.join("data"),
                prefd: plan.prefd.clone(),
            };
            match syncs::count(|strace| stage.run(strace), scratch) {
                Ok(counts) => report.syncs.extend(counts),
                Err(error) => report.failures.push(Failure {
                    contender: *contender,
                    scenario: *scenario,
                    round: 0,
                    what: format!("its syncs could not be counted: {error}"),
                }),
            }
        }
    }
}

/// Who plays what, in which order: each round begins with another contender.
fn plays(plan: &ComparisonPlan) -> Vec<(u32, Scenario, Contender)> {
    let mut plays = Vec::new();
    for round in 0..plan.rounds.max(1) {
        for scenario in &plan.scenarios {
            let once = matches!(scenario, Scenario::Bulk | Scenario::Scale);
            if once && round > 0 {
                continue;
            }
            let contenders = plan.contenders.iter().cycle().skip(round as usize);
            for contender in contenders.take(plan.contenders.len()) {
                if contender.supports(*scenario) {
                    plays.push((round, *scenario, *contender));
                }
            }
        }
    }
    plays
}

/// A contender, a scenario, and the folder it plays in.
struct ScenarioProcess {
    contender: Contender,
    scenario: Scenario,
    size: WorkloadSize,
    dir: PathBuf,
    prefd: Option<PathBuf>,
}

impl ScenarioProcess {
    fn play(&self, bar: &ProgressBar) -> Result<Vec<PhaseResult>> {
        let outcomes = match self.scenario {
            Scenario::Scale => self.scale()?,
            Scenario::Bulk => {
                let (command, is_capped) = capped(BULK_MEMORY_BYTES);
                if !is_capped {
                    bar.println("no control group to cap the memory with: not capped");
                }
                self.run(command)?
            }
            _ => self.run(Command::new("env"))?,
        };
        Ok(outcomes)
    }

    /// Plays it as the last arguments of `command`.
    fn run(&self, mut command: Command) -> Result<Vec<PhaseResult>> {
        self.clear()?;
        self.arguments(&mut command, "play")?;
        let outcomes = finish(command.spawn()?)?;
        self.clear()?;
        Ok(outcomes)
    }

    /// Loads, kills, opens again, closes and opens again.
    fn scale(&self) -> Result<Vec<PhaseResult>> {
        self.clear()?;
        let mut command = Command::new("env");
        self.arguments(&mut command, "play")?;
        // Its standard input is open: it waits for the end of it.
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        child.kill()?;
        child.wait()?;
        let mut outcomes = vec![serde_json::from_str(&line)?];
        for after in ["SIGKILL", "a clean close"] {
            let mut command = Command::new("env");
            self.arguments(&mut command, "reopen")?;
            command.arg("--after").arg(after);
            outcomes.extend(finish(command.spawn()?)?);
        }
        self.clear()?;
        Ok(outcomes)
    }

    fn arguments(&self, command: &mut Command, verb: &str) -> Result<()> {
        command
            .arg(std::env::current_exe()?)
            .arg(verb)
            .arg("--contender")
            .arg(value_name(&self.contender)?)
            .arg("--topic")
            .arg(value_name(&self.scenario)?)
            .arg("--size")
            .arg(serde_json::to_string(&self.size)?)
            .arg("--dir")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(prefd) = &self.prefd {
            command.arg("--prefd").arg(prefd);
        }
        Ok(())
    }

    /// Removes what was there, and lets the disk come to rest.
    fn clear(&self) -> Result<()> {
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir)?;
        }
        Command::new("sync").status()?;
        Ok(())
    }
}

fn value_name(value: &impl clap::ValueEnum) -> Result<String> {
    let value = value.to_possible_value().ok_or("no name")?;
    Ok(value.get_name().to_owned())
}

fn finish(mut child: Child) -> Result<Vec<PhaseResult>> {
    let stdout = child.stdout.take().ok_or("no output")?;
    let outcomes = BufReader::new(stdout)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<Result<Vec<PhaseResult>>>();
    let mut complaint = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut complaint)?;
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("{} ({status})", complaint.lines().last().unwrap_or("")).into());
    }
    outcomes
}

/// A command that runs its arguments in a control group of this much memory, the page
/// cache included; and whether it does: that takes root.
fn capped(bytes: u64) -> (Command, bool) {
    let name = "prefd-bench";
    let unified = Path::new("/sys/fs/cgroup").join(name);
    let legacy = Path::new("/sys/fs/cgroup/memory").join(name);
    for (group, limit) in [(legacy, "memory.limit_in_bytes"), (unified, "memory.max")] {
        let is_made = group.is_dir() || std::fs::create_dir(&group).is_ok();
        if is_made && std::fs::write(group.join(limit), bytes.to_string()).is_ok() {
            let mut command = Command::new("sh");
            command
                .arg("-c")
                .arg("echo $$ > \"$0\" && exec \"$@\"")
                .arg(group.join("cgroup.procs"));
            return (command, true);
        }
    }
    (Command::new("env"), false)
}
