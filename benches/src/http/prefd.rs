//! prefd, started with its default settings.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::ServerProcess;
use super::tokens;
use crate::Result;

pub(super) fn start(
    dir: &Path,
    workers: Option<usize>,
    binary: Option<&Path>,
) -> Result<(SocketAddr, Vec<ServerProcess>)> {
    let mut command = command(dir, workers, binary)?;
    let (address, process) = ServerProcess::start_and_read_address(&mut command, dir)?;
    Ok((address, vec![process]))
}

fn command(dir: &Path, workers: Option<usize>, binary: Option<&Path>) -> Result<Command> {
    let binary = match binary {
        Some(path) => path.to_owned(),
        None => find_binary()?,
    };
    let mut command = Command::new(binary);
    // Settings of the environment must not change the result.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PREFD_") {
            command.env_remove(name);
        }
    }
    command
        // No request is logged, as in nginx's configuration.
        .args([
            "serve",
            "--log",
            "warn",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
        ])
        .arg(dir.join("data"));
    for (name, key) in tokens::PUBLIC_KEYS {
        let path = dir.join(name);
        std::fs::write(&path, key)?;
        command.arg("--jwt-public-key-file").arg(path);
    }
    if let Some(workers) = workers {
        command.arg("--workers").arg(workers.to_string());
    }
    Ok(command)
}

/// Finds the binary next to this program, or one folder above: `cargo bench` puts this program
/// into a subfolder.
fn find_binary() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folders = this.ancestors().skip(1).take(2);
    let mut paths = folders.map(|folder| folder.join("prefd"));
    let found = paths.find(|path| path.is_file());
    found.ok_or_else(|| {
        "no prefd binary next to this program: build it (cargo build --release -p prefd), or \
         name its path with --prefd"
            .into()
    })
}
