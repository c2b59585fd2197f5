//! The `prefd` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    prefd::main()
}
