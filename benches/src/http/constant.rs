//! The least that a server built on hyper does: one that answers everything with the
//! same document, over connections that are set up as prefd's are.

use std::convert::Infallible;
use std::net::Ipv4Addr;
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

use crate::Result;
use crate::documents::DocumentGenerator;
use crate::scenario::VALUE_BYTES;

/// The verb of this program that runs it.
pub(crate) const VERB: &str = "constant-server";
/// As prefd has it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn command() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(VERB);
    Ok(command)
}

/// Says where it listens, and serves until it is killed, by one thread beside the one
/// that accepts: so does prefd with one worker.
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
            tokio::spawn(carry(stream, document.clone()));
        }
    })
}

async fn carry(stream: TcpStream, document: Bytes) {
    let service = service_fn(|_: Request<hyper::body::Incoming>| {
        let mut response = Response::new(Full::new(document.clone()));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        async { Ok::<_, Infallible>(response) }
    });
    // A client that breaks off is no concern of what is measured: wrk reports it.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
