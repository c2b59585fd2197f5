//! webdis in front of Redis. Redis syncs its log before it responds to a write.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::process::{ServerProcess, free_address};
use crate::Result;
use crate::scenario::LARGE_BYTES;

/// Maximum size of a request: a large document and its headers fit.
const MAX_REQUEST_BYTES: usize = 2 * LARGE_BYTES;
/// webdis logs errors only.
const VERBOSITY: u8 = 0;

pub(super) fn start(
    dir: &Path,
    workers: Option<usize>,
) -> Result<(SocketAddr, Vec<ServerProcess>)> {
    let redis_address = free_address()?;
    let data = dir.join("redis");
    std::fs::create_dir(&data)?;
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", &redis_address.ip().to_string()])
        .args(["--port", &redis_address.port().to_string()])
        .arg("--dir")
        .arg(&data)
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .args(["--save", "", "--daemonize", "no"])
        .args(["--logfile", "redis.log"]);
    let mut redis = ServerProcess::start(&mut command, dir)?;
    redis.wait_for(redis_address)?;

    let address = free_address()?;
    let workers = workers.map_or_else(std::thread::available_parallelism, |n| {
        n.try_into().map_err(std::io::Error::other)
    })?;
    let configuration = json!({
        "redis_host": redis_address.ip(),
        "redis_port": redis_address.port(),
        "http_host": address.ip(),
        "http_port": address.port(),
        "threads": workers,
        "daemonize": false,
        "http_max_request_size": MAX_REQUEST_BYTES,
        "verbosity": VERBOSITY,
        "logfile": "webdis.txt",
    });
    let name = "webdis.json";
    std::fs::write(dir.join(name), serde_json::to_vec_pretty(&configuration)?)?;
    // webdis creates a log file in its working directory, whatever the configuration says.
    let mut command = Command::new("webdis");
    let mut webdis = ServerProcess::start(command.arg(name).current_dir(dir), dir)?;
    webdis.wait_for(address)?;
    Ok((address, vec![webdis, redis]))
}
