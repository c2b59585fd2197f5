//! `prefd` itself, for the tests of this package: cargo builds its examples for them,
//! and no binary of another package.

use std::process::ExitCode;

fn main() -> ExitCode {
    prefd::main()
}
