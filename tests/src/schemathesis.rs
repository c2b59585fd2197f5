//! Programs for OpenAPI that are written in Python, in an environment of their own.

use std::path::PathBuf;
use std::process::Command;

/// Where their list is, and what they are told.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemathesis")
}

/// One of the programs of the environment.
pub fn program(name: &str) -> PathBuf {
    folder().join("venv/bin").join(name)
}

/// A command of it, which reads nothing of the account that it runs in.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command.current_dir(folder()).env("PYTHONUTF8", "1");
    command
}
