//! Runs wrk, which sends requests as fast as the server responds. wrk runs with one thread,
//! because a second one would leave the server too little processor time on a small machine.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde::Deserialize;
use tempfile::NamedTempFile;

use super::process::not_installed;
use super::requests::{RequestMethod, RequestSet};
use crate::Result;
use crate::phase_result::PhaseTiming;

/// Timeout of a request, which only a stuck server exceeds.
const TIMEOUT: &str = "30s";
const SCRIPT: &str = include_str!("wrk.lua");

/// Returns an error if wrk is not installed.
pub(super) fn check_installed() -> Result<()> {
    let found = Command::new("wrk")
        .arg("-v")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match found {
        Ok(_) => Ok(()),
        Err(error) => Err(not_installed("wrk", &error)),
    }
}

/// The requests, in files that the script of wrk reads.
pub(super) struct WrkInput {
    script: NamedTempFile,
    method: &'static str,
    targets: NamedTempFile,
    bodies: NamedTempFile,
}

impl WrkInput {
    pub(super) fn new(requests: &RequestSet) -> Result<Self> {
        let targets = requests
            .targets
            .iter()
            .map(|target| format!("{} {}\n", target.path, target.token));
        let (method, bodies) = match requests.method {
            RequestMethod::Get => ("GET", Vec::new()),
            // Documents contain no line breaks, so each one is a line of the file.
            RequestMethod::Put => ("PUT", requests.bodies.join(&b'\n')),
        };
        Ok(Self {
            script: temporary_file(SCRIPT.as_bytes())?,
            method,
            targets: temporary_file(targets.collect::<String>().as_bytes())?,
            bodies: temporary_file(&bodies)?,
        })
    }

    /// Runs wrk for this number of seconds.
    pub(super) fn run(
        &self,
        address: SocketAddr,
        connections: usize,
        seconds: u64,
    ) -> Result<PhaseTiming> {
        let output = Command::new("wrk")
            .args(["-t1", "--timeout", TIMEOUT])
            .arg(format!("-c{connections}"))
            .arg(format!("-d{seconds}s"))
            .arg("-s")
            .arg(self.script.path())
            .arg(format!("http://{address}/"))
            .env("BENCH_METHOD", self.method)
            .env("BENCH_TARGETS", self.targets.path())
            .env("BENCH_BODIES", self.bodies.path())
            .stdin(Stdio::null())
            .output()?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let Some(line) = stdout.lines().find(|line| line.starts_with('{')) else {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(format!("wrk: {} ({})", stderr.trim(), output.status).into());
        };
        serde_json::from_str::<WrkSummary>(line)?.timing()
    }
}

fn temporary_file(bytes: &[u8]) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    file.write_all(bytes)?;
    Ok(file)
}

/// The line of JSON that the script prints at the end.
#[derive(Debug, Deserialize)]
struct WrkSummary {
    requests: u64,
    duration_us: u64,
    connect: u64,
    read: u64,
    write: u64,
    timeout: u64,
    /// Responses with a status of 400 or above.
    status: u64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
}

impl WrkSummary {
    /// Returns an error if any request has failed, because a server can send an error faster than
    /// the expected response.
    fn timing(&self) -> Result<PhaseTiming> {
        let errors = self.connect + self.read + self.write + self.timeout + self.status;
        if errors > 0 || self.requests == 0 {
            return Err(format!(
                "{} responses, of which {} had an error status; errors: {} connect, {} read, \
                 {} write, {} timeout",
                self.requests, self.status, self.connect, self.read, self.write, self.timeout,
            )
            .into());
        }
        Ok(PhaseTiming {
            operations: self.requests,
            seconds: self.duration_us as f64 / 1e6,
            p50_us: self.p50_us as f64,
            p99_us: self.p99_us as f64,
            p999_us: self.p999_us as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"requests":52340,"duration_us":1100200,"connect":0,"read":0,"write":0,"timeout":0,"status":0,"p50_us":590,"p99_us":1210,"p999_us":2500}"#;

    #[test]
    fn summary_becomes_timing_and_failed_requests_an_error() {
        let mut summary: WrkSummary = serde_json::from_str(LINE).unwrap();
        let timing = summary.timing().unwrap();
        assert_eq!(timing.operations, 52_340);
        assert!((timing.seconds - 1.1002).abs() < 1e-9);
        assert!((timing.p999_us - 2500.0).abs() < 1e-9);
        summary.status = 7;
        let error = summary.timing().unwrap_err().to_string();
        assert!(error.contains("7 had an error status"), "{error}");
        summary.status = 0;
        summary.requests = 0;
        assert!(summary.timing().is_err());
    }
}
