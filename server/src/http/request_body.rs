//! The body of a request, and whether its end is certain.
//!
//! The end of a chunked body is certain only if the body was read to its end and has no trailers.
//! hyper ends a line of the trailer section only at CR LF, but other HTTP implementations also end
//! it at a bare LF. After `0\r\n\n`, such an implementation in front of prefd starts a new request,
//! while hyper still reads trailers. The body of the new request would then be executed as further
//! requests (request smuggling, RFC 9112 section 11.2). hyper does not report how the lines of the
//! trailer section ended, so every body with trailers counts as uncertain.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

/// The body of a request.
pub(crate) struct RequestBody {
    incoming: Incoming,
    is_chunked: bool,
    /// True if the body was read to its end. Used only for a chunked body.
    has_ended: bool,
    has_trailers: bool,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming) -> Self {
        // The length of every other request body is known.
        let is_chunked = incoming.size_hint().exact().is_none();
        Self {
            incoming,
            is_chunked,
            has_ended: false,
            has_trailers: false,
        }
    }

    /// Whether the server and an intermediary certainly agree where the body ends. If not, the
    /// connection must be closed after the response.
    pub(super) fn is_end_certain(&self) -> bool {
        !self.is_chunked || (self.has_ended && !self.has_trailers)
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        match &frame {
            None => self.has_ended = true,
            Some(Ok(frame)) => self.has_trailers |= frame.is_trailers(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        if self.is_chunked {
            self.has_ended
        } else {
            self.incoming.is_end_stream()
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
