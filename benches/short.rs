//! Runs the short comparison with `cargo bench`. See docs/performance.md.

use std::process::ExitCode;

fn main() -> ExitCode {
    prefd_benches::cli::main()
}
