//! Runs the real `prefd` binary in a child process.

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

/// Options for starting a server.
///
/// The path of the binary is `env!("CARGO_BIN_EXE_prefd-under-test")`, which Cargo sets only for
/// tests.
#[derive(Debug, Clone)]
pub struct Launch {
    binary: PathBuf,
    data_dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    has_default_key: bool,
    has_default_admin: bool,
    /// A program and its arguments that start the server, by `exec` or as a tracer.
    wrapper: Vec<String>,
}

/// A server that has not yet printed its listening address. Killed when dropped.
#[derive(Debug)]
pub struct Starting {
    running: Running,
    /// Lines that the server prints to standard output.
    out: Receiver<String>,
    /// Whether the server prints example requests, as with `--dev`.
    prints_examples: bool,
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    /// The address on which the server listens. Meaningless for a Unix socket.
    pub address: SocketAddr,
    /// The address as the server printed it, with a scheme such as `http://`.
    pub origin: String,
    /// Lines that the server printed after its address.
    pub printed: Vec<String>,
    running: Running,
}

/// The server process and its log.
#[derive(Debug)]
struct Running {
    child: Child,
    log: Arc<Log>,
    logging: Option<JoinHandle<()>>,
}

/// The log of a server up to now.
#[derive(Debug, Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

/// The exit status and output of a command.
#[derive(Debug)]
pub struct CommandOutput {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Launch {
    /// A server on a data directory that accepts tokens signed with [`token::SECRET`].
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

    /// Adds arguments for `prefd serve`.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|a| (*a).to_owned()));
        self
    }

    /// Sets an environment variable of the server.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Does not configure [`token::SECRET`]. The arguments can configure other keys.
    #[must_use]
    pub fn without_key(mut self) -> Self {
        self.has_default_key = false;
        self
    }

    /// Keeps the default admin listener, whose fixed port only one server of the machine can use.
    /// Otherwise the admin listener is off unless the arguments enable it.
    #[must_use]
    pub fn with_default_admin(mut self) -> Self {
        self.has_default_admin = true;
        self
    }

    /// Runs a shell script before the server, in the same process.
    #[must_use]
    pub fn after_shell(self, script: &str) -> Self {
        self.under(&["sh", "-c", &format!("{script}; exec \"$0\" \"$@\"")])
    }

    /// Starts the server with a wrapper program. The command line of the server is appended to the
    /// arguments of the wrapper.
    #[must_use]
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|a| (*a).to_owned()).collect();
        self
    }

    fn command(&self) -> Command {
        let mut command = match self.wrapper.split_first() {
            None => Command::new(&self.binary),
            Some((program, arguments)) => {
                // The binary sets its own parent death signal. Until the wrapper has started the
                // binary, `setpriv` does the same.
                let mut wrapper = process::killed_with_parent(program);
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

    /// Starts the server, and waits until it listens. Panics if it exits instead.
    pub fn start(&self) -> Server {
        self.try_start()
            .unwrap_or_else(|exited| panic!("the server exited instead of listening: {exited:?}"))
    }

    /// Starts the server, and waits until it listens. Returns the output if it exits instead.
    pub fn try_start(&self) -> Result<Server, CommandOutput> {
        self.spawn().wait_until_listening()
    }

    /// Starts the server without waiting.
    pub fn spawn(&self) -> Starting {
        let mut child = self.command().spawn().expect("the binary starts");
        let log = Arc::<Log>::default();
        let stderr = child.stderr.take().expect("stderr is piped");
        let copy = Arc::clone(&log);
        let logging = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = copy.text.lock().unwrap();
                text.push_str(&line);
                text.push('\n');
                copy.grown.notify_all();
            }
        });
        let stdout = child.stdout.take().expect("stdout is piped");
        let (print, out) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The receiver may have been dropped.
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
            prints_examples: self.arguments.iter().any(|argument| argument == "--dev"),
        }
    }

    /// Runs a server that is expected to exit by itself.
    pub fn run(&self) -> CommandOutput {
        run(self.command())
    }
}

/// Runs `prefd` with the given arguments until it exits.
pub fn prefd(binary: &str, arguments: &[&str]) -> CommandOutput {
    prefd_with(binary, arguments, &[])
}

/// Runs `prefd` with the given arguments and environment variables until it exits.
pub fn prefd_with(binary: &str, arguments: &[&str], environment: &[(&str, &str)]) -> CommandOutput {
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null());
    command.envs(environment.iter().copied());
    run(command)
}

fn run(mut command: Command) -> CommandOutput {
    let output = process::output(&mut command);
    CommandOutput {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Reads the address from the line that the server prints when it listens. Returns `None` if the
/// server exits first.
///
/// # Panics
/// Panics if the server neither listens nor exits in time.
fn read_origin(out: &Receiver<String>) -> Option<String> {
    let line = match out.recv_timeout(PATIENCE) {
        Ok(line) => line,
        Err(RecvTimeoutError::Disconnected) => return None,
        Err(RecvTimeoutError::Timeout) => panic!("the server did not listen within {PATIENCE:?}"),
    };
    let origin = line.strip_prefix("listening on ")?;
    Some(origin.to_owned())
}

impl Starting {
    /// Sends SIGKILL. Returns true if the server was already listening.
    pub fn kill(mut self) -> bool {
        self.running.kill();
        read_origin(&self.out).is_some()
    }

    /// The process id of the server, or of its wrapper ([`Launch::under`]).
    pub fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// Sends a signal, such as `HUP`.
    pub fn signal(&self, name: &str) {
        process::signal(self.pid(), name);
    }

    /// Waits until the server listens. Returns the output if it exits instead.
    pub fn wait_until_listening(self) -> Result<Server, CommandOutput> {
        let Some(origin) = read_origin(&self.out) else {
            return Err(self.running.wait_for_exit());
        };
        let mut printed = Vec::new();
        if self.prints_examples {
            // With --dev, the server prints two example requests, each after a comment.
            while printed
                .iter()
                .filter(|l: &&String| l.contains("curl"))
                .count()
                < 2
            {
                printed.push(
                    self.out
                        .recv_timeout(PATIENCE)
                        .expect("prefd serve --dev prints two example requests"),
                );
            }
        }
        let address = origin.split_once("://").and_then(|(_, a)| a.parse().ok());
        Ok(Server {
            address: address.unwrap_or_else(|| SocketAddr::from(([0; 4], 0))),
            origin,
            printed,
            running: self.running,
        })
    }

    /// Waits until the server has exited, and returns its log as standard error.
    pub fn wait(self) -> CommandOutput {
        self.running.wait_for_exit()
    }
}

impl Running {
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until the process has exited, and returns its log as standard error.
    fn wait_for_exit(mut self) -> CommandOutput {
        let status = process::wait(&mut self.child);
        if let Some(logging) = self.logging.take() {
            let _ = logging.join();
        }
        CommandOutput {
            status,
            out: String::new(),
            err: self.log.text.lock().unwrap().clone(),
        }
    }
}

impl Server {
    /// Connects to the server.
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Connects to the admin listener. The server must have been started with
    /// `--admin-listen 127.0.0.1:0`.
    pub fn connect_admin(&self) -> Client {
        Client::connect(self.admin_address())
    }

    /// The address of the admin listener, from the log.
    pub fn admin_address(&self) -> SocketAddr {
        let words = "admin listener started address=";
        self.wait_for_log(words);
        let logged = self.logged();
        let (_, rest) = logged
            .split_once(words)
            .expect("the words were just found in the log");
        let address = rest.split_whitespace().next().unwrap_or_default();
        address.parse().expect("the logged address is valid")
    }

    /// The process id of the server.
    pub fn pid(&self) -> u32 {
        self.running.child.id()
    }

    /// Returns true if the log contains the given words.
    pub fn has_logged(&self, words: &str) -> bool {
        self.running.log.text.lock().unwrap().contains(words)
    }

    /// The log up to now.
    pub fn logged(&self) -> String {
        self.running.log.text.lock().unwrap().clone()
    }

    /// Waits until the log contains the given words `times` times.
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
            "expected {words:?} {times} times in the log: {text}"
        );
    }

    /// Waits until the log contains the given words. A log line can arrive after the response to
    /// the request that it reports.
    pub fn wait_for_log(&self, words: &str) {
        self.wait_for_log_times(words, 1);
    }

    /// The peak resident memory of the server in bytes.
    pub fn peak_rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    }

    /// The open sockets, files and pipes of the server, as the targets of the links in
    /// `/proc/PID/fd`.
    pub fn open_files(&self) -> Vec<PathBuf> {
        process::open_files(self.pid())
    }

    /// Number of response bytes in the kernel's send queues, which the clients have not yet
    /// acknowledged (proc(5), `/proc/net/tcp`).
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
        self.signal("TERM");
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Sends a signal, such as `USR1`.
    pub fn signal(&self, name: &str) {
        process::signal(self.pid(), name);
    }

    /// Waits until the server has exited.
    pub fn wait(mut self) -> ExitStatus {
        process::wait(&mut self.running.child)
    }

    /// Sends SIGTERM, and waits until the server has exited.
    pub fn stop(self) -> ExitStatus {
        self.terminate();
        self.wait()
    }

    /// Sends SIGTERM, waits until the server has exited, and returns its complete log as standard
    /// error. While a server runs, a line of its log can arrive after later lines.
    pub fn stop_with_log(self) -> CommandOutput {
        self.terminate();
        self.running.wait_for_exit()
    }

    /// Kills the server with SIGKILL, and waits until it has exited.
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
