//! The `storage` program, which is the benchmark. See docs/performance.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    prefd_benches::cli::main()
}
