//! A document on its way in: from the connection, chunk by chunk, to the engine's
//! writer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use prefd_engine::{Engine, Prepared, Writer};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::http::{Budget, Code, Refusal};
use crate::net::BUFFER_BYTES;
use crate::store::blocking;

/// Chunks of a document that goes to a file are gathered up to this, so that handing
/// them to a blocking thread is not what takes the time.
const GATHER_BYTES: usize = 256 * 1024;
/// Shorter chunks are copied together: each could keep the whole buffer alive that it was read
/// into, and a client decides how short they are.
const COPIED_BYTES: usize = 16 * 1024;
/// What an upload may bring before it takes room in the budget. So one that brings next
/// to nothing keeps no others from it, and most documents need none.
pub(crate) const FREE_BYTES: usize = 16 * 1024;
/// What counts as going on: a client that sends less keeps others from the memory.
const PROGRESS_BYTES: usize = 16 * 1024;
/// What one upload takes beside its document at most.
pub(crate) const BUFFERS_BYTES: u64 = (GATHER_BYTES + 2 * BUFFER_BYTES) as u64;

/// A document that was received, and its room in the budget.
pub(crate) struct Received {
    pub(crate) document: Prepared,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// Receives a document. `idle`: how long the client may send nothing.
///
/// Reading the body is what asks for it, where the client waits for that.
pub(crate) async fn receive(
    engine: &Engine,
    body: &mut Incoming,
    idle: Duration,
    budget: &Budget,
) -> Result<Received, Box<Refusal>> {
    let length = body.size_hint().exact();
    let mut room = None;
    let mut bytes = 0;
    let mut writer = engine.writer();
    let mut gathered = Gathered::default();
    let mut waits_since = Instant::now();
    let mut moved_bytes = 0;
    while !body.is_end_stream() {
        let next = tokio::select! {
            biased;
            next = timeout(idle, body.frame()) => next.map_err(|_| Stalled::TooLong),
            // One that has no room cannot give any.
            () = budget.is_wanted_from(waits_since), if room.is_some() => {
                Err(Stalled::WhileOthersWait)
            }
        };
        let frame = match next {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            cut => {
                // What is wrong with the bytes before comes first.
                write(writer, gathered).await?;
                return Err(cut_short(cut));
            }
        };
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        bytes += chunk.len();
        if bytes > FREE_BYTES && room.is_none() {
            room = Some(budget.take(length).await?);
        }
        moved_bytes += chunk.len();
        if moved_bytes >= PROGRESS_BYTES {
            (waits_since, moved_bytes) = (Instant::now(), 0);
        }
        if gathered.is_empty() && writer.stays_in_memory(chunk.len()) {
            if writer.is_empty() && body.is_end_stream() {
                let document = engine.prepare(&chunk)?;
                return Ok(Received { document, room });
            }
            writer.write(&chunk)?;
            continue;
        }
        gathered.push(chunk);
        if gathered.bytes >= GATHER_BYTES {
            writer = write(writer, std::mem::take(&mut gathered)).await?;
        }
    }
    if gathered.is_empty() && writer.stays_in_memory(0) {
        let document = writer.finish()?;
        return Ok(Received { document, room });
    }
    let finish = move || {
        let mut writer = writer;
        gathered.write_to(&mut writer)?;
        writer.finish()
    };
    let document = blocking(finish).await?;
    Ok(Received { document, room })
}

/// How a body stalled.
enum Stalled {
    TooLong,
    WhileOthersWait,
}

/// Why a body that does not go on is refused.
fn cut_short<T>(next: Result<Option<hyper::Result<T>>, Stalled>) -> Box<Refusal> {
    let detail = match next {
        Err(Stalled::TooLong) => "The body did not go on in time.",
        Err(Stalled::WhileOthersWait) => "The body came too slowly while others waited.",
        Ok(cut) => {
            if let Some(Err(error)) = cut {
                tracing::debug!(%error, "a body broke off");
            }
            return Refusal::new(
                Code::InvalidRequest,
                "The body is not framed correctly, or it broke off.",
            );
        }
    };
    Refusal::new(Code::RequestTimeout, detail)
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

    fn write_to(&self, writer: &mut Writer) -> prefd_engine::Result<()> {
        let chunks = self.chunks.iter().map(|chunk| &**chunk);
        let mut chunks = chunks.chain([self.short.as_slice()]);
        chunks.try_for_each(|chunk| writer.write(chunk))
    }
}

async fn write(writer: Writer, gathered: Gathered) -> Result<Writer, Box<Refusal>> {
    let write = move || {
        let mut writer = writer;
        gathered.write_to(&mut writer)?;
        Ok::<_, prefd_engine::Error>(writer)
    };
    Ok(blocking(write).await?)
}

#[cfg(test)]
mod tests {
    use prefd_engine::Config;

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
        let options = prefd_engine::WriteOptions::default();
        namespace.put_prepared(document, options).unwrap();
        let found = namespace.get().unwrap().unwrap().read().unwrap();
        assert!(found == body.as_bytes(), "it was changed");
    }
}
