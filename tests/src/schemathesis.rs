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

/// A command of it, which writes nothing beside the environment.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command
        .current_dir(folder())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // The order of sets is a part of what a seed replays.
        .env("PYTHONHASHSEED", "0")
        .env(
            "HYPOTHESIS_STORAGE_DIRECTORY",
            folder().join("venv/hypothesis"),
        );
    command
}
