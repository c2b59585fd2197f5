//! The comparison: every engine plays every scenario, each in a process and a folder of
//! its own, in turn and over again, so that a machine that is slow for a while is slow
//! for all of them.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Result;
use crate::measure::Machine;
use crate::play::Outcome;
use crate::report::{Failure, Report};
use crate::scenario::{BULK_MEMORY_BYTES, Extent, Topic};
use crate::stores::Engine;
use crate::syncs;

/// What is to be compared.
pub struct Plan {
    /// The engines.
    pub engines: Vec<Engine>,
    /// The scenarios.
    pub topics: Vec<Topic>,
    /// How much of each.
    pub extent: Extent,
    /// Repetitions of those that do not take long.
    pub rounds: u32,
    /// A folder on the disk that is measured: a temporary one is made in it.
    pub dir: PathBuf,
}

/// Runs all of it.
pub fn compare(plan: &Plan) -> Result<Report> {
    let scratch = tempfile::Builder::new()
        .prefix("prefd-bench-")
        .tempdir_in(&plan.dir)?;
    let mut report = Report::new(Machine::this(&plan.dir)?, plan);
    let plays = plays(plan);
    let counted = plan.topics.contains(&Topic::Durable);
    let steps = plays.len() + if counted { plan.engines.len() } else { 0 };
    let bar = ProgressBar::new(steps as u64).with_style(ProgressStyle::with_template(
        "{elapsed_precise} {bar:40} {pos}/{len} {msg}",
    )?);
    bar.enable_steady_tick(std::time::Duration::from_millis(500));
    for (round, topic, engine) in plays {
        bar.set_message(format!("{} {topic:?}", engine.name()));
        let stage = Stage {
            engine,
            topic,
            extent: plan.extent,
            dir: scratch.path().join("data"),
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
                engine,
                topic,
                round,
                what: error.to_string(),
            }),
        }
        bar.inc(1);
    }
    if counted {
        for engine in &plan.engines {
            bar.set_message(format!("{} syncs", engine.name()));
            let stage = Stage {
                engine: *engine,
                topic: Topic::Durable,
                extent: Extent {
                    seconds: plan.extent.seconds.min(1.0),
                    ..plan.extent
                },
                dir: scratch.path().join("data"),
            };
            let counts = syncs::count(|strace, _| stage.run(strace), scratch.path())?;
            report.syncs.extend(counts.into_iter().flatten());
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

/// Who plays what, in which order: each round begins with another engine.
fn plays(plan: &Plan) -> Vec<(u32, Topic, Engine)> {
    let mut plays = Vec::new();
    for round in 0..plan.rounds.max(1) {
        for topic in &plan.topics {
            let once = matches!(topic, Topic::Bulk | Topic::Scale);
            if once && round > 0 {
                continue;
            }
            let engines = plan.engines.iter().cycle().skip(round as usize);
            for engine in engines.take(plan.engines.len()) {
                // It has nothing to open again, and no memory of its own to speak of.
                let is_bare = *engine == Engine::Bare;
                if !(is_bare && *topic == Topic::Scale) {
                    plays.push((round, *topic, *engine));
                }
            }
        }
    }
    plays
}

/// An engine, a scenario, and the folder it plays in.
struct Stage {
    engine: Engine,
    topic: Topic,
    extent: Extent,
    dir: PathBuf,
}

impl Stage {
    fn play(&self, bar: &ProgressBar) -> Result<Vec<Outcome>> {
        let outcomes = match self.topic {
            Topic::Scale => self.scale()?,
            Topic::Bulk => {
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
    fn run(&self, mut command: Command) -> Result<Vec<Outcome>> {
        self.clear()?;
        self.arguments(&mut command, "play")?;
        let outcomes = finish(command.spawn()?)?;
        self.clear()?;
        Ok(outcomes)
    }

    /// Loads, kills, opens again, closes and opens again.
    fn scale(&self) -> Result<Vec<Outcome>> {
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
            .arg("--engine")
            .arg(value_name(&self.engine)?)
            .arg("--topic")
            .arg(value_name(&self.topic)?)
            .arg("--extent")
            .arg(serde_json::to_string(&self.extent)?)
            .arg("--dir")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
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

fn finish(mut child: Child) -> Result<Vec<Outcome>> {
    let stdout = child.stdout.take().ok_or("no output")?;
    let outcomes = BufReader::new(stdout)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<Result<Vec<Outcome>>>();
    let mut complaint = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut complaint)?;
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("{}({status})", complaint.lines().last().unwrap_or("")).into());
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
