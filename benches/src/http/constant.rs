//! A hyper server that responds to every request with the same document. It shows the cost of
//! HTTP alone, so its connections have settings similar to those of prefd.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::process::ServerProcess;
use crate::Result;
use crate::documents::DocumentGenerator;
use crate::scenario::VALUE_BYTES;

/// The subcommand of this program that runs the server.
pub(crate) const SUBCOMMAND: &str = "constant-server";
/// Timeout for request headers, as in prefd.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts the server as a process. Its standard error goes to a file in `dir`.
pub(super) fn start(dir: &Path) -> Result<(SocketAddr, Vec<ServerProcess>)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(SUBCOMMAND);
    let (address, process) = ServerProcess::start_and_read_address(&mut command, dir)?;
    Ok((address, vec![process]))
}

/// Prints the address of the server, and serves until this process is killed. One thread
/// accepts connections and another serves them, like prefd with one worker.
pub(crate) fn serve() -> Result<()> {
    let document = Bytes::copy_from_slice(DocumentGenerator::new(VALUE_BYTES, 1).next_document());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("listening on http://{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve_connection(stream, document.clone()));
        }
    })
}

async fn serve_connection(stream: TcpStream, document: Bytes) {
    let service = service_fn(|_: Request<hyper::body::Incoming>| {
        let mut response = Response::new(Full::new(document.clone()));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        async { Ok::<_, Infallible>(response) }
    });
    // Errors are ignored here, because wrk counts and reports them.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
