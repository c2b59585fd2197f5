//! The `prefd` binary, as a binary of this package.

use std::process::ExitCode;

use rustix::process::{Signal, set_parent_process_death_signal};

fn main() -> ExitCode {
    // With the thread that has started it, which is a test's: however that ends, no server
    // is left of it.
    set_parent_process_death_signal(Some(Signal::KILL)).expect("Linux can");
    prefd::main()
}
