//! The `prefd` binary, as a binary of this package, so that Cargo tells tests its path.

use std::process::ExitCode;

use rustix::process::{Signal, set_parent_process_death_signal};

fn main() -> ExitCode {
    // The server is killed when the thread that started it exits. That thread runs a test, so no
    // server outlives its test.
    set_parent_process_death_signal(Some(Signal::KILL))
        .expect("Linux supports the parent death signal");
    prefd::main()
}
