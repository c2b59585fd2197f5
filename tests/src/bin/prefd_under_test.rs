//! The `prefd` binary, as a binary of this package.

use std::process::ExitCode;

fn main() -> ExitCode {
    prefd::main()
}
