//! A stream that records how long its connection has been waiting for the client.
//!
//! A client that sends or reads only single bytes must not count as active. The waiting time
//! therefore restarts only at one of these events:
//!
//! - The direction changes: the server starts to respond after the client has sent its request, or
//!   the client sends its next request after it has read the response.
//! - [`PROGRESS_BYTES`] bytes have been transferred in one direction.
//! - The server begins to close the connection (see [`MinimumRateStream::into_draining`]).
//!
//! Together with the grace periods of `connection_limit`, this rule enforces a minimum rate. A
//! connection that is slower than the minimum rate can be shed when the connection limit is
//! reached.
//!
//! A pending read or write counts as waiting for the client. Therefore, hyper must not read ahead.
//! If hyper read more than the current request, a connection whose request is being processed would
//! count as waiting.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::connection_limit::ConnectionState;

/// Number of bytes in one direction that count as progress. At 131 kbit/s, this number of bytes is
/// transferred in one second.
const PROGRESS_BYTES: usize = 16 * 1024;

/// The direction of the last transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Receiving,
    Sending,
}

/// A stream that records in its [`ConnectionState`] when it began to wait for the client.
#[derive(Debug)]
pub(super) struct MinimumRateStream<'a, S> {
    stream: S,
    state: &'a ConnectionState,
    direction: Direction,
    /// The time at which the connection first waited after its last progress. `None` if the
    /// connection has not waited since its last progress.
    waiting_since_ms: Option<u64>,
    /// Number of bytes that have been transferred since the last progress.
    moved_bytes: usize,
    is_waiting: bool,
}

impl<'a, S> MinimumRateStream<'a, S> {
    pub(super) fn new(stream: S, state: &'a ConnectionState) -> Self {
        Self {
            stream,
            state,
            direction: Direction::Receiving,
            // The task that serves the connection has already marked it as waiting.
            waiting_since_ms: Some(state.now_ms()),
            moved_bytes: 0,
            is_waiting: true,
        }
    }

    /// Returns the inner stream. After this call, the connection counts as waiting, because the
    /// server only waits until the client closes the connection.
    pub(super) fn into_draining(mut self) -> S {
        self.restart_clock();
        self.wait();
        self.stream
    }

    /// Records the outcome of a read or a write. `bytes` returns the number of transferred bytes.
    /// Returns an error if the connection was shed while it waited.
    fn record<T>(
        &mut self,
        direction: Direction,
        outcome: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if self.direction != direction {
            self.direction = direction;
            self.restart_clock();
        }
        match &outcome {
            Poll::Pending => self.wait(),
            Poll::Ready(done) => {
                if std::mem::take(&mut self.is_waiting) && self.state.mark_active().is_err() {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                self.moved_bytes += done.as_ref().map_or(0, bytes);
                if self.moved_bytes >= PROGRESS_BYTES {
                    self.restart_clock();
                }
            }
        }
        outcome
    }

    fn restart_clock(&mut self) {
        self.waiting_since_ms = None;
        self.moved_bytes = 0;
    }

    fn wait(&mut self) {
        if !self.is_waiting {
            self.is_waiting = true;
            let now = || self.state.now_ms();
            let since_ms = *self.waiting_since_ms.get_or_insert_with(now);
            self.state.mark_waiting(since_ms);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MinimumRateStream<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = buffer.filled().len() - before;
        self.record(Direction::Receiving, outcome, |()| bytes)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MinimumRateStream<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.record(Direction::Sending, outcome, |bytes| *bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        // hyper sometimes flushes although it has written nothing. A flush without written data
        // must not count as a change of direction.
        if outcome.is_ready() && self.direction == Direction::Receiving {
            return outcome;
        }
        self.record(Direction::Sending, outcome, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.record(Direction::Sending, outcome, |()| 0)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.record(Direction::Sending, outcome, |bytes| *bytes)
    }
}
