//! nginx, serving files. It uses sendfile and keeps the files open, because the other servers
//! do not open files for a request either.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use procfs::process::Process;

use super::process::{ServerProcess, free_address};
use super::requests::RequestSet;
use crate::Result;

/// Folder with the documents.
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
        // Without -e, nginx opens the log file of the system when it starts.
        .args(["-e", "error.log", "-c", "nginx.conf"]);
    let mut process = ServerProcess::start(&mut command, dir)?;
    process.wait_for(address)?;
    Ok((address, vec![process]))
}

fn configuration(address: SocketAddr, workers: Option<usize>) -> Result<String> {
    // If root starts nginx, its workers run as another user by default. That user has no access
    // to temporary folders.
    let user = if Process::myself()?.uid()? == 0 {
        "user root;"
    } else {
        ""
    };
    let workers = workers.map_or("auto".to_owned(), |workers| workers.to_string());
    // By default, nginx creates these folders outside its own folder.
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

/// Writes the documents to files.
pub(super) fn store_documents(dir: &Path, gets: &RequestSet) -> Result<()> {
    for (target, document) in gets.documents() {
        let path = target.path.trim_start_matches('/');
        std::fs::write(dir.join(DOCUMENTS).join(path), document)?;
    }
    Ok(())
}
