//! The `prefd` binary. All code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    prefd::main()
}
