//! The process, as `/proc/self` has it: the metrics that Prometheus' own libraries have
//! under these names.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// The kernel's ticks a second for processes, which are 100 on every Linux
/// (`sysconf(_SC_CLK_TCK)`).
const TICKS_A_SECOND: f64 = 100.0;

/// What the system says of the process; each `None` where it does not.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) max_files: Option<u64>,
    /// Since 1970.
    pub(super) start_seconds: Option<f64>,
}

impl Process {
    pub(super) fn now() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        Self {
            cpu_seconds: field(&stat, 14)
                .zip(field(&stat, 15))
                .map(|(u, s)| (u + s) / TICKS_A_SECOND),
            resident_bytes: kib(&status, "VmRSS:").map(|kib| kib * 1024),
            open_files: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|files| files.count() as u64),
            max_files: limits
                .lines()
                .find_map(|line| line.strip_prefix("Max open files"))
                .and_then(|line| line.split_whitespace().next()?.parse().ok()),
            start_seconds: start(&stat, &uptime),
        }
    }
}

/// A field of `/proc/self/stat` by its number (proc_pid_stat(5)), beyond the name, which may
/// hold anything.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    // The first behind the name is the third.
    behind_name
        .split(' ')
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// When the process began: so long after the machine as the kernel says.
fn start(stat: &str, uptime: &str) -> Option<f64> {
    let up: f64 = uptime.split(' ').next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(now.as_secs_f64() - up + field(stat, 22)? / TICKS_A_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_all_of_it() {
        let process = Process::now();
        assert!(process.cpu_seconds.is_some() && process.max_files.is_some());
        assert!(process.resident_bytes.unwrap() > 100_000);
        assert!(process.open_files.unwrap() >= 3);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - process.start_seconds.unwrap();
        assert!((-1.0..86_400.0).contains(&age), "{age}");
        assert_eq!(field("1 (a) b) S 2 3", 3), None);
        assert_eq!(field("1 (a) b) 7 2 3", 4), Some(2.0));
    }
}
