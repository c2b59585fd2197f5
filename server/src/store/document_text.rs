//! The text of a document for a response. A text that is not in memory is read from the disk in
//! blocks, as fast as the client receives it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use prefd_engine::{Chunks, Document, Error};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// Maximum number of bytes that one task on a blocking thread reads. This number is small enough
/// that a slow client uses little memory, and large enough that the cost of starting the task does
/// not matter.
const READ_BYTES: usize = 256 * 1024;
/// Maximum size of one chunk in bytes. With a [`ReadAhead`] permit, a task reads up to `READ_BYTES
/// / CHUNK_BYTES` chunks. Without a permit, a task reads one chunk.
const CHUNK_BYTES: usize = 64 * 1024;
/// Maximum number of documents that are read at the same time with up to [`READ_BYTES`] per task.
/// For further documents, each task reads only one chunk, so that many slow clients use little
/// memory.
const READ_AHEAD_DOCUMENTS: usize = 128;

/// Permits for streams that read up to [`READ_BYTES`] with each task. Cloning is cheap, and clones
/// share the permits.
#[derive(Clone)]
pub(crate) struct ReadAhead(Arc<Semaphore>);

impl Default for ReadAhead {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READ_AHEAD_DOCUMENTS)))
    }
}

/// The text of a document.
pub(crate) enum DocumentText {
    InMemory(Bytes),
    Streamed(Box<DocumentStream>),
}

impl DocumentText {
    pub(super) fn new(document: &Document, read_ahead: &ReadAhead) -> Self {
        if let Some(text) = document.to_bytes() {
            return Self::InMemory(text);
        }
        let permit = Arc::clone(&read_ahead.0).try_acquire_owned().ok();
        let bytes = permit.as_ref().map_or(CHUNK_BYTES, |_| READ_BYTES);
        Self::Streamed(Box::new(DocumentStream {
            remaining: document.stat().usage.bytes,
            chunks: VecDeque::new(),
            state: ReadState::Ready(document.chunks_within(bytes)),
            permit,
        }))
    }
}

/// The text of a document that is read from the disk while the response is sent.
pub(crate) struct DocumentStream {
    /// Number of bytes that [`Self::poll_next`] has not returned yet.
    remaining: u64,
    /// Chunks that were read, but not returned yet.
    chunks: VecDeque<Bytes>,
    state: ReadState,
    /// Without a permit, each task reads only one chunk.
    permit: Option<OwnedSemaphorePermit>,
}

enum ReadState {
    Ready(Chunks),
    Running(JoinHandle<Result<Block, Error>>),
    Done,
}

/// The chunks that one task has read, and the source of further chunks.
struct Block {
    read: VecDeque<Bytes>,
    source: Chunks,
}

/// Reads up to `count` chunks. After an error, the text cannot be completed, so the chunks that
/// were read before the error are dropped.
fn read_block(mut source: Chunks, count: usize) -> Result<Block, Error> {
    let mut read = VecDeque::with_capacity(count);
    for chunk in source.by_ref().take(count) {
        read.push_back(chunk?);
    }
    Ok(Block { read, source })
}

impl DocumentStream {
    /// Number of bytes that [`Self::poll_next`] has not returned yet.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Returns the next chunk, or `None` at the end and after an error.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if let Some(chunk) = self.chunks.pop_front() {
                self.remaining = self.remaining.saturating_sub(chunk.len() as u64);
                return Poll::Ready(Some(Ok(chunk)));
            }
            match std::mem::replace(&mut self.state, ReadState::Done) {
                ReadState::Ready(source) if self.remaining > 0 => {
                    let bytes = self.permit.as_ref().map_or(CHUNK_BYTES, |_| READ_BYTES);
                    let read = move || read_block(source, bytes / CHUNK_BYTES);
                    self.state = ReadState::Running(tokio::task::spawn_blocking(read));
                }
                ReadState::Ready(_) | ReadState::Done => return Poll::Ready(None),
                ReadState::Running(mut running) => {
                    let Poll::Ready(outcome) = Pin::new(&mut running).poll(context) else {
                        self.state = ReadState::Running(running);
                        return Poll::Pending;
                    };
                    let block = outcome.map_err(io::Error::other)?;
                    let block = block.map_err(|error| {
                        // The status of the response was already sent. The error makes the server
                        // close the connection, so the client can detect that the body is
                        // incomplete.
                        tracing::error!(%error, "reading a document failed during the response");
                        io::Error::other(error)
                    })?;
                    if block.read.is_empty() {
                        return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                    }
                    self.chunks = block.read;
                    self.state = ReadState::Ready(block.source);
                }
            }
        }
    }
}
