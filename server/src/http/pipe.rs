//! Bodies that a thread writes or reads, as fast as the client takes or sends them.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// Bytes that are handed over at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces that may wait to be sent.
const WAITING_PIECES: usize = 4;

/// The end that is written to, by a thread that may wait.
pub(crate) struct Pipe {
    piece: BytesMut,
    pieces: mpsc::Sender<io::Result<Bytes>>,
}

impl Pipe {
    pub(crate) fn new() -> (Self, mpsc::Receiver<io::Result<Bytes>>) {
        let (pieces, receiver) = mpsc::channel(WAITING_PIECES);
        let pipe = Self {
            piece: BytesMut::new(),
            pieces,
        };
        (pipe, receiver)
    }

    /// Lets `write` write, and ends the body; where it fails, so that its reader sees that
    /// it is not whole.
    pub(crate) fn write<E: From<io::Error>>(
        mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let outcome = write(&mut self).and_then(|()| Ok(self.flush()?));
        if outcome.is_err() {
            let _ = self.pieces.blocking_send(Err(io::ErrorKind::Other.into()));
        }
        outcome
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
        // Nobody takes it: the client has gone.
        let sent = self.pieces.blocking_send(Ok(piece));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
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
