//! Receives the document of a PUT and passes each received chunk to the store's writer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::api::upload_progress::UploadProgress;
use crate::http::{ApiError, Budget, Code, Eviction, RequestBody, UploadPermit};
use crate::net::BUFFER_BYTES;
use crate::store::{Prepared, Store};

/// Number of bytes that a client can upload before the upload acquires memory from the budget.
/// Without this threshold, clients that send almost nothing could use up the budget. Most documents
/// are smaller than the threshold, so their uploads acquire no memory from the budget.
const UNBUDGETED_BYTES: u64 = 16 * 1024;
/// Maximum memory of one upload in bytes, in addition to the memory of the store's writer: the read
/// buffer of the connection, and the received chunk.
const UPLOAD_BUFFERS_BYTES: u64 = 2 * BUFFER_BYTES as u64;

/// A document that was received completely and is valid.
pub(super) struct ReceivedDocument {
    pub(super) document: Prepared,
    /// The memory and disk space that the upload has acquired from the budget. Keep this permit
    /// until the document is committed.
    pub(super) permit: Option<UploadPermit>,
}

/// The rules for uploads.
pub(crate) struct UploadRules {
    pub(crate) budget: Arc<Budget>,
    /// An upload fails if its client sends no data for this long.
    pub(crate) idle_timeout: Duration,
}

/// Receives and checks a document of `user`. If the client sends nothing for the idle timeout, the
/// upload fails.
///
/// If the client sent `Expect: 100-continue`, hyper sends the status 100 when the body is read for
/// the first time.
///
/// # Errors
/// If the received part of the document is invalid, the error says why. If the received part is
/// valid but the body is incomplete, the error is [`Code::RequestTimeout`] or
/// [`Code::InvalidRequest`]. If the budget does not have enough free memory or disk space in time,
/// the error is [`Code::Overloaded`].
pub(super) async fn receive(
    store: &Store,
    user: &str,
    body: &mut RequestBody,
    rules: &UploadRules,
) -> Result<ReceivedDocument, Box<ApiError>> {
    let mut upload = UploadReceiver::new(store, user, body.size_hint().exact(), rules);
    let mut writer = store.writer();
    while !body.is_end_stream() {
        let received = match upload.next_chunk(body).await {
            Ok(None) => break,
            Ok(Some(chunk)) => upload.admit(chunk.len()).await.map(|()| chunk),
            Err(error) => Err(error),
        };
        let chunk = match received {
            Ok(chunk) => chunk,
            Err(error) => {
                // If the received bytes contain an error, this error takes precedence.
                writer.abandon().await?;
                return Err(error);
            }
        };
        if body.is_end_stream() {
            let document = writer.finish_with(chunk).await?;
            return Ok(upload.received(document));
        }
        writer = writer.write(chunk).await?;
    }
    let document = writer.finish().await?;
    Ok(upload.received(document))
}

/// The bytes that an upload has received, and the permit for them.
struct UploadReceiver<'a> {
    store: &'a Store,
    user: &'a str,
    /// The length of the body, or `None` if it is unknown.
    length: Option<u64>,
    rules: &'a UploadRules,
    permit: Option<UploadPermit>,
    received_bytes: u64,
    /// Bytes of disk space that the permit holds.
    disk_bytes: u64,
    progress: UploadProgress,
    is_stalled: bool,
}

impl<'a> UploadReceiver<'a> {
    fn new(store: &'a Store, user: &'a str, length: Option<u64>, rules: &'a UploadRules) -> Self {
        Self {
            store,
            user,
            length,
            rules,
            permit: None,
            received_bytes: 0,
            disk_bytes: 0,
            progress: UploadProgress::new(Instant::now()),
            is_stalled: false,
        }
    }

    /// Waits for the next bytes of the body. Returns `None` at the end of the body.
    async fn next_chunk(&mut self, body: &mut RequestBody) -> Result<Option<Bytes>, Box<ApiError>> {
        let now = Instant::now();
        let stalls_at = self.progress.wait_for_chunk(now);
        let deadline = now + self.rules.idle_timeout;
        loop {
            let permit = self.permit.as_ref();
            let next = tokio::select! {
                biased;
                eviction = evicted(permit) => return Err(end(eviction)),
                next = timeout_at(deadline, body.frame()) => next,
                () = sleep_until(stalls_at), if permit.is_some() && !self.is_stalled => {
                    self.set_stalled(true);
                    continue;
                }
            };
            match next {
                Ok(Some(Ok(frame))) => {
                    if let Ok(chunk) = frame.into_data() {
                        let has_progress = self.progress.record_chunk(chunk.len(), Instant::now());
                        if has_progress && self.is_stalled {
                            self.set_stalled(false);
                        }
                        return Ok(Some(chunk));
                    }
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "request body interrupted");
                    return Err(ApiError::new(
                        Code::InvalidRequest,
                        "The body is incomplete or not framed correctly.",
                    ));
                }
                Err(_) => {
                    return Err(ApiError::new(
                        Code::RequestTimeout,
                        "The upload timed out: the client sent no data for too long.",
                    ));
                }
            }
        }
    }

    /// Acquires the memory and the disk space for the next `bytes` bytes.
    async fn admit(&mut self, bytes: usize) -> Result<(), Box<ApiError>> {
        self.received_bytes += bytes as u64;
        if self.received_bytes > UNBUDGETED_BYTES && self.permit.is_none() {
            let memory = self.store.writer_bytes(self.length) + UPLOAD_BUFFERS_BYTES;
            self.permit = Some(self.rules.budget.acquire(self.user, memory).await?);
        }
        if let Some(permit) = &self.permit
            && self.received_bytes > Store::MAX_INLINE_BYTES
        {
            let more = self.received_bytes - self.disk_bytes;
            permit.reserve_disk(more).await.map_err(end)?;
            self.disk_bytes = self.received_bytes;
        }
        Ok(())
    }

    fn set_stalled(&mut self, is_stalled: bool) {
        self.is_stalled = is_stalled;
        if let Some(permit) = &self.permit {
            permit.set_stalled(is_stalled);
        }
    }

    fn received(self, document: Prepared) -> ReceivedDocument {
        if let Some(permit) = &self.permit {
            permit.set_received();
        }
        ReceivedDocument {
            document,
            permit: self.permit,
        }
    }
}

/// Waits until an upload must end. An upload without a permit is never evicted, because its end
/// would free no memory in the budget.
async fn evicted(permit: Option<&UploadPermit>) -> Eviction {
    match permit {
        Some(permit) => permit.evicted().await,
        None => std::future::pending().await,
    }
}

/// The error for an upload that must end before its body is complete.
fn end(eviction: Eviction) -> Box<ApiError> {
    let (code, detail) = match eviction {
        Eviction::Stalled => (
            Code::RequestTimeout,
            "The upload was ended: the client sent data too slowly while other uploads waited for memory.",
        ),
        Eviction::Memory => (
            Code::RequestTimeout,
            "The upload was ended: other users' uploads waited for memory, and this user has too many uploads in progress.",
        ),
        Eviction::Disk => (
            Code::Overloaded,
            "The uploads in progress need too much disk space. Try again later.",
        ),
    };
    ApiError::new(code, detail)
}
