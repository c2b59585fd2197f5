//! Child processes of a test. Every wait has a time limit, and no child outlives the test.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Time limit for a process to exit.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two checks whether a process has exited.
const PAUSE: Duration = Duration::from_millis(2);

/// A command for a program that is killed when the calling thread exits. So the program exits with
/// the test, even if the test panics.
pub fn killed_with_parent(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Sends a signal, such as `HUP`, to a process.
///
/// # Panics
/// Panics if the process does not exist.
pub fn signal(pid: u32, name: &str) {
    let mut kill = Command::new("kill");
    kill.args(["-s", name, &pid.to_string()]);
    let sent = kill.status().expect("the program kill starts");
    assert!(sent.success(), "cannot send SIG{name} to process {pid}");
}

/// The open sockets, files and pipes of a process, as the targets of the links in `/proc/PID/fd`.
/// Empty if the process does not exist.
pub fn open_files(pid: u32) -> Vec<PathBuf> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    let open = open.into_iter().flatten();
    open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .collect()
}

/// The first child of a process. `None` if the process has no child.
pub fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children.ok()?.split_whitespace().next()?.parse().ok()
}

/// Waits until a process has exited.
///
/// # Panics
/// Kills the process and panics if it does not exit in time.
pub fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child
            .try_wait()
            .expect("the process is a child of this one")
        {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("process {} did not exit within {PATIENCE:?}", child.id());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Runs a command until it exits, and returns its status and output.
pub fn output(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        // Two threads read the pipes, because the process blocks when a pipe is full.
        let (out, err) = (scope.spawn(|| read_all(out)), scope.spawn(|| read_all(err)));
        let status = wait(&mut child);
        Output {
            status,
            stdout: out.join().expect("the reader of stdout does not panic"),
            stderr: err.join().expect("the reader of stderr does not panic"),
        }
    })
}

fn read_all(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}
