//! A body on its way out: whole where it is in memory, else read a piece at a time,
//! as fast as the client takes it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prefd_engine::{Chunks, Document};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

/// What is read in one go: little enough that a slow client costs little memory, enough
/// that handing over to a blocking thread is not what takes the time.
const READ_BYTES: usize = 256 * 1024;
/// The pieces that this comes in.
const CHUNK_BYTES: usize = 64 * 1024;
/// Downloads at a time that read as much at once; further ones read piece by piece. So
/// clients that take nothing, however many, have little memory in their hands.
const READ_AHEAD_DOWNLOADS: usize = 128;

/// The memory for what is read ahead, in downloads.
pub(crate) struct ReadAhead(Arc<Semaphore>);

impl Default for ReadAhead {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READ_AHEAD_DOWNLOADS)))
    }
}

/// The body of an answer.
pub(crate) struct Body(Kind);

enum Kind {
    Whole(Bytes),
    /// From a thread that writes; an error where that cannot go on.
    Piped(mpsc::Receiver<io::Result<Bytes>>),
    Document(Box<Download>),
}

struct Download {
    /// Bytes that are still to be sent.
    remaining: u64,
    read: VecDeque<Bytes>,
    source: Source,
    /// Where it may read ahead.
    ahead: Option<OwnedSemaphorePermit>,
}

enum Source {
    Ready(Chunks),
    Reading(JoinHandle<Piece>),
    Done,
}

/// What one read gave. With a failure what was read before it is not sent any more:
/// the body cannot become whole.
struct Piece {
    chunks: Chunks,
    read: VecDeque<Bytes>,
    failed: Option<prefd_engine::Error>,
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }

    /// What another thread writes, to its end, whose length is not known.
    pub(crate) fn piped(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self(Kind::Piped(pieces))
    }

    /// What is sent, if that is in memory.
    #[cfg(test)]
    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Whole(bytes) => Some(bytes),
            Kind::Document(_) | Kind::Piped(_) => None,
        }
    }

    pub(crate) fn document(document: &Document, read_ahead: &ReadAhead) -> Self {
        if let Some(body) = document.to_bytes() {
            return Self::whole(body);
        }
        let ahead = Arc::clone(&read_ahead.0).try_acquire_owned().ok();
        let bytes = ahead.as_ref().map_or(CHUNK_BYTES, |_| READ_BYTES);
        Self(Kind::Document(Box::new(Download {
            remaining: document.stat().usage.bytes,
            read: VecDeque::new(),
            source: Source::Ready(document.chunks_within(bytes)),
            ahead,
        })))
    }
}

fn read(mut chunks: Chunks, at_once: usize) -> Piece {
    let mut read = VecDeque::with_capacity(at_once);
    let mut failed = None;
    for chunk in chunks.by_ref().take(at_once) {
        match chunk {
            Ok(chunk) => read.push_back(chunk),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    Piece {
        chunks,
        read,
        failed,
    }
}

impl Download {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            if let Some(chunk) = self.read.pop_front() {
                self.remaining = self.remaining.saturating_sub(chunk.len() as u64);
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
            match std::mem::replace(&mut self.source, Source::Done) {
                Source::Ready(chunks) if self.remaining > 0 => {
                    let bytes = self.ahead.as_ref().map_or(CHUNK_BYTES, |_| READ_BYTES);
                    let read = move || read(chunks, bytes / CHUNK_BYTES);
                    self.source = Source::Reading(tokio::task::spawn_blocking(read));
                }
                Source::Ready(_) | Source::Done => return Poll::Ready(None),
                Source::Reading(mut reading) => {
                    let Poll::Ready(outcome) = Pin::new(&mut reading).poll(context) else {
                        self.source = Source::Reading(reading);
                        return Poll::Pending;
                    };
                    let piece = outcome.map_err(io::Error::other)?;
                    if let Some(error) = piece.failed {
                        // The status is sent: all that is left is to break off, so
                        // that the client sees that the body is not whole.
                        tracing::error!(%error, "a document could not be read to its end");
                        return Poll::Ready(Some(Err(io::Error::other(error))));
                    }
                    if piece.read.is_empty() {
                        return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                    }
                    self.read = piece.read;
                    self.source = Source::Ready(piece.chunks);
                }
            }
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Document(download) => Poll::Ready(ready!(download.poll(context))),
            Kind::Piped(pieces) => {
                let piece = ready!(pieces.poll_recv(context));
                Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Document(download) => download.remaining == 0,
            Kind::Piped(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Document(download) => SizeHint::with_exact(download.remaining),
            Kind::Piped(_) => SizeHint::default(),
        }
    }
}
