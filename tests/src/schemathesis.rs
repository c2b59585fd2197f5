//! Finds the Python tools for OpenAPI, which are installed in a virtual environment.

use std::path::PathBuf;
use std::process::Command;

/// The folder with the requirements, the configuration and the virtual environment.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemathesis")
}

/// Path of a program in the virtual environment.
pub fn program(name: &str) -> PathBuf {
    folder().join("venv/bin").join(name)
}

/// A command that runs a program of the virtual environment. The program writes only below the
/// environment.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(program(name));
    command
        .current_dir(folder())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // A fixed order of Python sets is necessary to replay a seed.
        .env("PYTHONHASHSEED", "0")
        .env(
            "HYPOTHESIS_STORAGE_DIRECTORY",
            folder().join("venv/hypothesis"),
        );
    command
}
