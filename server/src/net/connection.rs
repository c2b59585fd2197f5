//! One connection: what hyper leaves to us. A client that takes nothing is given up,
//! and one that is still sending gets its answer before the socket goes.

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
use crate::net::pace::Paced;
use crate::net::places::Standing;

/// Time for a client whose upload was refused to stop sending and take its answer.
const LINGER: Duration = Duration::from_secs(10);
/// What hyper may hold of a head, of a body that comes, or of an answer that is not
/// taken. So a head may be that long; the longest target that hyper tells from one that
/// is too long (65,534 bytes; else 414) has room in it.
pub(crate) const BUFFER_BYTES: usize = 80 * 1024;
/// Bytes discarded at once.
const DISCARD_BYTES: usize = 64 * 1024;

/// A socket on which a write that makes no progress fails in the end: hyper has no
/// timeout for that.
pub(super) struct Socket<S> {
    io: TokioIo<S>,
    write_timeout: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    pub(crate) fn new(stream: S, write_timeout: Duration) -> Self {
        Self {
            io: TokioIo::new(stream),
            write_timeout,
            stalled: None,
        }
    }

    fn watch<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stalled.as_mut().poll(context));
        tracing::debug!("a client takes nothing of its answer");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<Paced<'_, S>> {
    /// Gives the socket up. Closed while bytes of the client are unread or on their
    /// way, the kernel would answer them with a reset, which can overtake and destroy
    /// what the client has not read yet (RFC 9112 section 9.6). So only the sending
    /// side is closed, and what still comes is discarded.
    pub(crate) async fn linger(self) {
        let mut stream = self.io.into_inner().into_leaving();
        let discard = async {
            stream.shutdown().await?;
            let mut buffer = vec![0; DISCARD_BYTES];
            while stream.read(&mut buffer).await? > 0 {}
            io::Result::Ok(())
        };
        // Whether it ends by itself, by an error or by the clock: it is over.
        let _ = tokio::time::timeout(LINGER, discard).await;
    }
}

impl<S: AsyncRead + Unpin> Read for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Write for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watch(outcome, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(context);
        self.watch(outcome, context)
    }

    /// With TLS there is a last word to be written.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(context);
        self.watch(outcome, context)
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
        self.watch(outcome, context)
    }
}

/// A connection, as the service sees it that answers its requests.
pub(crate) struct Caller<'a, C> {
    /// The service's own, from one request to the next.
    pub(crate) state: C,
    pub(crate) standing: &'a Standing,
}

/// What answers the requests of connections.
pub(crate) trait Service: Send + Sync + 'static {
    /// What it remembers of a connection from one request to the next.
    type Connection: Default + Send + Sync;

    /// Answers a request, whatever happens; `see` is shown what is answered. Tells the
    /// caller's standing of a request that is granted.
    fn answer(
        &self,
        request: Request<Incoming>,
        caller: &Caller<'_, Self::Connection>,
        see: impl FnOnce(&Response<Body>) + Send,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send;
}

/// What carrying a connection needs.
pub(crate) struct Carrier<H> {
    pub(crate) handler: Arc<H>,
    /// Time for a head to come, and for the next one to begin.
    pub(crate) head_timeout: Duration,
    pub(crate) write_timeout: Duration,
}

impl<H: Service> Carrier<H> {
    /// Serves one connection to its end.
    pub(crate) async fn carry<S>(
        &self,
        stream: S,
        standing: &Standing,
        mut stopping: watch::Receiver<()>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let socket = Socket::new(Paced::new(stream, standing), self.write_timeout);
        let is_cut_short = AtomicBool::new(false);
        let caller = Caller {
            state: H::Connection::default(),
            standing,
        };
        // Boxed, because a connection that outlives hyper's part in it must be movable.
        let service = service_fn(|request| {
            Box::pin(self.handler.answer(request, &caller, |response| {
                // A condition that does not hold is no refusal.
                let status = response.status();
                if status.is_client_error() && status != StatusCode::PRECONDITION_FAILED {
                    standing.is_refused();
                }
                if response.headers().contains_key(CONNECTION) {
                    is_cut_short.store(true, Ordering::Relaxed);
                }
            }))
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            // Without it hyper would read while a request is carried out, and what is
            // read then is taken for waiting (`pace`).
            .half_close(true)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(socket, service);
        let outcome = {
            let mut told = false;
            let mut stop = pin!(stopping.changed());
            std::future::poll_fn(|context| {
                if !told && stop.as_mut().poll(context).is_ready() {
                    told = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                // To the end: without the shutdown hyper would not wait until what it
                // has buffered of an answer is written.
                Pin::new(&mut connection).poll(context)
            })
            .await
        };
        // Only a client whose upload was cut short could lose its answer if the process
        // ended now: that one is waited for, and not one that keeps its side open.
        let _held = is_cut_short.load(Ordering::Relaxed).then_some(stopping);
        let is_over = match outcome {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "a connection broke off");
                error.is_parse()
            }
        };
        if is_over {
            // On its own, so that what hyper has read of it goes before it lingers.
            let socket = connection.into_parts().io;
            socket.linger().await;
        }
    }
}
