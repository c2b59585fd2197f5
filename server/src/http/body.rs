//! The body of an answer: whole where it is in memory, else handed on as fast as the
//! client takes it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::store::{DocumentText, TextPieces};

/// The body of an answer.
pub(crate) struct Body(Kind);

enum Kind {
    Whole(Bytes),
    /// From a thread that writes; an error where that cannot go on.
    Piped(mpsc::Receiver<io::Result<Frame<Bytes>>>),
    Document(Box<TextPieces>),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }

    /// What another thread writes, to its end, whose length is not known.
    pub(crate) fn piped(frames: mpsc::Receiver<io::Result<Frame<Bytes>>>) -> Self {
        Self(Kind::Piped(frames))
    }

    /// What is sent, if that is in memory.
    #[cfg(test)]
    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Whole(bytes) => Some(bytes),
            Kind::Document(_) | Kind::Piped(_) => None,
        }
    }

    pub(crate) fn document(text: DocumentText) -> Self {
        match text {
            DocumentText::Whole(bytes) => Self::whole(bytes),
            DocumentText::Pieces(pieces) => Self(Kind::Document(pieces)),
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
            Kind::Document(pieces) => {
                let piece = ready!(pieces.poll_next(context));
                Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
            }
            Kind::Piped(frames) => frames.poll_recv(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_empty(),
            Kind::Document(pieces) => pieces.remaining() == 0,
            Kind::Piped(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Document(pieces) => SizeHint::with_exact(pieces.remaining()),
            Kind::Piped(_) => SizeHint::default(),
        }
    }
}
