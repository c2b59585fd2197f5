//! Request bodies in chunks. Large bodies are never in memory as a whole.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// Size of the chunks of a large value, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// A body in chunks. Several bodies can share the memory of a chunk.
#[derive(Clone, Default)]
pub(super) struct ChunkedBody {
    chunks: VecDeque<Bytes>,
    /// Total size of the remaining chunks.
    bytes: u64,
}

impl ChunkedBody {
    fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len() as u64;
        self.chunks.push_back(chunk);
    }

    /// A body with a single chunk.
    pub(super) fn from_bytes(bytes: Bytes) -> Self {
        let mut body = Self::default();
        body.push(bytes);
        body
    }
}

impl Body for ChunkedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = self.chunks.pop_front();
        self.bytes -= chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}

/// A JSON document with long values. All values share the memory of one chunk.
pub(super) struct LargeDocument(ChunkedBody);

impl LargeDocument {
    /// A document with this number of keys, and values of this size in JSON.
    pub(super) fn new(keys: usize, value_bytes: usize) -> Self {
        let chunk = Bytes::from(vec![b'x'; CHUNK_BYTES]);
        let mut body = ChunkedBody::default();
        for key in 0..keys {
            let opening = if key == 0 { "{" } else { "\"," };
            body.push(format!("{opening}\"key-{key}\":\"").into());
            // The size of a value includes its two quotes.
            let mut remaining = value_bytes - 2;
            while remaining > 0 {
                let length = remaining.min(CHUNK_BYTES);
                body.push(chunk.slice(..length));
                remaining -= length;
            }
        }
        body.push(Bytes::from_static(b"\"}"));
        Self(body)
    }

    /// Size of the document, in bytes.
    pub(super) fn len(&self) -> usize {
        self.0.bytes as usize
    }

    /// The document as a request body.
    pub(super) fn body(&self) -> ChunkedBody {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_document_is_json_with_the_given_lengths() {
        let large = LargeDocument::new(3, 2 * CHUNK_BYTES + 7);
        let whole: Vec<u8> = large.0.chunks.iter().flatten().copied().collect();
        assert_eq!(whole.len(), large.len());
        let document: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        let values = document.as_object().unwrap();
        assert_eq!(values.len(), 3);
        assert!(
            values
                .values()
                .all(|v| v.to_string().len() == 2 * CHUNK_BYTES + 7)
        );
    }
}
