//! wrk, which asks a server as fast as it answers: one thread of it, since on a small
//! machine two would take the processor from the server that is measured.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use serde::Deserialize;
use tempfile::NamedTempFile;

use super::requests::{RequestMethod, RequestSet};
use super::server::not_installed;
use crate::Result;
use crate::play::PhaseTiming;

/// What a request may take: far longer than any does that is not stuck.
const TIMEOUT: &str = "30s";
const SCRIPT: &str = include_str!("wrk.lua");

/// Says where there is no wrk, before servers are started for it.
pub(super) fn find() -> Result<()> {
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

/// What wrk is to send, where its script finds it.
pub(super) struct WrkInput {
    script: NamedTempFile,
    method: &'static str,
    targets: NamedTempFile,
    bodies: NamedTempFile,
}

impl WrkInput {
    pub(super) fn of(requests: &RequestSet) -> Result<Self> {
        let targets = requests
            .targets
            .iter()
            .map(|target| format!("{} {}\n", target.path, target.token));
        let (method, bodies) = match requests.method {
            RequestMethod::Get => ("GET", Vec::new()),
            // They have no line break in them.
            RequestMethod::Put => ("PUT", requests.bodies.join(&b'\n')),
        };
        Ok(Self {
            script: file(SCRIPT.as_bytes())?,
            method,
            targets: file(targets.collect::<String>().as_bytes())?,
            bodies: file(&bodies)?,
        })
    }

    /// Asks for so many seconds.
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
        let said = String::from_utf8_lossy(&output.stdout);
        let Some(line) = said.lines().find(|line| line.starts_with('{')) else {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(format!("wrk: {} ({})", complaint.trim(), output.status).into());
        };
        serde_json::from_str::<WrkSummary>(line)?.done()
    }
}

fn file(bytes: &[u8]) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    file.write_all(bytes)?;
    Ok(file)
}

/// What the script says at the end.
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
    /// Unless something went wrong: refusals can be faster than what was asked for.
    fn done(&self) -> Result<PhaseTiming> {
        let errors = self.connect + self.read + self.write + self.timeout + self.status;
        if errors > 0 || self.requests == 0 {
            return Err(format!(
                "of {} answers {} were errors by their status; {} failures to connect, {} to \
                 read, {} to write, {} timeouts",
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

    const SAID: &str = r#"{"requests":52340,"duration_us":1100200,"connect":0,"read":0,"write":0,"timeout":0,"status":0,"p50_us":590,"p99_us":1210,"p999_us":2500}"#;

    #[test]
    fn answers_become_figures_and_errors_become_an_error() {
        let mut answers: WrkSummary = serde_json::from_str(SAID).unwrap();
        let done = answers.done().unwrap();
        assert_eq!(done.operations, 52_340);
        assert!((done.seconds - 1.1002).abs() < 1e-9);
        assert!((done.p999_us - 2500.0).abs() < 1e-9);
        answers.status = 7;
        let error = answers.done().unwrap_err().to_string();
        assert!(error.contains("7 were errors by their status"), "{error}");
        answers.status = 0;
        answers.requests = 0;
        assert!(answers.done().is_err());
    }
}
