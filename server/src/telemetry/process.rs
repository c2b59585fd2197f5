//! Metrics of the process, read from `/proc`. The metrics have the same names as in the official
//! Prometheus client libraries.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// Clock ticks per second. Times in `/proc/self/stat` are in clock ticks. The number of ticks per
/// second is `sysconf(_SC_CLK_TCK)`, which is 100 on x86-64 and AArch64 Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Resource usage of the process. A value is `None` if the system does not provide it.
#[derive(Debug, Default)]
pub(super) struct ProcessStats {
    /// Processor time in user and kernel mode, in seconds.
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) max_files: Option<u64>,
    /// Start time of the process, in seconds since 1970.
    pub(super) start_seconds: Option<f64>,
}

impl ProcessStats {
    /// Reads the current values from `/proc`. Does not access the disk, because `/proc` is in
    /// memory.
    pub(super) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        Self {
            cpu_seconds: field(&stat, 14)
                .zip(field(&stat, 15))
                .map(|(u, s)| (u + s) / TICKS_PER_SECOND),
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

/// Returns field `number` of `stat`, the text of `/proc/self/stat`. Fields are numbered as in
/// proc_pid_stat(5). Only fields after the name of the process (field 2) are supported. The name of
/// the process can contain spaces and parentheses, so fields are counted from the end of the name.
fn field(stat: &str, number: usize) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    // The first field after the name is field 3.
    after_name
        .split(' ')
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

/// Returns the value of a line in `/proc/self/status`, in KiB.
fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Start time of the process, in seconds since 1970. The kernel reports the start time of the
/// process relative to the boot of the system.
fn start(stat: &str, uptime: &str) -> Option<f64> {
    let up: f64 = uptime.split(' ').next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(now.as_secs_f64() - up + field(stat, 22)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_provides_every_value() {
        let process = ProcessStats::read();
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
