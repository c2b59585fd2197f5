//! A document on its way in: from the connection, chunk by chunk, to the engine's
//! writer, within a budget of memory for all uploads together.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use prefd_engine::{Engine, Prepared, Writer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;

use crate::error::{Code, Refusal};

/// Chunks of a document that goes to a file are gathered up to this, so that handing
/// them to a blocking thread is not what takes the time.
const GATHER_BYTES: usize = 256 * 1024;
/// What hyper may hold of a connection's body in its read buffer.
const CONNECTION_BUFFER_BYTES: u64 = 512 * 1024;
/// The budget is counted in these, since a semaphore counts in 32 bits.
const BUDGET_UNIT_BYTES: u64 = 1024;

/// The memory for bodies in flight.
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    all_units: u32,
    /// What one upload takes at most, however large it is.
    max_upload_bytes: u64,
    wait: Duration,
}

impl Budget {
    pub(crate) fn new(bytes: u64, inline_bytes: u64, wait: Duration) -> Self {
        let all_units = u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES))
            .unwrap_or(u32::MAX)
            .clamp(1, u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self {
            units: Arc::new(Semaphore::new(all_units as usize)),
            all_units,
            max_upload_bytes: inline_bytes + GATHER_BYTES as u64 + CONNECTION_BUFFER_BYTES,
            wait,
        }
    }

    /// Waits for the memory that a body takes; `bytes` is its length, where known.
    pub(crate) async fn take(
        &self,
        bytes: Option<u64>,
    ) -> Result<OwnedSemaphorePermit, Box<Refusal>> {
        let bytes = bytes
            .unwrap_or(self.max_upload_bytes)
            .min(self.max_upload_bytes);
        let units = u32::try_from(bytes.div_ceil(BUDGET_UNIT_BYTES))
            .unwrap_or(u32::MAX)
            .min(self.all_units);
        let permit = Arc::clone(&self.units).acquire_many_owned(units);
        match tokio::time::timeout(self.wait, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Refusal::new(
                Code::Overloaded,
                "Too many documents are being received; try again later.",
            )),
        }
    }
}

/// Receives a document. `idle`: how long the client may send nothing.
///
/// Reading the body is what asks for it, where the client waits for that.
pub(crate) async fn receive(
    engine: &Engine,
    body: &mut Incoming,
    idle: Duration,
) -> Result<Prepared, Box<Refusal>> {
    let mut writer = engine.writer();
    let mut gathered = Gathered::default();
    while !body.is_end_stream() {
        let frame = match tokio::time::timeout(idle, body.frame()).await {
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
        if gathered.chunks.is_empty() && writer.stays_in_memory(chunk.len()) {
            if writer.is_empty() && body.is_end_stream() {
                return Ok(engine.prepare(&chunk)?);
            }
            writer.write(&chunk)?;
            continue;
        }
        gathered.push(chunk);
        if gathered.bytes >= GATHER_BYTES {
            writer = write(writer, std::mem::take(&mut gathered)).await?;
        }
    }
    if gathered.chunks.is_empty() && writer.stays_in_memory(0) {
        return Ok(writer.finish()?);
    }
    let finish = move || {
        let mut writer = writer;
        gathered.write_to(&mut writer)?;
        writer.finish()
    };
    Ok(blocking(finish).await?)
}

/// Why a body that does not go on is refused.
fn cut_short<T>(next: Result<Option<hyper::Result<T>>, Elapsed>) -> Box<Refusal> {
    if next.is_err() {
        return Refusal::new(Code::RequestTimeout, "The body did not go on in time.");
    }
    if let Ok(Some(Err(error))) = next {
        tracing::debug!(%error, "a body broke off");
    }
    Refusal::new(
        Code::InvalidRequest,
        "The body is not framed correctly, or it broke off.",
    )
}

#[derive(Default)]
struct Gathered {
    chunks: Vec<Bytes>,
    bytes: usize,
}

impl Gathered {
    fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        self.chunks.push(chunk);
    }

    fn write_to(&self, writer: &mut Writer) -> prefd_engine::Result<()> {
        self.chunks.iter().try_for_each(|chunk| writer.write(chunk))
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

/// Runs what touches the disk on a blocking thread. A panic there goes on here, where
/// it is answered and logged like any other.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // A blocking task is never cancelled; only a runtime that is going away
            // does not start one, and this future goes away with it.
            Err(_) => std::future::pending().await,
        },
    }
}
