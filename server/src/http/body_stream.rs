//! Adapters between blocking I/O and async bodies. With [`BodyWriter`], a blocking thread can write
//! a body. With [`BodyReader`], a blocking thread can read a body.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::body::Frame;
use tokio::sync::mpsc;

/// When the buffer contains at least this number of bytes, the buffered bytes are sent as one
/// chunk.
const CHUNK_BYTES: usize = 256 * 1024;
/// Maximum number of chunks that are queued for the receiver of the body. While the queue is full,
/// writing blocks.
const QUEUED_CHUNKS: usize = 4;

/// Writes a body. Writing blocks if the receiver of the body does not read fast enough, so use this
/// type only on blocking threads.
pub(crate) struct BodyWriter {
    buffer: BytesMut,
    frames: mpsc::Sender<io::Result<Frame<Bytes>>>,
}

impl BodyWriter {
    /// Creates a writer. Pass the returned receiver to `Body::channel`.
    pub(crate) fn new() -> (Self, mpsc::Receiver<io::Result<Frame<Bytes>>>) {
        let (frames, receiver) = mpsc::channel(QUEUED_CHUNKS);
        let writer = Self {
            buffer: BytesMut::new(),
            frames,
        };
        (writer, receiver)
    }

    /// Runs `write`, and then ends the body. If `write` fails, the body ends with an error, so that
    /// the receiver can detect that the body is incomplete.
    pub(crate) fn write<E: From<io::Error>>(
        self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        self.write_with_trailers(|out| write(out).map(|()| HeaderMap::new()), |_| None)
    }

    /// Runs `write`, and then ends the body with the trailers that `write` returns. If `write`
    /// fails, the body ends with the trailers that `on_error` returns. If `on_error` returns
    /// `None`, the body ends with an error, so that the receiver can detect that the body is
    /// incomplete.
    pub(crate) fn write_with_trailers<E: From<io::Error>>(
        mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<HeaderMap, E>,
        on_error: impl FnOnce(&E) -> Option<HeaderMap>,
    ) -> Result<(), E> {
        let outcome = write(&mut self).and_then(|trailers| {
            self.flush()?;
            if !trailers.is_empty() {
                self.send(Ok(Frame::trailers(trailers)))?;
            }
            Ok(())
        });
        if let Err(error) = &outcome {
            let end = on_error(error).map(Frame::trailers);
            let _ = self.send(end.ok_or(io::ErrorKind::Other.into()));
        }
        outcome
    }

    /// Sends a frame. Fails if the body was dropped, for example because the client has
    /// disconnected.
    fn send(&self, frame: io::Result<Frame<Bytes>>) -> io::Result<()> {
        let sent = self.frames.blocking_send(frame);
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    /// Sends the buffered bytes as one chunk.
    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = self.buffer.split().freeze();
        self.send(Ok(Frame::data(chunk)))
    }
}

/// Reads a body. A separate task receives the body and sends its chunks to this reader. Reading
/// blocks until a chunk arrives, so use this type only on blocking threads.
pub(crate) struct BodyReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
}

impl BodyReader {
    pub(crate) fn new(chunks: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            chunks,
            chunk: Bytes::new(),
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let bytes = self.chunk.split_to(self.chunk.len().min(buffer.len()));
        if let Some(target) = buffer.get_mut(..bytes.len()) {
            target.copy_from_slice(&bytes);
        }
        Ok(bytes.len())
    }
}
