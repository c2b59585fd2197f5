//! The processes of the servers under test.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Result, processes};

/// How to install the programs that the HTTP scenario needs.
pub(super) const HOW_TO_INSTALL: &str = "apt-get install nginx redis-server webdis wrk";
/// How long a server may need to start, and to end before it is killed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the state of a process is checked while it starts or ends.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// Beginning of the line that prefd and the constant server print when they listen.
const LISTENING_LINE: &str = "listening on http://";

/// Returns a loopback address with a port that is free at this time.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The error for a program that cannot be started.
pub(super) fn not_installed(
    program: &str,
    error: &std::io::Error,
) -> Box<dyn std::error::Error + Send + Sync> {
    format!("cannot start {program}: {error} (to install it: {HOW_TO_INSTALL})").into()
}

/// A running process. Dropping this ends it.
pub(super) struct ServerProcess {
    name: String,
    child: Child,
    /// File with the standard error of the process.
    log: PathBuf,
}

impl ServerProcess {
    /// Starts the process. Its standard error goes to a file in `dir`.
    pub(super) fn start(command: &mut Command, dir: &Path) -> Result<Self> {
        let path = Path::new(command.get_program());
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let log = dir.join(format!("{name}.log"));
        let child = command
            .stdin(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .map_err(|error| not_installed(&name, &error))?;
        Ok(Self { name, child, log })
    }

    /// Starts a server that prints its address, and waits for that line.
    pub(super) fn start_and_read_address(
        command: &mut Command,
        dir: &Path,
    ) -> Result<(SocketAddr, Self)> {
        let mut process = Self::start(command.stdout(Stdio::piped()), dir)?;
        let stdout = process.child.stdout.as_mut();
        let stdout = stdout.ok_or("the server has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        match line.trim_end().strip_prefix(LISTENING_LINE) {
            Some(address) => Ok((address.parse()?, process)),
            None => Err(process.error("did not print its address")),
        }
    }

    /// Waits until the process accepts connections.
    pub(super) fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if self.child.try_wait()?.is_some() {
                return Err(self.error("ended during its start"));
            }
            if began.elapsed() > TIMEOUT {
                return Err(self.error("does not accept connections"));
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    pub(super) fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.id())?)
    }

    /// The error for this process, with the last line that it wrote to its standard error.
    fn error(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        format!("{} {what}: {last}", self.name).into()
    }

    /// Waits until the process ends, at most for [`TIMEOUT`]. Returns false if it still runs.
    fn wait_for_end(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < TIMEOUT {
            // If the wait fails, the process does not exist.
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        false
    }
}

impl Drop for ServerProcess {
    /// Sends SIGTERM first, so that nginx's master process can end its workers.
    fn drop(&mut self) {
        let Ok(root) = self.pid() else {
            return;
        };
        let send = |pid, signal| Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
        send(root, Signal::TERM);
        if self.wait_for_end() {
            return;
        }
        for pid in processes::tree(&[root]).unwrap_or_default() {
            send(pid, Signal::KILL);
        }
        // SIGKILL has ended the process, so this only reaps it.
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_start_names_the_program_and_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let missing = ServerProcess::start(&mut Command::new("no-such-program"), dir.path());
        let error = missing.err().unwrap().to_string();
        assert!(error.contains(HOW_TO_INSTALL), "{error}");

        let mut command = Command::new("sh");
        command.args(["-c", "echo no luck today >&2"]);
        let mut process = ServerProcess::start(&mut command, dir.path()).unwrap();
        let error = process.wait_for(free_address().unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sh ended during its start: no luck today"
        );
    }

    #[test]
    fn dropped_process_ends_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "trap 'kill $!; exit' TERM; sleep 60 & wait"]);
        let process = ServerProcess::start(&mut command, dir.path()).unwrap();
        let root = process.pid().unwrap();
        // Before the child executes `sleep`, it is a copy of the shell, which ignores SIGTERM.
        let is_sleep = |pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        };
        let mut pids = Vec::new();
        while !pids.iter().any(is_sleep) {
            pids = processes::tree(&[root]).unwrap();
        }
        drop(process);
        let is_there = |pid: &i32| Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok();
        let began = Instant::now();
        while pids.iter().any(is_there) {
            assert!(began.elapsed() < TIMEOUT);
        }
    }
}
