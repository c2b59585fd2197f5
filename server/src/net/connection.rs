//! Serves one connection with hyper, and adds what hyper does not do: a timeout for
//! writes that make no progress, and a lingering close, so that a client that is still
//! sending can read its response.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::CONNECTION;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

use crate::http::Body;
use crate::net::connection_limit::ConnectionState;
use crate::net::minimum_rate::MinimumRateStream;

/// How long a client whose upload was refused may take to stop sending and to read its
/// response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(10);
/// Size of hyper's buffer per direction: for a request head, for a piece of a body, and
/// for response bytes that the client has not read. It also limits the length of a head.
/// It leaves room for the longest request target that hyper accepts: 65,534 bytes (a
/// longer one gets 414).
pub(crate) const BUFFER_BYTES: usize = 80 * 1024;
/// Size of the buffer into which bytes are discarded.
const DISCARD_BYTES: usize = 64 * 1024;

/// A stream on which a write fails if it makes no progress for `write_timeout`. hyper
/// has no timeout for writes.
struct WriteTimeoutStream<S> {
    io: TokioIo<S>,
    write_timeout: Duration,
    /// Runs while a write is pending.
    stall_timer: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WriteTimeoutStream<S> {
    fn new(stream: S, write_timeout: Duration) -> Self {
        Self {
            io: TokioIo::new(stream),
            write_timeout,
            stall_timer: None,
        }
    }

    /// Starts the timer when a write is pending, and stops it when the write is done.
    fn check_stall<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stall_timer = None;
            return outcome;
        }
        let timeout = self.write_timeout;
        let stall_timer = self
            .stall_timer
            .get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stall_timer.as_mut().poll(context));
        tracing::debug!("write timeout: the client does not read its response");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WriteTimeoutStream<MinimumRateStream<'_, S>> {
    /// Closes the socket without destroying the response (RFC 9112 section 9.6).
    ///
    /// If the socket were closed while bytes from the client are unread or on their way,
    /// the kernel would send a reset. The reset can reach the client before it has read
    /// the response, which is then lost. So only the sending side is closed, and bytes
    /// that still arrive are discarded.
    async fn linger(self) {
        let mut stream = self.io.into_inner().into_draining();
        let discard = async {
            stream.shutdown().await?;
            let mut buffer = vec![0; DISCARD_BYTES];
            while stream.read(&mut buffer).await? > 0 {}
            io::Result::Ok(())
        };
        // The connection is over, even if discarding fails or times out.
        let _ = tokio::time::timeout(LINGER_TIMEOUT, discard).await;
    }
}

impl<S: AsyncRead + Unpin> Read for WriteTimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for WriteTimeoutStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(context, bytes);
        self.check_stall(outcome, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(context);
        self.check_stall(outcome, context)
    }

    /// With TLS, a shutdown writes a `close_notify` alert, which can stall.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(context);
        self.check_stall(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.check_stall(outcome, context)
    }
}

/// What a service knows about the connection of a request.
pub(crate) struct ConnectionContext<'a, C> {
    /// The service's own state. It lives as long as the connection.
    pub(crate) service_state: C,
    pub(crate) state: &'a ConnectionState,
}

/// Responds to the requests of connections.
pub(crate) trait Service: Send + Sync + 'static {
    /// State that the service keeps from one request of a connection to the next.
    type Connection: Default + Send + Sync;

    /// Responds to a request. A failure becomes an error response.
    ///
    /// The service calls [`ConnectionState::record_granted`] if it grants the request,
    /// and `on_response` with the response before it returns it.
    fn respond(
        &self,
        request: Request<Incoming>,
        connection: &ConnectionContext<'_, Self::Connection>,
        on_response: impl FnOnce(&Response<Body>) + Send,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send;
}

/// Serves connections with one service.
pub(crate) struct ConnectionServer<H> {
    pub(crate) service: Arc<H>,
    /// Time for a request head to arrive, and idle time before the next one begins.
    pub(crate) head_timeout: Duration,
    pub(crate) write_timeout: Duration,
}

impl<H: Service> ConnectionServer<H> {
    /// Serves one connection until it ends. When `stopping` changes, the connection ends
    /// after the current request.
    pub(crate) async fn run<S>(
        &self,
        stream: S,
        state: &ConnectionState,
        mut stopping: watch::Receiver<()>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = MinimumRateStream::new(stream, state);
        let stream = WriteTimeoutStream::new(stream, self.write_timeout);
        let has_unread_upload = AtomicBool::new(false);
        let context = ConnectionContext {
            service_state: H::Connection::default(),
            state,
        };
        // Boxing makes the future `Unpin`. Otherwise hyper's connection could not be taken
        // apart with `into_parts` after it was polled.
        let service = service_fn(|request| {
            Box::pin(self.service.respond(request, &context, |response| {
                // 412 is the result of a condition, not a refusal.
                let status = response.status();
                if status.is_client_error() && status != StatusCode::PRECONDITION_FAILED {
                    state.record_refused();
                }
                // `Connection: close` is set if the request's body was not read to its end.
                if response.headers().contains_key(CONNECTION) {
                    has_unread_upload.store(true, Ordering::Relaxed);
                }
            }))
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            // Without half-close, hyper would read while a request is processed, and this read
            // would count as waiting for the client (see `minimum_rate`).
            .half_close(true)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(stream, service);
        let outcome = {
            let mut is_stopping = false;
            let mut stop = pin!(stopping.changed());
            std::future::poll_fn(|context| {
                if !is_stopping && stop.as_mut().poll(context).is_ready() {
                    is_stopping = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                // Not `poll_without_shutdown`: with it, hyper would not wait until the
                // buffered part of a response is written.
                Pin::new(&mut connection).poll(context)
            })
            .await
        };
        // The process waits for all clones of `stopping` before it exits. A client with an
        // unread upload would lose its response if the process exited now, so its
        // connection keeps the clone while it lingers. Other connections drop it here, so
        // that a client that keeps its side open does not delay the exit.
        let _delays_exit = has_unread_upload
            .load(Ordering::Relaxed)
            .then_some(stopping);
        let needs_linger = match outcome {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "connection failed");
                error.is_parse()
            }
        };
        if needs_linger {
            // A separate statement, so that hyper's read buffer is freed before the wait.
            let stream = connection.into_parts().io;
            stream.linger().await;
        }
    }
}
