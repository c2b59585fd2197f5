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
pub(crate) struct Body {
    kind: BodyKind,
    /// The error that the next call of `poll_frame` returns.
    failure: Option<io::Error>,
}

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
        BodyKind::Full(bytes).into()
    }

    /// Creates a body of unknown length, which ends when the sender of `frames` is dropped.
    pub(crate) fn channel(frames: mpsc::Receiver<io::Result<Frame<Bytes>>>) -> Self {
        BodyKind::Channel(frames).into()
    }

    /// The bytes of a body that is completely in memory. `None` for a streamed body.
    #[cfg(test)]
    pub(crate) fn as_bytes(&self) -> Option<&[u8]> {
        match &self.kind {
            BodyKind::Full(bytes) => Some(bytes),
            BodyKind::Document(_) | BodyKind::Channel(_) => None,
        }
    }

    pub(crate) fn document(text: DocumentText) -> Self {
        match text {
            DocumentText::InMemory(bytes) => Self::full(bytes),
            DocumentText::Streamed(pieces) => BodyKind::Document(pieces).into(),
        }
    }
}

impl From<BodyKind> for Body {
    fn from(kind: BodyKind) -> Self {
        Self {
            kind,
            failure: None,
        }
    }
}

impl BodyKind {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Document(pieces) => {
                let piece = ready!(pieces.poll_next(context));
                Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
            }
            Self::Channel(frames) => frames.poll_recv(context),
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
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(self.kind.poll_frame(context));
        if let Some(Err(error)) = frame {
            // When a body fails, hyper closes the connection, and discards what it has not sent.
            // Without this pause, a client whose response fails at once would get nothing, not even
            // the head, and could not distinguish a failed response from a lost one.
            self.failure = Some(error);
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Full(bytes) => bytes.is_empty(),
            BodyKind::Document(pieces) => pieces.remaining() == 0,
            BodyKind::Channel(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            BodyKind::Document(pieces) => SizeHint::with_exact(pieces.remaining()),
            BodyKind::Channel(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct CountingWaker(AtomicUsize);

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn failure_of_a_body_waits_until_earlier_bytes_can_be_sent() {
        let (frames, receiver) = mpsc::channel(2);
        let data = Frame::data(Bytes::from_static(b"sent"));
        frames.try_send(Ok(data)).unwrap();
        frames.try_send(Err(io::Error::other("failed"))).unwrap();
        let mut body = Body::channel(receiver);
        let counter = Arc::new(CountingWaker::default());
        let waker = Waker::from(Arc::clone(&counter));
        let mut poll = || Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker));
        assert!(matches!(poll(), Poll::Ready(Some(Ok(_)))));
        assert!(poll().is_pending());
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        let Poll::Ready(Some(Err(error))) = poll() else {
            panic!("expected the error");
        };
        assert_eq!(error.to_string(), "failed");
    }
}
