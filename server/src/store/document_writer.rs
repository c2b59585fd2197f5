//! The writer for the body of a PUT request. A small document stays in memory and is validated on
//! the async worker. The rest of a larger document is validated on blocking threads, which also
//! write it to a file if it does not fit into `inline_bytes`.

use std::pin::Pin;

use bytes::Bytes;
use prefd_engine::{Engine, Error, Prepared};

use crate::store::blocking::blocking;

/// Number of bytes of a large document that are collected before a blocking thread writes them.
/// This number is large enough that the cost of starting a task does not matter.
const BUFFER_BYTES: usize = 256 * 1024;
/// Consecutive chunks shorter than this are copied into one buffer. Without the copy, a client that
/// sends short chunks could use much memory, because each chunk keeps alive the complete network
/// buffer that contains it.
const MIN_SHARED_BYTES: usize = 16 * 1024;

/// Maximum number of bytes of a document that are validated on the async worker. The validation of
/// so few bytes lasts less than about a millisecond, even if they are not valid JSON. While a
/// worker validates, its other connections wait.
const MAX_WORKER_BYTES: usize = 32 * 1024;
/// [`MAX_WORKER_BYTES`] if a document may have more than [`FEW_KEYS`] keys. Each key costs about as
/// much time as 100 bytes of a value.
const MAX_WORKER_BYTES_OF_MANY_KEYS: usize = 8 * 1024;
/// A document with so few keys can be validated on the async worker, however short the keys are.
const FEW_KEYS: u32 = 1024;

/// Receives one document in chunks, and validates it.
pub(crate) struct DocumentWriter<'a> {
    engine: &'a Engine,
    writer: prefd_engine::Writer,
    /// Number of bytes that `writer` has received.
    written: usize,
    buffer: ChunkBuffer,
}

impl<'a> DocumentWriter<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            writer: engine.writer(),
            written: 0,
            buffer: ChunkBuffer::default(),
        }
    }

    /// Approximate maximum memory that a writer uses for a document of `length` bytes, in bytes.
    pub(super) fn max_bytes(engine: &Engine, length: u64) -> u64 {
        engine.writer_bytes(length) + length.min(BUFFER_BYTES as u64)
    }

    /// Adds the next chunk. A violation in this chunk may be reported only by a later call. If the
    /// document has several violations, the first violation in the document is reported.
    pub(crate) async fn write(mut self, chunk: Bytes) -> Result<Self, Error> {
        if self.stays_on_worker(chunk.len()) {
            self.writer.write(&chunk)?;
            self.written += chunk.len();
            return Ok(self);
        }
        self.buffer.push(chunk);
        if self.buffer.bytes < BUFFER_BYTES {
            return Ok(self);
        }
        Ok(Self {
            engine: self.engine,
            written: self.written + self.buffer.bytes,
            writer: self.on_blocking_thread(Ok).await?,
            buffer: ChunkBuffer::default(),
        })
    }

    /// Completes the validation, and returns the document.
    pub(crate) async fn finish(self) -> Result<Prepared, Error> {
        if self.stays_on_worker(0) {
            return self.writer.finish();
        }
        self.on_blocking_thread(prefd_engine::Writer::finish).await
    }

    /// Adds the last chunk, and completes the validation. A small document that arrives as one
    /// chunk is validated without a copy.
    pub(crate) async fn finish_with(mut self, chunk: Bytes) -> Result<Prepared, Error> {
        if self.stays_on_worker(chunk.len()) {
            if self.writer.is_empty() {
                return self.engine.prepare(&chunk);
            }
            self.writer.write(&chunk)?;
            return self.writer.finish();
        }
        self.buffer.push(chunk);
        self.on_blocking_thread(prefd_engine::Writer::finish).await
    }

    /// Drops an incomplete document. Returns an error if the buffered bytes contain a violation.
    pub(crate) async fn abandon(self) -> Result<(), Error> {
        if self.stays_on_worker(0) {
            return Ok(());
        }
        // The writer is dropped on the blocking thread, because the drop closes a file.
        self.on_blocking_thread(|_| Ok(())).await
    }

    /// Writes the buffer on a blocking thread, and then calls `then` on the same thread. The future
    /// is boxed, so that it does not enlarge the futures of small requests.
    fn on_blocking_thread<T, F>(
        self,
        then: F,
    ) -> Pin<Box<impl Future<Output = Result<T, Error>> + use<T, F>>>
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

    /// Returns true if `more` further bytes can be validated on the async worker: they need no disk
    /// access, and the document is small.
    fn stays_on_worker(&self, more: usize) -> bool {
        let max_bytes = if self.engine.limits().max_keys > FEW_KEYS {
            MAX_WORKER_BYTES_OF_MANY_KEYS
        } else {
            MAX_WORKER_BYTES
        };
        self.written + more <= max_bytes
            && self.buffer.is_empty()
            && self.writer.stays_in_memory(more)
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
    use std::pin::pin;
    use std::task::{Context, Waker};

    use prefd_engine::{Config, Limits, WriteOptions};

    use super::*;

    /// Returns true if a document of `bytes` bytes is validated on the async worker. The document
    /// arrives in `chunks` chunks.
    fn is_validated_on_worker(limits: &Limits, bytes: usize, chunks: usize) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path());
        config.limits = limits.clone();
        let engine = Engine::open(config).unwrap();
        let body = Bytes::from(format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8)));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let _context = runtime.enter();
        // While the only blocking thread is busy, nothing can be validated on it.
        let (release, released) = std::sync::mpsc::channel::<()>();
        let _busy = runtime.spawn_blocking(move || released.recv());
        let validated = pin!(async {
            let mut writer = DocumentWriter::new(&engine);
            let mut rest = body;
            for _ in 1..chunks {
                writer = writer.write(rest.split_to(bytes / chunks)).await?;
            }
            writer.finish_with(rest).await
        });
        let outcome = validated.poll(&mut Context::from_waker(Waker::noop()));
        drop(release);
        outcome.is_ready()
    }

    #[test]
    fn only_small_documents_are_validated_on_the_worker() {
        let default = Limits::default();
        let mut many_keys = Limits::new(28_000, 128, 1024 * 1024);
        many_keys.max_body_bytes = 1024 * 1024;
        for (limits, max_bytes) in [(&default, 32 * 1024), (&many_keys, 8 * 1024)] {
            for chunks in 1..4 {
                for bytes in [1024, max_bytes] {
                    assert!(is_validated_on_worker(limits, bytes, chunks), "{bytes}");
                }
                for bytes in [max_bytes + 1, 4 * max_bytes, 512 * 1024] {
                    assert!(!is_validated_on_worker(limits, bytes, chunks), "{bytes}");
                }
            }
        }
    }

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
