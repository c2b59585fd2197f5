//! Processes that a test starts: it waits for none of them for ever, and none outlives it.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take, which does something and ends.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(2);

/// A program that is killed when the calling thread ends: with the test, however it ends.
pub fn dying_with_us(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Waits until it has ended by itself.
///
/// # Panics
/// Where it does not: it is killed.
pub fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{} did not end in {PATIENCE:?}", child.id());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Runs it to its end: how that was, and what it said.
pub fn output(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        // Meanwhile, since a pipe holds little.
        let (out, err) = (scope.spawn(|| all(out)), scope.spawn(|| all(err)));
        let status = wait(&mut child);
        Output {
            status,
            stdout: out.join().expect("a thread"),
            stderr: err.join().expect("a thread"),
        }
    })
}

fn all(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}
