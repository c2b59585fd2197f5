//! nginx, which serves files: with sendfile, and with the files kept open, since all the
//! others have what they serve at hand as well.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use procfs::process::Process;

use super::requests::RequestSet;
use super::server::{ServerProcess, free_address};
use crate::Result;

const DOCUMENTS: &str = "documents";

pub(super) fn start(
    dir: &Path,
    workers: Option<usize>,
) -> Result<(SocketAddr, Vec<ServerProcess>)> {
    let address = free_address()?;
    std::fs::create_dir(dir.join(DOCUMENTS))?;
    std::fs::write(dir.join("nginx.conf"), configuration(address, workers)?)?;
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(dir)
        // Else it begins by opening the system's log.
        .args(["-e", "error.log", "-c", "nginx.conf"]);
    let mut program = ServerProcess::start(&mut command, dir)?;
    program.wait_for(address)?;
    Ok((address, vec![program]))
}

fn configuration(address: SocketAddr, workers: Option<usize>) -> Result<String> {
    // A worker of root's nginx is another user, who may not enter a temporary folder.
    let user = if Process::myself()?.uid()? == 0 {
        "user root;"
    } else {
        ""
    };
    let workers = workers.map_or("auto".to_owned(), |workers| workers.to_string());
    // Those that it would make where the system has its own.
    let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {name};"))
        .join("\n");
    Ok(format!(
        "{user}
daemon off;
worker_processes {workers};
pid nginx.pid;
error_log error.log;
events {{}}
http {{
access_log off;
default_type application/json;
sendfile on;
tcp_nopush on;
keepalive_requests 1000000000;
open_file_cache max=100;
{folders}
server {{ listen {address}; root {DOCUMENTS}; }}
}}
"
    ))
}

/// Writes the files.
pub(super) fn keep(dir: &Path, gets: &RequestSet) -> Result<()> {
    for (target, document) in gets.documents() {
        let path = target.path.trim_start_matches('/');
        std::fs::write(dir.join(DOCUMENTS).join(path), document)?;
    }
    Ok(())
}
