//! Injects faults into the system calls of the real server, with strace.
//!
//! A fault has strace's syntax: `error=EIO:when=3` lets a call fail, `retval=0` skips a call, and
//! `signal=KILL:when=2` kills the server. strace counts the calls of each thread separately.

use crate::server::Launch;

/// Launches the server with a fault in the given system calls. `calls` is a list with commas.
pub fn inject(launch: &Launch, calls: &str, fault: &str) -> Launch {
    let trace = format!("trace={calls}");
    let inject = format!("inject={calls}:{fault}");
    // With -D, the process that this starts becomes the server, and strace is its child. The
    // faster option --seccomp-bpf cannot be used, because it prevents the injection of signals.
    let strace = ["strace", "-D", "-f", "-qq"];
    let faults = ["-o", "/dev/null", "-e", &trace, "-e", &inject];
    launch.clone().under(&[&strace[..], &faults].concat())
}
