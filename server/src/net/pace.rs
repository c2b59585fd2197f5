//! A connection's pace: since when it waits for its client. A client that drips gains
//! nothing by that: it is waited for until a turn has passed (the client has sent its
//! request and the server answers, or the other way round), or until as much has moved
//! as a slow line moves in a second.
//!
//! That a connection waits is told by its reads and writes. So nothing may be read from
//! it ahead of being wanted.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::places::Standing;

/// What counts as going on, in one direction.
const PROGRESS_BYTES: usize = 16 * 1024;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

/// A connection that notes in its standing since when it waits.
#[derive(Debug)]
pub(super) struct Paced<'a, S> {
    stream: S,
    standing: &'a Standing,
    direction: Direction,
    /// When it first waited since it last went on, if it has.
    waits_since_ms: Option<u64>,
    moved_bytes: usize,
    is_waiting: bool,
}

impl<'a, S> Paced<'a, S> {
    pub(crate) fn new(stream: S, standing: &'a Standing) -> Self {
        Self {
            stream,
            standing,
            direction: Direction::In,
            // As its standing says from the beginning.
            waits_since_ms: Some(standing.now_ms()),
            moved_bytes: 0,
            is_waiting: true,
        }
    }

    /// The stream, where nothing is left to do but to wait until the client goes.
    pub(crate) fn into_leaving(mut self) -> S {
        self.begin_anew();
        self.wait();
        self.stream
    }

    /// Takes note of what a read or a write has come to, with the bytes that it moved.
    /// An error where the connection was closed meanwhile, to give its place to another.
    fn note<T>(
        &mut self,
        direction: Direction,
        outcome: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        if self.direction != direction {
            self.direction = direction;
            self.begin_anew();
        }
        match &outcome {
            Poll::Pending => self.wait(),
            Poll::Ready(done) => {
                if std::mem::take(&mut self.is_waiting) && self.standing.goes_on().is_err() {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                self.moved_bytes += done.as_ref().map_or(0, bytes);
                if self.moved_bytes >= PROGRESS_BYTES {
                    self.begin_anew();
                }
            }
        }
        outcome
    }

    fn begin_anew(&mut self) {
        self.waits_since_ms = None;
        self.moved_bytes = 0;
    }

    fn wait(&mut self) {
        if !self.is_waiting {
            self.is_waiting = true;
            let now = || self.standing.now_ms();
            let since_ms = *self.waits_since_ms.get_or_insert_with(now);
            self.standing.waits(since_ms);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        let bytes = buffer.filled().len() - before;
        self.note(Direction::In, outcome, |()| bytes)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(Direction::Out, outcome, |bytes| *bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        // Where nothing is to be flushed, it is no turn.
        if outcome.is_ready() && self.direction == Direction::In {
            return outcome;
        }
        self.note(Direction::Out, outcome, |()| 0)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.note(Direction::Out, outcome, |()| 0)
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
        self.note(Direction::Out, outcome, |bytes| *bytes)
    }
}
