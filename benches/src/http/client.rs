//! A client for what is not measured, or not by wrk: documents are put that are got
//! later, one is looked at, and large ones are sent that are nowhere in memory as a whole.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::requests::{RequestMethod, RequestSet, RequestTarget};
use crate::Result;
use crate::contender::Contender;

/// Connections that documents are put over: enough that they share syncs.
const CONNECTIONS: usize = 16;
/// What a server may take for all that it is sent.
const PATIENCE: Duration = Duration::from_secs(300);
/// Length of the pieces of a large value.
const PIECE_BYTES: usize = 64 * 1024;

/// webdis writes an answer that nobody waits for any more to whichever connection has
/// the descriptor of the one that asked. After wrk has left with requests under way, that
/// can be ours: then we ask again, and put nothing any more.
const WEBDIS_ATTEMPTS: u32 = 20;
const WEBDIS_PAUSE: Duration = Duration::from_millis(100);

type RequestQueue = Arc<Mutex<VecDeque<Request<ChunkedBody>>>>;

/// A body, in pieces that may be shared with other bodies.
#[derive(Clone, Default)]
struct ChunkedBody {
    left: VecDeque<Bytes>,
    bytes: u64,
}

impl ChunkedBody {
    fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len() as u64;
        self.left.push_back(piece);
    }

    fn of(whole: Bytes) -> Self {
        let mut pieces = Self::default();
        pieces.push(whole);
        pieces
    }
}

impl Body for ChunkedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        let piece = self.left.pop_front();
        self.bytes -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}

/// A document of many keys with long values.
pub(super) struct LargeDocument(ChunkedBody);

impl LargeDocument {
    pub(super) fn new(keys: usize, value_bytes: usize) -> Self {
        let piece = Bytes::from(vec![b'x'; PIECE_BYTES]);
        let mut pieces = ChunkedBody::default();
        for key in 0..keys {
            let opening = if key == 0 { "{" } else { "\"," };
            pieces.push(format!("{opening}\"key-{key}\":\"").into());
            // The two quotes are a part of the value.
            let mut left = value_bytes - 2;
            while left > 0 {
                let now = left.min(PIECE_BYTES);
                pieces.push(piece.slice(..now));
                left -= now;
            }
        }
        pieces.push(Bytes::from_static(b"\"}"));
        Self(pieces)
    }

    pub(super) fn len(&self) -> usize {
        self.0.bytes as usize
    }
}

/// Puts the documents of all targets.
pub(super) fn put(address: SocketAddr, puts: &RequestSet) -> Result<()> {
    let bodies = puts.documents().map(|(target, document)| {
        request(
            address,
            RequestMethod::Put,
            target,
            ChunkedBody::of(document.clone()),
        )
    });
    let queue = bodies.collect::<Result<VecDeque<_>>>()?;
    block_on(send_all(address, CONNECTIONS, queue))?;
    Ok(())
}

/// Puts the same document of all targets at once, each over a connection of its own. How
/// long each took.
pub(super) fn upload(
    address: SocketAddr,
    puts: &RequestSet,
    upload: &LargeDocument,
) -> Result<Vec<Duration>> {
    let targets = puts.targets.iter();
    let queue = targets
        .map(|target| request(address, RequestMethod::Put, target, upload.0.clone()))
        .collect::<Result<VecDeque<_>>>()?;
    block_on(send_all(address, queue.len(), queue))
}

/// Gets the first target's document, and compares it.
pub(super) fn check(address: SocketAddr, requests: &RequestSet) -> Result<()> {
    let attempts = match requests.contender {
        Contender::Webdis => WEBDIS_ATTEMPTS,
        _ => 1,
    };
    let mut checked = check_once(address, requests);
    for _ in 1..attempts {
        if checked.is_ok() {
            break;
        }
        std::thread::sleep(WEBDIS_PAUSE);
        checked = check_once(address, requests);
    }
    checked
}

fn check_once(address: SocketAddr, requests: &RequestSet) -> Result<()> {
    let gets = requests.to(RequestMethod::Get);
    let Some((target, document)) = gets.documents().next() else {
        return Ok(());
    };
    let get = request(address, RequestMethod::Get, target, ChunkedBody::default())?;
    let found = block_on(async {
        let mut connection = connect(address).await?;
        answer(&mut connection, get).await
    })?;
    if found == *document {
        return Ok(());
    }
    let (found, put) = (found.len(), document.len());
    let path = &target.path;
    Err(format!("{path} has {found} bytes that are not the {put} that were put").into())
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
    runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await? })
}

/// Sends what is queued, over so many connections. How long each took.
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
    let mut took = Vec::new();
    while let Some(sent) = senders.join_next().await {
        took.extend(sent??);
    }
    Ok(took)
}

async fn send(address: SocketAddr, queue: RequestQueue) -> Result<Vec<Duration>> {
    let next = || {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front()
    };
    let mut connection = connect(address).await?;
    let mut took = Vec::new();
    while let Some(request) = next() {
        let began = Instant::now();
        answer(&mut connection, request).await?;
        took.push(began.elapsed());
    }
    Ok(took)
}

async fn connect(address: SocketAddr) -> Result<http1::SendRequest<ChunkedBody>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its end shows where the next answer is waited for.
    tokio::spawn(connection);
    Ok(sender)
}

/// The body of an answer, which must be a success.
async fn answer(
    connection: &mut http1::SendRequest<ChunkedBody>,
    request: Request<ChunkedBody>,
) -> Result<Bytes> {
    let what = format!("{} {}", request.method(), request.uri());
    connection.ready().await?;
    let response = connection.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    let body = String::from_utf8_lossy(&body);
    Err(format!("{what}: {status} {body}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_json_of_its_length_with_values_of_theirs() {
        let upload = LargeDocument::new(3, 2 * PIECE_BYTES + 7);
        let whole: Vec<u8> = upload.0.left.iter().flatten().copied().collect();
        assert_eq!(whole.len(), upload.len());
        let document: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        let values = document.as_object().unwrap();
        assert_eq!(values.len(), 3);
        assert!(
            values
                .values()
                .all(|v| v.to_string().len() == 2 * PIECE_BYTES + 7)
        );
    }
}
