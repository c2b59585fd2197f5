//! Bodies that a thread writes or reads, as fast as the client takes or sends them.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::body::Frame;
use tokio::sync::mpsc;

/// Bytes that are handed over at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that may wait to be sent.
const WAITING_PIECES: usize = 4;

/// The end that is written to, by a thread that may wait.
pub(crate) struct Pipe {
    piece: BytesMut,
    frames: mpsc::Sender<io::Result<Frame<Bytes>>>,
}

impl Pipe {
    pub(crate) fn new() -> (Self, mpsc::Receiver<io::Result<Frame<Bytes>>>) {
        let (frames, receiver) = mpsc::channel(WAITING_PIECES);
        let pipe = Self {
            piece: BytesMut::new(),
            frames,
        };
        (pipe, receiver)
    }

    /// Lets `write` write, and ends the body; where it fails, so that its reader sees that
    /// it is not whole.
    pub(crate) fn write<E: From<io::Error>>(
        self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        self.write_with_trailers(|out| write(out).map(|()| HeaderMap::new()))
    }

    /// Lets `write` write, and ends the body with the trailers that it returns. If it fails,
    /// the body ends in an error, so that the reader sees that it is incomplete.
    pub(crate) fn write_with_trailers<E: From<io::Error>>(
        mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<HeaderMap, E>,
    ) -> Result<(), E> {
        let outcome = write(&mut self).and_then(|trailers| {
            self.flush()?;
            if !trailers.is_empty() {
                self.send(Ok(Frame::trailers(trailers)))?;
            }
            Ok(())
        });
        if outcome.is_err() {
            let _ = self.send(Err(io::ErrorKind::Other.into()));
        }
        outcome
    }

    fn send(&self, frame: io::Result<Frame<Bytes>>) -> io::Result<()> {
        let sent = self.frames.blocking_send(frame);
        // The client is gone.
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    /// Hands over what there is.
    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = self.piece.split().freeze();
        self.send(Ok(Frame::data(piece)))
    }
}

/// A body that another task receives, read by a thread that may wait.
pub(crate) struct BodyReader {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl BodyReader {
    pub(crate) fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            pieces,
            piece: Bytes::new(),
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let taken = self.piece.split_to(self.piece.len().min(buffer.len()));
        if let Some(part) = buffer.get_mut(..taken.len()) {
            part.copy_from_slice(&taken);
        }
        Ok(taken.len())
    }
}
