//! An HTTP client for requests that wrk does not send: it stores documents before a
//! measurement, checks a document after it, and sends large puts.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::body::{ChunkedBody, LargeDocument};
use super::requests::{RequestMethod, RequestSet, RequestTarget};
use crate::Result;
use crate::contender::Contender;

/// Number of connections for puts before a measurement. Puts over several connections can
/// share a sync.
const CONNECTIONS: usize = 16;
/// Time limit for all requests of one call.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Number of attempts to get a document from webdis.
///
/// webdis can send a response to the wrong connection: if a client has disconnected, the
/// response goes to the connection that reuses its file descriptor. wrk disconnects while its
/// requests are in flight, so the next connection can receive their responses. For this
/// reason, a get is repeated, and nothing is put after wrk has run.
const WEBDIS_ATTEMPTS: u32 = 20;
/// Pause between two attempts.
const WEBDIS_PAUSE: Duration = Duration::from_millis(100);

/// Requests that several connections send.
type RequestQueue = Arc<Mutex<VecDeque<Request<ChunkedBody>>>>;

/// Puts the documents of all targets.
pub(super) fn put_all(address: SocketAddr, puts: &RequestSet) -> Result<()> {
    let bodies = puts.documents().map(|(target, document)| {
        request(
            address,
            RequestMethod::Put,
            target,
            ChunkedBody::from_bytes(document.clone()),
        )
    });
    let queue = bodies.collect::<Result<VecDeque<_>>>()?;
    block_on(send_all(address, CONNECTIONS, queue))?;
    Ok(())
}

/// Puts the same document to all targets concurrently, each over a connection of its own.
/// Returns the duration of each put.
pub(super) fn put_large(
    address: SocketAddr,
    puts: &RequestSet,
    document: &LargeDocument,
) -> Result<Vec<Duration>> {
    let targets = puts.targets.iter();
    let queue = targets
        .map(|target| request(address, RequestMethod::Put, target, document.body()))
        .collect::<Result<VecDeque<_>>>()?;
    block_on(send_all(address, queue.len(), queue))
}

/// Gets the document of the first target, and compares it with the original.
pub(super) fn check(address: SocketAddr, requests: &RequestSet) -> Result<()> {
    let attempts = match requests.contender {
        Contender::Webdis => WEBDIS_ATTEMPTS,
        _ => 1,
    };
    let mut result = check_once(address, requests);
    for _ in 1..attempts {
        if result.is_ok() {
            break;
        }
        std::thread::sleep(WEBDIS_PAUSE);
        result = check_once(address, requests);
    }
    result
}

fn check_once(address: SocketAddr, requests: &RequestSet) -> Result<()> {
    let gets = requests.with_method(RequestMethod::Get);
    let Some((target, document)) = gets.documents().next() else {
        return Ok(());
    };
    let get = request(address, RequestMethod::Get, target, ChunkedBody::default())?;
    let found = block_on(async {
        let mut connection = connect(address).await?;
        send_request(&mut connection, get).await
    })?;
    if found == *document {
        return Ok(());
    }
    let (found, expected) = (found.len(), document.len());
    let path = &target.path;
    Err(format!(
        "{path}: the response ({found} bytes) differs from the stored document ({expected} bytes)"
    )
    .into())
}

fn request(
    address: SocketAddr,
    method: RequestMethod,
    target: &RequestTarget,
    body: ChunkedBody,
) -> Result<Request<ChunkedBody>> {
    let request = match method {
        RequestMethod::Get => Request::get(&target.path),
        RequestMethod::Put => Request::put(&target.path),
    };
    let mut request = request
        .header(HOST, address.to_string())
        .header(AUTHORIZATION, format!("Bearer {}", target.token));
    if method == RequestMethod::Put {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    Ok(request.body(body)?)
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { tokio::time::timeout(TIMEOUT, work).await? })
}

/// Sends the queued requests over this number of connections. Returns the duration of each
/// request.
async fn send_all(
    address: SocketAddr,
    connections: usize,
    queue: VecDeque<Request<ChunkedBody>>,
) -> Result<Vec<Duration>> {
    let queue: RequestQueue = Arc::new(Mutex::new(queue));
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        senders.spawn(send(address, Arc::clone(&queue)));
    }
    let mut durations = Vec::new();
    while let Some(sent) = senders.join_next().await {
        durations.extend(sent??);
    }
    Ok(durations)
}

async fn send(address: SocketAddr, queue: RequestQueue) -> Result<Vec<Duration>> {
    let next = || {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front()
    };
    let mut connection = connect(address).await?;
    let mut durations = Vec::new();
    while let Some(request) = next() {
        let began = Instant::now();
        send_request(&mut connection, request).await?;
        durations.push(began.elapsed());
    }
    Ok(durations)
}

async fn connect(address: SocketAddr) -> Result<http1::SendRequest<ChunkedBody>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // If the connection fails, the next request on it fails too.
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends a request and returns the body of the response. A status other than success is an
/// error.
async fn send_request(
    connection: &mut http1::SendRequest<ChunkedBody>,
    request: Request<ChunkedBody>,
) -> Result<Bytes> {
    let request_line = format!("{} {}", request.method(), request.uri());
    connection.ready().await?;
    let response = connection.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    let body = String::from_utf8_lossy(&body);
    Err(format!("{request_line}: {status} {body}").into())
}
