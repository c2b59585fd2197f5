//! The writer for the body of a PUT request. A document that fits into `inline_bytes` stays in
//! memory and is validated on the async worker. The rest of a larger document is validated and
//! written to a file on blocking threads.

use std::pin::Pin;

use bytes::Bytes;
use prefd_engine::{Config, Engine, Error, Prepared};

use crate::store::blocking::blocking;

/// Number of bytes of a large document that are collected before a blocking thread writes them.
/// This number is large enough that the cost of starting a task does not matter.
const BUFFER_BYTES: usize = 256 * 1024;
/// Consecutive chunks shorter than this are copied into one buffer. Without the copy, a client that
/// sends short chunks could use much memory, because each chunk keeps alive the complete network
/// buffer that contains it.
const MIN_SHARED_BYTES: usize = 16 * 1024;

/// Receives one document in chunks, and validates it.
pub(crate) struct DocumentWriter<'a> {
    engine: &'a Engine,
    writer: prefd_engine::Writer,
    buffer: ChunkBuffer,
}

impl<'a> DocumentWriter<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            writer: engine.writer(),
            buffer: ChunkBuffer::default(),
        }
    }

    /// Approximate maximum memory that a writer uses, in bytes.
    pub(crate) fn max_bytes() -> u64 {
        u64::from(Config::new("").inline_bytes) + BUFFER_BYTES as u64
    }

    /// Adds the next chunk. A violation in this chunk may be reported only by a later call. If the
    /// document has several violations, the first violation in the document is reported.
    pub(crate) async fn write(mut self, chunk: Bytes) -> Result<Self, Error> {
        if self.stays_in_memory(chunk.len()) {
            self.writer.write(&chunk)?;
            return Ok(self);
        }
        self.buffer.push(chunk);
        if self.buffer.bytes < BUFFER_BYTES {
            return Ok(self);
        }
        Ok(Self {
            engine: self.engine,
            writer: self.on_disk(Ok).await?,
            buffer: ChunkBuffer::default(),
        })
    }

    /// Completes the validation, and returns the document.
    pub(crate) async fn finish(self) -> Result<Prepared, Error> {
        if self.stays_in_memory(0) {
            return self.writer.finish();
        }
        self.on_disk(prefd_engine::Writer::finish).await
    }

    /// Adds the last chunk, and completes the validation. A small document that arrives as one
    /// chunk is validated without a copy.
    pub(crate) async fn finish_with(mut self, chunk: Bytes) -> Result<Prepared, Error> {
        if self.stays_in_memory(chunk.len()) {
            if self.writer.is_empty() {
                return self.engine.prepare(&chunk);
            }
            self.writer.write(&chunk)?;
            return self.writer.finish();
        }
        self.buffer.push(chunk);
        self.on_disk(prefd_engine::Writer::finish).await
    }

    /// Drops an incomplete document. Returns an error if the buffered bytes contain a violation.
    pub(crate) async fn abandon(self) -> Result<(), Error> {
        if self.stays_in_memory(0) {
            return Ok(());
        }
        // The writer is dropped on the blocking thread, because the drop removes a file.
        self.on_disk(|_| Ok(())).await
    }

    /// Writes the buffer on a blocking thread, and then calls `then` on the same thread. The future
    /// is boxed, so that it does not enlarge the futures of requests that need no disk access.
    fn on_disk<T, F>(self, then: F) -> Pin<Box<impl Future<Output = Result<T, Error>> + use<T, F>>>
    where
        T: Send + 'static,
        F: FnOnce(prefd_engine::Writer) -> Result<T, Error> + Send + 'static,
    {
        let (mut writer, buffer) = (self.writer, self.buffer);
        Box::pin(blocking(move || {
            buffer.write_to(&mut writer)?;
            then(writer)
        }))
    }

    fn stays_in_memory(&self, more: usize) -> bool {
        self.buffer.is_empty() && self.writer.stays_in_memory(more)
    }
}

/// Chunks that are written by one task.
#[derive(Default)]
struct ChunkBuffer {
    chunks: Vec<Bytes>,
    /// Copies of the short chunks that follow `chunks` in the document.
    short: Vec<u8>,
    bytes: usize,
}

impl ChunkBuffer {
    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        if chunk.len() < MIN_SHARED_BYTES {
            self.short.extend_from_slice(&chunk);
            return;
        }
        if !self.short.is_empty() {
            self.chunks.push(std::mem::take(&mut self.short).into());
        }
        self.chunks.push(chunk);
    }

    fn write_to(&self, writer: &mut prefd_engine::Writer) -> Result<(), Error> {
        let chunks = self.chunks.iter().map(|chunk| &**chunk);
        let mut chunks = chunks.chain([self.short.as_slice()]);
        chunks.try_for_each(|chunk| writer.write(chunk))
    }
}

#[cfg(test)]
mod tests {
    use prefd_engine::WriteOptions;

    use super::*;

    #[test]
    fn short_chunks_are_merged_and_no_byte_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(Config::new(dir.path())).unwrap();
        let body = format!("{{\"a\":\"{}\"}}", "xyz".repeat(50_000));
        let mut rest = Bytes::from(body.clone());
        let mut buffer = ChunkBuffer::default();
        for index in 0.. {
            let long = index % 1000 == 999;
            let bytes = if long { MIN_SHARED_BYTES } else { 1 };
            if rest.is_empty() {
                break;
            }
            buffer.push(rest.split_to(bytes.min(rest.len())));
        }
        assert_eq!(buffer.bytes, body.len());
        assert!(buffer.chunks.len() < 30, "{}", buffer.chunks.len());
        let mut writer = engine.writer();
        buffer.write_to(&mut writer).unwrap();
        let namespace = engine.namespace("u", "c").unwrap();
        let document = writer.finish().unwrap();
        let options = WriteOptions::default();
        namespace.write(document, options).unwrap();
        let found = namespace.get().unwrap().unwrap().read().unwrap();
        assert!(found == body.as_bytes(), "the document was changed");
    }
}
