//! Response bodies. A body in memory is sent as a whole. A streamed body is produced only as fast
//! as its receiver reads it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::store::{DocumentStream, DocumentText};

/// The body of a response, or of a request that prefd sends.
pub(crate) struct Body(BodyKind);

enum BodyKind {
    /// The complete body is in memory.
    Full(Bytes),
    /// The frames of the body are sent by the thread that writes the body. If the writing thread
    /// fails, it sends an error instead of further frames.
    Channel(mpsc::Receiver<io::Result<Frame<Bytes>>>),
    Document(Box<DocumentStream>),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// Creates a body that is completely in memory.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self(BodyKind::Full(bytes))
    }

    /// Creates a body of unknown length, which ends when the sender of `frames` is dropped.
    pub(crate) fn channel(frames: mpsc::Receiver<io::Result<Frame<Bytes>>>) -> Self {
        Self(BodyKind::Channel(frames))
    }

    /// The bytes of a body that is completely in memory. `None` for a streamed body.
    #[cfg(test)]
    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            BodyKind::Full(bytes) => Some(bytes),
            BodyKind::Document(_) | BodyKind::Channel(_) => None,
        }
    }

    pub(crate) fn document(text: DocumentText) -> Self {
        match text {
            DocumentText::InMemory(bytes) => Self::full(bytes),
            DocumentText::Streamed(pieces) => Self(BodyKind::Document(pieces)),
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
            BodyKind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            BodyKind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            BodyKind::Document(pieces) => {
                let piece = ready!(pieces.poll_next(context));
                Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
            }
            BodyKind::Channel(frames) => frames.poll_recv(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            BodyKind::Full(bytes) => bytes.is_empty(),
            BodyKind::Document(pieces) => pieces.remaining() == 0,
            BodyKind::Channel(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            BodyKind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            BodyKind::Document(pieces) => SizeHint::with_exact(pieces.remaining()),
            BodyKind::Channel(_) => SizeHint::default(),
        }
    }
}
