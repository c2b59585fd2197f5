//! Servers: each is started in a folder of its own, on a free port of loopback, and is
//! there once it takes a connection. It ends when it is dropped.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::requests::{RequestMethod, RequestSet};
use super::{client, constant, nginx, prefd, webdis};
use crate::contender::Contender;
use crate::{Result, measure};

/// What the comparison needs and does not build.
pub(super) const HOW_TO_INSTALL: &str = "apt-get install nginx redis-server webdis wrk";
/// Time for a server to come up; and to end by itself, before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// From one look at a server that comes or goes to the next.
const PAUSE: Duration = Duration::from_millis(2);
/// What prefd says, and the constant server like it.
const ANNOUNCEMENT: &str = "listening on http://";

/// A server that answers.
pub(super) struct Server {
    contender: Contender,
    address: SocketAddr,
    dir: PathBuf,
    /// Those that need others first.
    programs: Vec<ServerProcess>,
}

impl Server {
    /// Starts one in an empty folder. `workers` is how many threads (of nginx:
    /// processes) serve, where it is not left to the server; `binary` is where prefd is,
    /// if not beside this program.
    pub(super) fn start(
        contender: Contender,
        dir: &Path,
        workers: Option<usize>,
        binary: Option<&Path>,
    ) -> Result<Self> {
        let (address, programs) = match contender {
            Contender::Prefd => announced(prefd::command(dir, workers, binary)?, dir)?,
            Contender::Hyper => announced(constant::command()?, dir)?,
            Contender::Nginx => nginx::start(dir, workers)?,
            Contender::Webdis => webdis::start(dir, workers)?,
            other => return Err(format!("{} is no server", other.name()).into()),
        };
        Ok(Self {
            contender,
            address,
            dir: dir.to_owned(),
            programs,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its processes, without those that they have started.
    pub(super) fn roots(&self) -> Result<Vec<i32>> {
        self.programs.iter().map(ServerProcess::pid).collect()
    }

    /// Has it keep the documents that gets are to find.
    pub(super) fn keep(&self, gets: &RequestSet) -> Result<()> {
        match self.contender {
            Contender::Hyper => {}
            Contender::Nginx => nginx::keep(&self.dir, gets)?,
            _ => client::put(self.address, &gets.to(RequestMethod::Put))?,
        }
        client::check(self.address, gets)
    }
}

/// A program that says itself where it listens.
fn announced(mut command: Command, dir: &Path) -> Result<(SocketAddr, Vec<ServerProcess>)> {
    let mut program = ServerProcess::start(command.stdout(Stdio::piped()), dir)?;
    let stdout = program.child.stdout.as_mut().ok_or("no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    match line.trim_end().strip_prefix(ANNOUNCEMENT) {
        Some(address) => Ok((address.parse()?, vec![program])),
        None => Err(program.complaint("did not say where it listens")),
    }
}

/// A port of loopback that is free as yet.
pub(super) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Why a program cannot be started, and what to do about it.
pub(super) fn not_installed(
    program: &str,
    error: &std::io::Error,
) -> Box<dyn std::error::Error + Send + Sync> {
    format!("{program}: {error}; is it installed? {HOW_TO_INSTALL}").into()
}

/// A process that ends when this is dropped.
pub(super) struct ServerProcess {
    name: String,
    child: Child,
    /// What it says besides.
    log: PathBuf,
}

impl ServerProcess {
    /// Starts it. What it has to complain of goes to a file of the folder, and so does
    /// what it says, unless the command has a use for that.
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

    /// Waits until it takes a connection.
    pub(super) fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if self.child.try_wait()?.is_some() {
                return Err(self.complaint("ended at once"));
            }
            if began.elapsed() > PATIENCE {
                return Err(self.complaint("takes no connection"));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.id())?)
    }

    fn complaint(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        format!("{} {what}: {last}", self.name).into()
    }

    /// Whether it has ended within a while.
    fn has_ended(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            // What cannot be waited for is not there.
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(PAUSE);
        }
        false
    }
}

impl Drop for ServerProcess {
    /// Asked first: nginx's master has a process to end, too.
    fn drop(&mut self) {
        let Ok(root) = self.pid() else {
            return;
        };
        let send = |pid, signal| Pid::from_raw(pid).map(|pid| kill_process(pid, signal));
        send(root, Signal::TERM);
        if self.has_ended() {
            return;
        }
        for pid in measure::tree(&[root]).unwrap_or_default() {
            send(pid, Signal::KILL);
        }
        // It is gone then, and only to be reaped.
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_and_what_ends_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let missing = ServerProcess::start(&mut Command::new("no-such-program"), dir.path());
        let error = missing.err().unwrap().to_string();
        assert!(error.contains(HOW_TO_INSTALL), "{error}");

        let mut command = Command::new("sh");
        command.args(["-c", "echo no luck today >&2"]);
        let mut program = ServerProcess::start(&mut command, dir.path()).unwrap();
        let error = program.wait_for(free_address().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "sh ended at once: no luck today");
    }

    #[test]
    fn a_program_ends_with_what_it_has_started() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "trap 'kill $!; exit' TERM; sleep 60 & wait"]);
        let program = ServerProcess::start(&mut command, dir.path()).unwrap();
        let root = program.pid().unwrap();
        let mut pids = Vec::new();
        while pids.len() < 2 {
            pids = measure::tree(&[root]).unwrap();
        }
        drop(program);
        let is_there = |pid: &i32| Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok();
        let began = Instant::now();
        while pids.iter().any(is_there) {
            assert!(began.elapsed() < PATIENCE);
        }
    }
}
