//! The real binary, as a process of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::http::Client;
use crate::process::{self, PATIENCE};
use crate::token;

/// How to start a server. Needs the binary's path, which only a test knows:
/// `env!("CARGO_BIN_EXE_prefd-under-test")`.
#[derive(Debug, Clone)]
pub struct Launch {
    binary: PathBuf,
    data_dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    has_default_key: bool,
    has_default_admin: bool,
    /// The program that becomes the server, or traces it, and its arguments.
    wrapper: Vec<String>,
}

/// A server that has not said yet that it listens. Killed when dropped.
#[derive(Debug)]
pub struct Starting {
    running: Running,
    /// What it prints, line by line.
    out: Receiver<String>,
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens; of a socket in the file system this says nothing.
    pub address: SocketAddr,
    /// The same as it said it, with `http://` or what else it speaks.
    pub origin: String,
    /// What it printed behind the line that says so, line by line.
    pub printed: Vec<String>,
    running: Running,
}

/// The process, and what it logs.
#[derive(Debug)]
struct Running {
    child: Child,
    log: Arc<Log>,
    logging: Option<JoinHandle<()>>,
}

/// What a server has logged so far.
#[derive(Debug, Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub out: String,
    /// What it said on standard error.
    pub err: String,
}

impl Launch {
    /// A server on this directory that takes tokens of [`token::SECRET`].
    pub fn new(binary: &str, data_dir: &Path) -> Self {
        Self {
            binary: binary.into(),
            data_dir: data_dir.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            has_default_key: true,
            has_default_admin: false,
            wrapper: Vec::new(),
        }
    }

    /// Adds arguments of `serve`.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|a| (*a).to_owned()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives it no key but those among the arguments.
    #[must_use]
    pub fn without_key(mut self) -> Self {
        self.has_default_key = false;
        self
    }

    /// Leaves the operator's listener where it usually is, at one port for all servers of
    /// the machine.
    #[must_use]
    pub fn with_default_admin(mut self) -> Self {
        self.has_default_admin = true;
        self
    }

    /// Has a shell run this first, in the process that then becomes the server.
    #[must_use]
    pub fn after_shell(self, script: &str) -> Self {
        self.under(&["sh", "-c", &format!("{script}; exec \"$0\" \"$@\"")])
    }

    /// Has this program start it, which gets its command line as further arguments.
    #[must_use]
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|a| (*a).to_owned()).collect();
        self
    }

    fn command(&self) -> Command {
        let mut command = match self.wrapper.split_first() {
            None => Command::new(&self.binary),
            Some((program, arguments)) => {
                // Before it has become the server, it ends with us as well.
                let mut wrapper = process::dying_with_us(program);
                wrapper.args(arguments).arg(&self.binary);
                wrapper
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PREFD_") {
                command.env_remove(name);
            }
        }
        command.arg("serve").arg("--data-dir").arg(&self.data_dir);
        if !self.arguments.iter().any(|a| a == "--listen")
            && !self
                .environment
                .iter()
                .any(|(name, _)| name == "PREFD_LISTEN")
        {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if !self.has_default_admin && !self.arguments.iter().any(|a| a == "--admin-listen") {
            command.args(["--admin-listen", "off"]);
        }
        if self.has_default_key {
            command
                .arg("--jwt-hs256-secret-file")
                .arg(token::secret_file());
        }
        command.args(&self.arguments);
        command.envs(self.environment.iter().map(|(n, v)| (n, v)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts it, and waits for the line that says that it listens.
    pub fn start(&self) -> Server {
        self.try_start()
            .unwrap_or_else(|ended| panic!("it did not listen: {ended:?}"))
    }

    /// The same where it may end instead.
    pub fn try_start(&self) -> Result<Server, Ended> {
        let Starting { running, out } = self.spawn();
        let Some(origin) = read_origin(&out) else {
            return Err(running.end());
        };
        let mut printed = Vec::new();
        if self.arguments.iter().any(|argument| argument == "--dev") {
            // Two requests, each behind a comment.
            while printed
                .iter()
                .filter(|l: &&String| l.contains("curl"))
                .count()
                < 2
            {
                printed.push(out.recv_timeout(PATIENCE).expect("requests are printed"));
            }
        }
        let address = origin.split_once("://").and_then(|(_, a)| a.parse().ok());
        Ok(Server {
            address: address.unwrap_or_else(|| SocketAddr::from(([0; 4], 0))),
            origin,
            printed,
            running,
        })
    }

    /// Starts it, and waits for nothing.
    pub fn spawn(&self) -> Starting {
        let mut child = self.command().spawn().expect("the binary starts");
        let log = Arc::<Log>::default();
        let stderr = child.stderr.take().expect("piped");
        let copy = Arc::clone(&log);
        let logging = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = copy.text.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
                copy.grown.notify_all();
            }
        });
        let stdout = child.stdout.take().expect("piped");
        let (print, out) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody may want more of it.
                let _ = print.send(line);
            }
        });
        Starting {
            running: Running {
                child,
                log,
                logging: Some(logging),
            },
            out,
        }
    }

    /// Runs it where it is expected to end by itself.
    pub fn run(&self) -> Ended {
        run(self.command())
    }
}

/// Runs `prefd` with these arguments to its end.
pub fn prefd(binary: &str, arguments: &[&str]) -> Ended {
    prefd_with(binary, arguments, &[])
}

/// The same with these variables.
pub fn prefd_with(binary: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null());
    command.envs(environment.iter().copied());
    run(command)
}

fn run(mut command: Command) -> Ended {
    let output = process::output(&mut command);
    Ended {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What the line names that says that it listens, if there is one.
///
/// # Panics
/// Where it neither listens nor ends.
fn read_origin(out: &Receiver<String>) -> Option<String> {
    let line = match out.recv_timeout(PATIENCE) {
        Ok(line) => line,
        Err(RecvTimeoutError::Disconnected) => return None,
        Err(RecvTimeoutError::Timeout) => panic!("it does not say that it listens"),
    };
    let origin = line.strip_prefix("listening on ")?;
    Some(origin.to_owned())
}

impl Starting {
    /// SIGKILL; whether it had come to listen before.
    pub fn kill(mut self) -> bool {
        self.running.kill();
        read_origin(&self.out).is_some()
    }
}

impl Running {
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    fn end(mut self) -> Ended {
        let status = process::wait(&mut self.child);
        if let Some(logging) = self.logging.take() {
            let _ = logging.join();
        }
        Ended {
            status,
            out: String::new(),
            err: self.log.text.lock().unwrap().clone(),
        }
    }
}

impl Server {
    /// A connection to it.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// A connection to its operator's listener: started with
    /// `--admin-listen 127.0.0.1:0`.
    pub fn connect_admin(&self) -> Client {
        Client::connect(self.admin_address())
    }

    /// Where the operator's listener is.
    pub fn admin_address(&self) -> SocketAddr {
        let words = "admin listener started address=";
        self.wait_for_log(words);
        let logged = self.logged();
        let (_, behind) = logged.split_once(words).expect("it was logged");
        let address = behind.split_whitespace().next().unwrap_or_default();
        address.parse().expect("an address")
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// Whether it has logged these words yet.
    pub fn has_logged(&self, words: &str) -> bool {
        self.running.log.text.lock().unwrap().contains(words)
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        self.running.log.text.lock().unwrap().clone()
    }

    /// Waits until it has logged these words so often.
    pub fn wait_for_log_times(&self, words: &str, times: usize) {
        let log = &self.running.log;
        let text = log.text.lock().unwrap();
        let patience = Duration::from_secs(20);
        let (text, waited) = log
            .grown
            .wait_timeout_while(text, patience, |text| text.matches(words).count() < times)
            .unwrap();
        assert!(
            !waited.timed_out(),
            "{words:?} was not logged {times} times: {text}"
        );
    }

    /// Waits until it has logged these words: a line may reach us after the answer
    /// that it is about.
    pub fn wait_for_log(&self, words: &str) {
        self.wait_for_log_times(words, 1);
    }

    /// The most memory that it had resident so far, in bytes.
    pub fn peak_rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// What it has open: sockets, files and pipes, by what the links in `/proc` say.
    pub fn open_files(&self) -> Vec<PathBuf> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .collect()
    }

    /// What the system has of its answers that the clients' side has not taken, in bytes
    /// (proc(5), `/proc/net/tcp`).
    pub fn unsent_bytes(&self) -> u64 {
        let port = format!(":{:04X}", self.address.port());
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
        let queued = sockets.lines().filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let is_ours = fields.next()?.ends_with(&port);
            let (sending, _) = fields.nth(2)?.split_once(':')?;
            let bytes = u64::from_str_radix(sending, 16).ok()?;
            is_ours.then_some(bytes)
        });
        queued.sum()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub fn wait(mut self) -> ExitStatus {
        process::wait(&mut self.running.child)
    }

    /// SIGTERM, and its end.
    pub fn stop(self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.running.kill();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(logging) = self.logging.take() {
            let _ = logging.join();
        }
        if std::thread::panicking() {
            let text = self.log.text.lock();
            let mut log = text.unwrap_or_else(PoisonError::into_inner).clone();
            log.truncate(20_000);
            let _ = std::io::Write::write_all(&mut std::io::stderr(), log.as_bytes());
        }
    }
}
