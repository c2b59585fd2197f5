//! strace, to have the system calls of the real server fail, do nothing or kill.
//!
//! A fault is written as strace has it: `error=EIO:when=3`, `retval=0`,
//! `signal=KILL:when=2`. It counts calls in each thread.

use crate::server::Launch;

/// The server, with a fault in these calls, which are separated by commas.
pub fn inject(launch: &Launch, calls: &str, fault: &str) -> Launch {
    let trace = format!("trace={calls}");
    let inject = format!("inject={calls}:{fault}");
    // With -D it is strace that is the child, and the process we start is the server.
    // Not --seccomp-bpf, which is quicker: a signal is not injected then.
    let strace = ["strace", "-D", "-f", "-qq"];
    let faults = ["-o", "/dev/null", "-e", &trace, "-e", &inject];
    launch.clone().under(&[&strace[..], &faults].concat())
}
