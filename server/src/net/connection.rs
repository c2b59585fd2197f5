//! Serves one connection with hyper, and adds two features that hyper does not have: a timeout for
//! writes that make no progress, and a lingering close. With a lingering close, a client that is
//! still sending can read its response.

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

/// Maximum duration of a lingering close. During this time, the client can finish sending and can
/// read the response.
const LINGER_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum length of a request head, and of the trailers of a chunked body. A longer head gets the
/// status 431. A head of this length has room for the longest request target that hyper accepts,
/// which has 65,534 bytes. A request with a longer target gets the status 414.
const MAX_HEAD_BYTES: usize = 80 * 1024;
/// Maximum size of each of hyper's two buffers for a connection. The read buffer contains a request
/// head or a part of a request body. The write buffer contains response bytes that have not been
/// sent.
pub(crate) const BUFFER_BYTES: usize = MAX_HEAD_BYTES;
/// Size of the buffer for bytes that are received and discarded during a lingering close.
const DISCARD_BYTES: usize = 64 * 1024;

/// A stream whose writes fail if they make no progress for `write_timeout`. This type is needed
/// because hyper has no timeout for writes.
struct WriteTimeoutStream<S> {
    io: TokioIo<S>,
    write_timeout: Duration,
    /// This timer runs while a write is pending.
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

    /// Starts the timer if a write is pending, and stops the timer when the write is done.
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
    /// Closes the socket so that the client can still read the response (RFC 9112 section 9.6).
    ///
    /// If the socket were closed while bytes from the client are unread or in transit, the kernel
    /// would send a TCP reset. If the reset reaches a client before the client has read the
    /// response, the response is lost. Therefore only the sending side is closed, and bytes that
    /// still arrive are discarded.
    async fn linger(self) {
        let mut stream = self.io.into_inner().into_draining();
        let discard = async {
            stream.shutdown().await?;
            let mut buffer = vec![0; DISCARD_BYTES];
            while stream.read(&mut buffer).await? > 0 {}
            io::Result::Ok(())
        };
        // A failure or timeout needs no handling, because the connection ends here anyway.
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

    /// With TLS, a shutdown writes a `close_notify` alert, and this write can stall.
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

/// The parts of a connection that are visible to the service.
pub(crate) struct ConnectionContext<'a, C> {
    /// State that the service keeps for as long as the connection is open.
    pub(crate) service_state: C,
    pub(crate) state: &'a ConnectionState,
}

/// Responds to the requests that arrive on connections.
pub(crate) trait Service: Send + Sync + 'static {
    /// State that the service keeps for as long as a connection is open.
    type Connection: Default + Send + Sync;

    /// Responds to a request. If the request fails, the result is an error response.
    ///
    /// The service must call [`ConnectionState::record_granted`] if it grants the request. Before
    /// the service returns the response, it must call `on_response` with the response.
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
    /// Timeout for receiving a request head, and for a connection that waits for its next request.
    pub(crate) head_timeout: Duration,
    pub(crate) write_timeout: Duration,
}

impl<H: Service> ConnectionServer<H> {
    /// The options of hyper's connections.
    fn http1_builder(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            // If half-close were off, hyper would read from the connection even while the server
            // works on a request that was received completely. This read would count as waiting for
            // the client (see `minimum_rate`).
            .half_close(true)
            .max_buf_size(BUFFER_BYTES)
            // hyper enforces `max_buf_size` only while a head is incomplete. A longer head that
            // arrives at once would be accepted.
            .max_header_size(MAX_HEAD_BYTES);
        builder
    }

    /// Serves one connection until it ends. If `stopping` changes, the connection ends after the
    /// current request.
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
        // The future of the service is boxed to make it `Unpin`. If the future were not `Unpin`,
        // `into_parts` could not be called on hyper's connection after the connection was polled.
        let service = service_fn(|request| {
            Box::pin(self.service.respond(request, &context, |response| {
                // A 412 does not count as a refusal, because it is the result of a condition.
                let status = response.status();
                if status.is_client_error() && status != StatusCode::PRECONDITION_FAILED {
                    state.record_refused();
                }
                // A response has `Connection: close` if the request body may not have been read to
                // its end.
                if response.headers().contains_key(CONNECTION) {
                    has_unread_upload.store(true, Ordering::Relaxed);
                }
            }))
        });
        let mut connection = self.http1_builder().serve_connection(stream, service);
        let outcome = {
            let mut is_stopping = false;
            let mut stop = pin!(stopping.changed());
            std::future::poll_fn(|context| {
                if !is_stopping && stop.as_mut().poll(context).is_ready() {
                    is_stopping = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                // `poll_without_shutdown` cannot be used here, because it can return before the
                // buffered part of a response is written.
                Pin::new(&mut connection).poll(context)
            })
            .await
        };
        // The process does not exit before all clones of `stopping` are dropped. If the process
        // exited now, a client whose upload was not read to its end could lose its response. A
        // connection with an unread upload therefore keeps its clone during the lingering close.
        // All other connections drop their clones here, so that a client that does not close its
        // side of the connection cannot delay the exit.
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
            // The call of `into_parts` is a separate statement, so that hyper's read buffer is
            // freed before the lingering close.
            let stream = connection.into_parts().io;
            stream.linger().await;
        }
    }
}
