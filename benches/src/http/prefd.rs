//! prefd, the program itself, with its defaults.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::tokens;
use crate::Result;

pub(super) fn command(
    dir: &Path,
    workers: Option<usize>,
    binary: Option<&Path>,
) -> Result<Command> {
    let binary = match binary {
        Some(path) => path.to_owned(),
        None => beside_this()?,
    };
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PREFD_") {
            command.env_remove(name);
        }
    }
    command
        // Without a line for each request, as nginx has none here.
        .args([
            "serve",
            "--log",
            "warn",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(dir.join("data"));
    for (name, key) in tokens::PUBLIC {
        let path = dir.join(name);
        std::fs::write(&path, key)?;
        command.arg("--jwt-public-key-file").arg(path);
    }
    if let Some(workers) = workers {
        command.arg("--workers").arg(workers.to_string());
    }
    Ok(command)
}

/// Where cargo has put it: what it runs as a benchmark lies one folder further down.
fn beside_this() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folders = this.ancestors().skip(1).take(2);
    let mut paths = folders.map(|folder| folder.join("prefd"));
    let found = paths.find(|path| path.is_file());
    found.ok_or_else(|| {
        "no prefd beside this program: build it (cargo build --release -p prefd), or say \
         with --prefd where it is"
            .into()
    })
}
