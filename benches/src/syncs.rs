//! Whether a durable put is: the system calls that put data on stable storage, counted
//! by strace between two marks, for each put that was acknowledged.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::contender::Contender;
use crate::play::PhaseResult;

/// Opened, in vain, where a phase begins and ends: that shows in the trace.
const BEGIN: &str = "/prefd-bench-begins";
const END: &str = "/prefd-bench-ends";
const CALLS: &str = "fsync,fdatasync,msync,sync_file_range,sync,syncfs,openat,pwrite64,pwritev";

/// Says in a trace that a phase begins.
pub fn mark_begin() {
    let _ = std::fs::File::open(BEGIN);
}

/// Says in a trace that a phase has ended.
pub fn mark_end() {
    let _ = std::fs::File::open(END);
}

/// What was counted in one phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncCounts {
    /// The contender.
    pub contender: Contender,
    /// The phase.
    pub phase: String,
    /// Puts that were acknowledged.
    pub puts: u64,
    /// Calls, by name. A write to a file that was opened with `O_DSYNC` is counted as
    /// `O_DSYNC write`.
    pub calls: BTreeMap<String, u64>,
}

impl SyncCounts {
    /// Calls that wait for the disk's own cache, for each put.
    pub fn for_each_put(&self) -> f64 {
        let calls: u64 = self
            .calls
            .iter()
            .filter(|(name, _)| *name != "sync_file_range")
            .map(|(_, count)| count)
            .sum();
        calls as f64 / self.puts.max(1) as f64
    }
}

/// Plays durable puts under strace, servers and all that they start included. `child` runs
/// the process that plays them as the last arguments of a command. Nothing is counted
/// where there is no strace.
pub fn count(
    child: impl FnOnce(Command) -> Result<Vec<PhaseResult>>,
    scratch: &Path,
) -> Result<Vec<SyncCounts>> {
    let found = Command::new("strace")
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !found.is_ok_and(|status| status.success()) {
        return Ok(Vec::new());
    }
    let trace = scratch.join("trace");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-e", "signal=none", "-e"])
        .arg(format!("trace={CALLS}"))
        .arg("-o")
        .arg(&trace);
    let outcomes = child(strace)?;
    let text = std::fs::read(&trace)?;
    let phases = parse(&String::from_utf8_lossy(&text));
    if phases.len() != outcomes.len() {
        return Err("the trace does not show every phase".into());
    }
    Ok(outcomes
        .into_iter()
        .zip(phases)
        .map(|(outcome, calls)| SyncCounts {
            contender: outcome.contender,
            phase: outcome.phase,
            puts: outcome.operations,
            calls,
        })
        .collect())
}

/// The calls between each pair of marks.
fn parse(trace: &str) -> Vec<BTreeMap<String, u64>> {
    let mut phases = Vec::new();
    let mut current: Option<BTreeMap<String, u64>> = None;
    let mut synchronous = HashSet::new();
    for line in trace.lines() {
        // "PID name(arguments) = result"; a call that another thread's interrupts is
        // counted where it begins.
        let Some((name, arguments)) = line
            .split_once(' ')
            .and_then(|(_, call)| call.trim_start().split_once('('))
        else {
            continue;
        };
        if name.starts_with('<') {
            continue;
        }
        if name == "openat" {
            if arguments.contains(BEGIN) {
                current = Some(BTreeMap::new());
            } else if arguments.contains(END) {
                phases.extend(current.take());
            } else if let Some(fd) = opened(arguments) {
                if arguments.contains("O_DSYNC") || arguments.contains("O_SYNC") {
                    synchronous.insert(fd);
                } else {
                    synchronous.remove(&fd);
                }
            }
            continue;
        }
        let name = if name.starts_with("pwrite") {
            let fd = arguments.split([',', ' ', ')']).next().unwrap_or_default();
            if !synchronous.contains(fd) {
                continue;
            }
            "O_DSYNC write"
        } else {
            name
        };
        if let Some(calls) = &mut current {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    phases
}

fn opened(arguments: &str) -> Option<String> {
    let (_, result) = arguments.rsplit_once("= ")?;
    let fd = result.split(' ').next()?;
    fd.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| fd.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_between_the_marks() {
        let trace = "\
12 fdatasync(3) = 0
12 openat(AT_FDCWD, \"data.mdb\", O_RDWR|O_DSYNC|O_CLOEXEC) = 7
12 openat(AT_FDCWD, \"/prefd-bench-begins\", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file)
13 fdatasync(3 <unfinished ...>
14 pwrite64(7, \"x\", 1, 0) = 1
14 pwrite64(8, \"x\", 1, 0) = 1
13 <... fdatasync resumed>) = 0
12 <... openat resumed>) = -1 ENOENT (No such file or directory)
14 fsync(9)   = 0
14 sync_file_range(4, 0, 0, SYNC_FILE_RANGE_WRITE) = 0
12 openat(AT_FDCWD, \"/prefd-bench-ends\", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file)
12 fsync(3) = 0
";
        let phases = parse(trace);
        let expected = [
            ("O_DSYNC write", 1),
            ("fdatasync", 1),
            ("fsync", 1),
            ("sync_file_range", 1),
        ];
        assert_eq!(phases.len(), 1);
        let found: Vec<_> = phases[0].iter().map(|(n, c)| (n.as_str(), *c)).collect();
        assert_eq!(found, expected);
        let syncs = SyncCounts {
            contender: Contender::Lmdb,
            phase: String::new(),
            puts: 3,
            calls: phases[0].clone(),
        };
        assert!((syncs.for_each_put() - 1.0).abs() < 1e-9);
    }
}
