//! A document's text on its way out: whole where it is in memory, else read a piece at a
//! time, as fast as it is taken.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use prefd_engine::{Chunks, Document, Error};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// What is read in one go: little enough that a slow client costs little memory, enough
/// that handing over to a blocking thread is not what takes the time.
const READ_BYTES: usize = 256 * 1024;
/// The pieces that this comes in.
const CHUNK_BYTES: usize = 64 * 1024;
/// Documents at a time of which as much is read at once; further ones are read piece by
/// piece. So clients that take nothing, however many, have little memory in their hands.
const READ_AHEAD_DOCUMENTS: usize = 128;

/// The memory for what is read ahead, in documents. A cheap handle.
#[derive(Clone)]
pub(crate) struct ReadAhead(Arc<Semaphore>);

impl Default for ReadAhead {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READ_AHEAD_DOCUMENTS)))
    }
}

/// A document's text.
pub(crate) enum DocumentText {
    Whole(Bytes),
    Pieces(Box<TextPieces>),
}

impl DocumentText {
    pub(super) fn of(document: &Document, read_ahead: &ReadAhead) -> Self {
        if let Some(text) = document.to_bytes() {
            return Self::Whole(text);
        }
        let ahead = Arc::clone(&read_ahead.0).try_acquire_owned().ok();
        let bytes = ahead.as_ref().map_or(CHUNK_BYTES, |_| READ_BYTES);
        Self::Pieces(Box::new(TextPieces {
            remaining: document.stat().usage.bytes,
            read: VecDeque::new(),
            reading: Reading::Ready(document.chunks_within(bytes)),
            ahead,
        }))
    }
}

/// A text that is read while it is taken.
pub(crate) struct TextPieces {
    /// Bytes that are still to be taken.
    remaining: u64,
    read: VecDeque<Bytes>,
    reading: Reading,
    /// Where it may read ahead.
    ahead: Option<OwnedSemaphorePermit>,
}

enum Reading {
    Ready(Chunks),
    Running(JoinHandle<Piece>),
    Done,
}

/// What one read gave. With a failure what was read before it is not handed out any more:
/// the text cannot become whole.
struct Piece {
    chunks: Chunks,
    read: VecDeque<Bytes>,
    failed: Option<Error>,
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

impl TextPieces {
    /// Bytes that are still to be taken.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The next piece. After an error there are no further ones.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(chunk) = self.read.pop_front() {
                self.remaining = self.remaining.saturating_sub(chunk.len() as u64);
                return Poll::Ready(Some(Ok(chunk)));
            }
            match std::mem::replace(&mut self.reading, Reading::Done) {
                Reading::Ready(chunks) if self.remaining > 0 => {
                    let bytes = self.ahead.as_ref().map_or(CHUNK_BYTES, |_| READ_BYTES);
                    let read = move || read(chunks, bytes / CHUNK_BYTES);
                    self.reading = Reading::Running(tokio::task::spawn_blocking(read));
                }
                Reading::Ready(_) | Reading::Done => return Poll::Ready(None),
                Reading::Running(mut running) => {
                    let Poll::Ready(outcome) = Pin::new(&mut running).poll(context) else {
                        self.reading = Reading::Running(running);
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
                    self.reading = Reading::Ready(piece.chunks);
                }
            }
        }
    }
}
