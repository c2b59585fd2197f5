//! The `prefd` server, as an example of this package. The tests of this package measure it:
//! cargo builds the examples of a package for its tests, but not the binaries of another
//! package.

use std::process::ExitCode;

fn main() -> ExitCode {
    prefd::main()
}
