//! Runs one scenario in a child process, which is this program with other arguments.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use indicatif::ProgressBar;

use crate::Result;
use crate::contender::Contender;
use crate::phase_result::PhaseResult;
use crate::scenario::{BULK_MEMORY_BYTES, Scenario, WorkloadSize};

/// A child process that runs one scenario with one contender.
pub(super) struct ScenarioProcess {
    pub(super) contender: Contender,
    pub(super) scenario: Scenario,
    pub(super) size: WorkloadSize,
    /// Folder for the contender's data. It is removed before and after the run.
    pub(super) dir: PathBuf,
    pub(super) prefd: Option<PathBuf>,
}

impl ScenarioProcess {
    /// Runs the scenario and returns the results of its phases.
    pub(super) fn run(&self, bar: &ProgressBar) -> Result<Vec<PhaseResult>> {
        match self.scenario {
            Scenario::Scale => self.run_and_reopen(),
            Scenario::Bulk => {
                let limited = memory_limited(BULK_MEMORY_BYTES);
                if limited.is_none() {
                    bar.println("cannot set up a control group: memory is not limited");
                }
                self.run_under(limited.unwrap_or_else(|| Command::new("env")))
            }
            _ => self.run_under(Command::new("env")),
        }
    }

    /// Runs the scenario with `command`, which runs the program that its last arguments name.
    pub(super) fn run_under(&self, mut command: Command) -> Result<Vec<PhaseResult>> {
        self.clear()?;
        self.add_arguments(&mut command, "run")?;
        let results = finish(command.spawn()?)?;
        self.clear()?;
        Ok(results)
    }

    /// Loads the documents and kills the process, then opens the store twice: after the kill,
    /// and after a clean close.
    fn run_and_reopen(&self) -> Result<Vec<PhaseResult>> {
        self.clear()?;
        let mut command = Command::new("env");
        self.add_arguments(&mut command, "run")?;
        // The child waits until its standard input ends. The pipe stays open until the kill.
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let stdout = child
            .stdout
            .take()
            .ok_or("the child has no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        child.kill()?;
        child.wait()?;
        let mut results = vec![serde_json::from_str(&line)?];
        for after in ["SIGKILL", "a clean close"] {
            let mut command = Command::new("env");
            self.add_arguments(&mut command, "reopen")?;
            command.arg("--after").arg(after);
            results.extend(finish(command.spawn()?)?);
        }
        self.clear()?;
        Ok(results)
    }

    fn add_arguments(&self, command: &mut Command, subcommand: &str) -> Result<()> {
        command
            .arg(std::env::current_exe()?)
            .arg(subcommand)
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

    /// Removes the data of an earlier run. Syncs, so that the disk has no writes left to do
    /// during the next measurement.
    fn clear(&self) -> Result<()> {
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir)?;
        }
        Command::new("sync").status()?;
        Ok(())
    }
}

/// The name of a value on the command line.
fn value_name(value: &impl clap::ValueEnum) -> Result<String> {
    let value = value
        .to_possible_value()
        .ok_or("the value cannot be given on the command line")?;
    Ok(value.get_name().to_owned())
}

/// Reads the results of a child, and waits until it ends.
fn finish(mut child: Child) -> Result<Vec<PhaseResult>> {
    let stdout = child
        .stdout
        .take()
        .ok_or("the child has no standard output")?;
    let results = BufReader::new(stdout)
        .lines()
        .map(|line| Ok(serde_json::from_str(&line?)?))
        .collect::<Result<Vec<PhaseResult>>>();
    let mut messages = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut messages)?;
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("{} ({status})", messages.lines().last().unwrap_or("")).into());
    }
    results
}

/// A command that runs its arguments in a control group with this memory limit, which includes
/// the page cache. Returns `None` if the control group cannot be set up, which requires root.
fn memory_limited(bytes: u64) -> Option<Command> {
    let name = "prefd-bench";
    let unified = Path::new("/sys/fs/cgroup").join(name);
    let legacy = Path::new("/sys/fs/cgroup/memory").join(name);
    for (group, limit) in [(legacy, "memory.limit_in_bytes"), (unified, "memory.max")] {
        let exists = group.is_dir() || std::fs::create_dir(&group).is_ok();
        if exists && std::fs::write(group.join(limit), bytes.to_string()).is_ok() {
            let mut command = Command::new("sh");
            command
                .arg("-c")
                .arg("echo $$ > \"$0\" && exec \"$@\"")
                .arg(group.join("cgroup.procs"));
            return Some(command);
        }
    }
    None
}
