//! Counts the syncs of durable puts with strace: the system calls that write data to stable
//! storage. They are counted between two marks in the trace, and compared with the
//! number of acknowledged puts.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::contender::Contender;
use crate::phase_result::PhaseResult;

/// Files that do not exist. The attempt to open one marks the beginning or the end of a phase
/// in the trace.
const BEGIN: &str = "/prefd-bench-begins";
const END: &str = "/prefd-bench-ends";
/// System calls that are traced.
const CALLS: &str = "fsync,fdatasync,msync,sync_file_range,sync,syncfs,openat,pwrite64,pwritev";

/// Marks the beginning of a phase in the trace.
pub fn mark_begin() {
    let _ = std::fs::File::open(BEGIN);
}

/// Marks the end of a phase in the trace.
pub fn mark_end() {
    let _ = std::fs::File::open(END);
}

/// The calls of one phase.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncCounts {
    /// The contender.
    pub contender: Contender,
    /// The phase.
    pub phase: String,
    /// Number of acknowledged puts.
    pub puts: u64,
    /// Number of calls, by name. Writes to files opened with `O_DSYNC` are counted as
    /// `O_DSYNC write`.
    pub calls: BTreeMap<String, u64>,
}

impl SyncCounts {
    /// Calls per put that flush the disk's own cache. `sync_file_range` does not.
    pub fn per_put(&self) -> f64 {
        let calls: u64 = self
            .calls
            .iter()
            .filter(|(name, _)| *name != "sync_file_range")
            .map(|(_, count)| count)
            .sum();
        calls as f64 / self.puts.max(1) as f64
    }
}

/// Counts the syncs of a benchmark process and of all processes that it starts, with strace.
/// `run_child` appends the process and its arguments to the given command, and runs it.
/// Returns an empty list if strace is not installed.
pub fn count(
    run_child: impl FnOnce(Command) -> Result<Vec<PhaseResult>>,
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
    let results = run_child(strace)?;
    let text = std::fs::read(&trace)?;
    let phases = parse(&String::from_utf8_lossy(&text));
    if phases.len() != results.len() {
        return Err(format!(
            "expected {} phases in the trace, found {}",
            results.len(),
            phases.len()
        )
        .into());
    }
    Ok(results
        .into_iter()
        .zip(phases)
        .map(|(result, calls)| SyncCounts {
            contender: result.contender,
            phase: result.phase,
            puts: result.operations,
            calls,
        })
        .collect())
}

/// Returns the number of calls between each pair of marks, by name.
fn parse(trace: &str) -> Vec<BTreeMap<String, u64>> {
    let mut phases = Vec::new();
    let mut current: Option<BTreeMap<String, u64>> = None;
    let mut synchronous = HashSet::new();
    for line in trace.lines() {
        // The format is "PID name(arguments) = result". A call that is interrupted by a call
        // of another thread has a second line, which begins with "<". Only the first line is
        // counted.
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
            } else if let Some(fd) = opened_fd(arguments) {
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

/// The file descriptor that a successful `openat` returned.
fn opened_fd(arguments: &str) -> Option<String> {
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
    fn calls_between_marks_are_counted() {
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
        assert!((syncs.per_put() - 1.0).abs() < 1e-9);
    }
}
