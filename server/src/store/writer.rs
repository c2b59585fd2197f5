//! A document on its way in, chunk by chunk. What stays in memory is checked at once,
//! since that takes microseconds; the rest goes to a file, on blocking threads.

use std::pin::Pin;

use bytes::Bytes;
use prefd_engine::{Config, Engine, Error, Prepared};

use crate::store::blocking::blocking;

/// Chunks of a document that goes to a file are gathered up to this, so that handing
/// them to a blocking thread is not what takes the time.
const GATHER_BYTES: usize = 256 * 1024;
/// Shorter chunks are copied together: each could keep the whole buffer alive that it was read
/// into, and a client decides how short they are.
const COPIED_BYTES: usize = 16 * 1024;

/// Takes in one document, and checks it on the way.
pub(crate) struct Writer<'a> {
    engine: &'a Engine,
    checked: prefd_engine::Writer,
    gathered: Gathered,
}

impl<'a> Writer<'a> {
    pub(super) fn new(engine: &'a Engine) -> Self {
        Self {
            engine,
            checked: engine.writer(),
            gathered: Gathered::default(),
        }
    }

    /// Memory that one takes at most.
    pub(crate) fn max_bytes() -> u64 {
        u64::from(Config::new("").inline_bytes) + GATHER_BYTES as u64
    }

    /// Takes the next chunk. The first violation in the order of the bytes is an error,
    /// though not necessarily at once.
    pub(crate) async fn write(mut self, chunk: Bytes) -> Result<Self, Error> {
        if self.stays_in_memory(chunk.len()) {
            self.checked.write(&chunk)?;
            return Ok(self);
        }
        self.gathered.push(chunk);
        if self.gathered.bytes < GATHER_BYTES {
            return Ok(self);
        }
        Ok(Self {
            engine: self.engine,
            checked: self.on_disk(Ok).await?,
            gathered: Gathered::default(),
        })
    }

    /// Checks the end of a document.
    pub(crate) async fn finish(self) -> Result<Prepared, Error> {
        if self.stays_in_memory(0) {
            return self.checked.finish();
        }
        self.on_disk(prefd_engine::Writer::finish).await
    }

    /// Takes the last chunk, and checks the end. A document of one chunk is taken in the
    /// short way.
    pub(crate) async fn finish_with(mut self, chunk: Bytes) -> Result<Prepared, Error> {
        if self.stays_in_memory(chunk.len()) {
            if self.checked.is_empty() {
                return self.engine.prepare(&chunk);
            }
            self.checked.write(&chunk)?;
            return self.checked.finish();
        }
        self.gathered.push(chunk);
        self.on_disk(prefd_engine::Writer::finish).await
    }

    /// Gives up a document that broke off, and says what is wrong with the bytes so far.
    pub(crate) async fn abandon(self) -> Result<(), Error> {
        if self.stays_in_memory(0) {
            return Ok(());
        }
        // It is dropped on that thread, since what it has written of a file is removed.
        self.on_disk(|_| Ok(())).await
    }

    /// Writes what is gathered on a blocking thread, and hands the writer to `then` there.
    /// Boxed, since memory is allocated for each request and most need no disk.
    fn on_disk<T, F>(self, then: F) -> Pin<Box<impl Future<Output = Result<T, Error>> + use<T, F>>>
    where
        T: Send + 'static,
        F: FnOnce(prefd_engine::Writer) -> Result<T, Error> + Send + 'static,
    {
        let (mut writer, gathered) = (self.checked, self.gathered);
        Box::pin(blocking(move || {
            gathered.write_to(&mut writer)?;
            then(writer)
        }))
    }

    fn stays_in_memory(&self, more: usize) -> bool {
        self.gathered.is_empty() && self.checked.stays_in_memory(more)
    }
}

/// Chunks that are written together.
#[derive(Default)]
struct Gathered {
    chunks: Vec<Bytes>,
    /// Short ones behind these.
    short: Vec<u8>,
    bytes: usize,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        if chunk.len() < COPIED_BYTES {
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
    fn short_chunks_are_gathered_in_one_and_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(Config::new(dir.path())).unwrap();
        let body = format!("{{\"a\":\"{}\"}}", "xyz".repeat(50_000));
        let mut rest = Bytes::from(body.clone());
        let mut gathered = Gathered::default();
        for index in 0.. {
            let long = index % 1000 == 999;
            let bytes = if long { COPIED_BYTES } else { 1 };
            if rest.is_empty() {
                break;
            }
            gathered.push(rest.split_to(bytes.min(rest.len())));
        }
        assert_eq!(gathered.bytes, body.len());
        assert!(gathered.chunks.len() < 30, "{}", gathered.chunks.len());
        let mut writer = engine.writer();
        gathered.write_to(&mut writer).unwrap();
        let namespace = engine.namespace("u", "c").unwrap();
        let document = writer.finish().unwrap();
        let options = WriteOptions::default();
        namespace.write(document, options).unwrap();
        let found = namespace.get().unwrap().unwrap().read().unwrap();
        assert!(found == body.as_bytes(), "it was changed");
    }
}
