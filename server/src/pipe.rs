//! From a thread that writes to a body that is sent, as fast as the client takes it.

use std::io::{self, Write};

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
