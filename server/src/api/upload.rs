//! Receives the document of a PUT and passes each received chunk to the store's writer.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use crate::http::{ApiError, Budget, Code};
use crate::net::BUFFER_BYTES;
use crate::store::{Prepared, Store};

/// Number of bytes that a client can upload before the upload acquires memory from the budget.
/// Without this threshold, clients that send almost nothing could use up the budget. Most documents
/// are smaller than the threshold, so their uploads acquire no memory from the budget.
const UNBUDGETED_BYTES: usize = 16 * 1024;
/// Number of bytes that a client must send for its upload to count as making progress. If another
/// request waits for memory, an upload that has acquired memory can be ended after it has made no
/// progress for one second.
const PROGRESS_BYTES: usize = 16 * 1024;
/// Maximum memory of one upload in bytes, in addition to the memory of the store's writer.
pub(crate) const UPLOAD_BUFFERS_BYTES: u64 = 2 * BUFFER_BYTES as u64;

/// A document that was received completely and is valid.
pub(super) struct ReceivedDocument {
    pub(super) document: Prepared,
    /// The memory that the upload has acquired from the budget. Keep this permit until the document
    /// is committed.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Receives and checks a document. If the client sends nothing for `idle_timeout`, the upload
/// fails.
///
/// If the client sent `Expect: 100-continue`, hyper sends the status 100 when the body is read for
/// the first time.
///
/// # Errors
/// If the received part of the document is invalid, the error says why. If the received part is
/// valid but the body is incomplete, the error is [`Code::RequestTimeout`] or
/// [`Code::InvalidRequest`]. If the budget does not have enough free memory in time, the error is
/// [`Code::Overloaded`].
pub(super) async fn receive(
    store: &Store,
    body: &mut Incoming,
    idle_timeout: Duration,
    budget: &Budget,
) -> Result<ReceivedDocument, Box<ApiError>> {
    let length = body.size_hint().exact();
    let mut permit = None;
    let mut total_bytes = 0;
    let mut writer = store.writer();
    let mut last_progress = Instant::now();
    let mut bytes_since_progress = 0;
    while !body.is_end_stream() {
        let next = tokio::select! {
            biased;
            next = timeout(idle_timeout, body.frame()) => next.map_err(|_| Stall::IdleTimeout),
            // A lack of memory does not end an upload that has no permit, because ending this
            // upload would free no memory in the budget.
            () = budget.reclaim_requested(last_progress), if permit.is_some() => {
                Err(Stall::MemoryReclaimed)
            }
        };
        let frame = match next {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            incomplete => {
                // If the received bytes contain an error, this error takes precedence over the
                // error for the missing bytes.
                writer.abandon().await?;
                return Err(incomplete_body(incomplete));
            }
        };
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        total_bytes += chunk.len();
        if total_bytes > UNBUDGETED_BYTES && permit.is_none() {
            permit = Some(budget.acquire(length).await?);
        }
        bytes_since_progress += chunk.len();
        if bytes_since_progress >= PROGRESS_BYTES {
            (last_progress, bytes_since_progress) = (Instant::now(), 0);
        }
        if body.is_end_stream() {
            let document = writer.finish_with(chunk).await?;
            return Ok(ReceivedDocument { document, permit });
        }
        writer = writer.write(chunk).await?;
    }
    let document = writer.finish().await?;
    Ok(ReceivedDocument { document, permit })
}

/// Why an upload was ended before its body was complete.
enum Stall {
    /// The client sent nothing for the duration of the idle timeout.
    IdleTimeout,
    /// Another request needed the memory of this upload.
    MemoryReclaimed,
}

/// The error for a body that was not received completely.
fn incomplete_body<T>(next: Result<Option<hyper::Result<T>>, Stall>) -> Box<ApiError> {
    let detail = match next {
        Err(Stall::IdleTimeout) => "The upload timed out: the client sent no data for too long.",
        Err(Stall::MemoryReclaimed) => {
            "The upload was ended: the client sent data too slowly while other uploads waited for memory."
        }
        Ok(frame) => {
            if let Some(Err(error)) = frame {
                tracing::debug!(%error, "request body interrupted");
            }
            return ApiError::new(
                Code::InvalidRequest,
                "The body is incomplete or not framed correctly.",
            );
        }
    };
    ApiError::new(Code::RequestTimeout, detail)
}
