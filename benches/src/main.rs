//! `storage`: the benchmark; see docs/performance.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    prefd_benches::cli::main()
}
