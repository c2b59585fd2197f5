//! Backup, export, import and erasure on a running server.

use std::io::{self, BufReader, ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, TRAILER};
use hyper::http::request::Parts;
use hyper::{Response, Version};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use crate::http::{ApiError, ApiResult, Body, BodyReader, BodyWriter, Code, RequestBody};
use crate::store::{Erased, Error, Name, Store};
use crate::transfer::{self, ImportError, LineFault, READ_BYTES, archive};

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
pub(crate) const TAR: HeaderValue = HeaderValue::from_static("application/x-tar");
/// A header of the response to a backup request. The value is the total size of the files in the
/// backup, in bytes, so that the client can show the progress.
pub(crate) const TOTAL_BYTES: HeaderName = HeaderName::from_static("prefd-total-bytes");
/// A trailer that is sent only if an export is incomplete. The value is percent-encoded text. The
/// first line states how much is missing. Each further line describes an unreadable place.
pub(crate) const UNSAVED: HeaderName = HeaderName::from_static("prefd-unsaved");
/// A trailer that is sent only if the response failed and the client has announced that it checks
/// this trailer. The value is the percent-encoded cause of the failure.
pub(crate) const FAILED: HeaderName = HeaderName::from_static("prefd-failed");
/// A request header of a client that checks the `prefd-failed` trailer. A client that does not
/// check this trailer could mistake the part of a response for a complete response.
pub(crate) const CHECKS_FAILED: HeaderName = HeaderName::from_static("prefd-checks-failed");
/// The names of all trailers.
const TRAILERS: HeaderValue = HeaderValue::from_static("prefd-unsaved, prefd-failed");
/// Maximum number of unreadable places that the trailer and the log describe.
const MAX_PLACES: usize = 10;
/// Maximum length of the value of the trailer, in bytes. An HTTP client may limit the length of all
/// trailers together (hyper: 16 KiB).
const MAX_TRAILER_BYTES: usize = 12 * 1024;
/// The characters that are percent-encoded in the value of the `prefd-unsaved` trailer.
const TRAILER_ESCAPES: &AsciiSet = &CONTROLS.add(b'%');
/// Maximum time that a backup waits for an earlier backup to end.
const BACKUP_WAIT: Duration = Duration::from_secs(30);
/// Maximum number of received chunks of an import that are queued for parsing.
const MAX_QUEUED_CHUNKS: usize = 4;
/// Maximum time to wait for the next chunk of an import.
const IMPORT_CHUNK_TIMEOUT: Duration = Duration::from_secs(60);
/// The query string of an import request that must not replace existing documents.
const KEEP_EXISTING: &str = "keep-existing";

/// The store operations of the admin listener.
pub(crate) struct AdminStore {
    store: Store,
    /// Permits one backup at a time. While a snapshot exists, its files stay on the disk, even if
    /// compaction has made them obsolete.
    backup_permit: Arc<Semaphore>,
}

impl AdminStore {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            backup_permit: Arc::new(Semaphore::new(1)),
        }
    }

    /// Streams a backup: a tar archive of a snapshot of the store.
    pub(super) async fn backup(&self, trailers: AcceptedTrailers) -> ApiResult {
        // The new backup waits for the permit, because an earlier backup can hold the permit for a
        // short time after its client has disconnected.
        let permit = Arc::clone(&self.backup_permit).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(BACKUP_WAIT, permit).await else {
            let detail = "Another backup is running. Try again after that backup has ended.";
            return Err(ApiError::new(Code::Overloaded, detail));
        };
        let snapshot = self.store.snapshot().await?;
        let total = snapshot.bytes();
        let damaged = snapshot.damaged_frames();
        if damaged > 0 {
            tracing::warn!(damaged_frames = damaged, "backup contains damaged frames");
        }
        let (writer, chunks) = BodyWriter::new();
        self.store.spawn_blocking(move |_| {
            let _permit = permit;
            let outcome = writer.write_with_trailers(
                |out| {
                    let contents = archive::write(&snapshot, out, &mut |_| {})?;
                    for place in &contents.unreadable {
                        tracing::error!(%place, "backup lacks data that could not be read");
                    }
                    Ok::<_, archive::ArchiveError>(HeaderMap::new())
                },
                |error| trailers.failed(&error.to_string()),
            );
            match outcome {
                Ok(()) => tracing::info!(bytes = total, "backup completed"),
                Err(error) => tracing::error!(%error, "backup failed"),
            }
        });
        let mut response = Response::new(Body::channel(chunks));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, TAR);
        headers.insert(TOTAL_BYTES, total.into());
        headers.insert(TRAILER, TRAILERS);
        Ok(response)
    }

    /// Streams the documents of one user, or of all users, as JSON Lines. If documents cannot be
    /// read, a trailer describes them. A client that does not accept trailers could mistake such an
    /// export for a complete one, so the response to this client ends with an error instead.
    pub(super) fn export(&self, user: Option<Name>, accepted: AcceptedTrailers) -> Response<Body> {
        let (writer, chunks) = BodyWriter::new();
        self.store.spawn_blocking(move |store| {
            let user = user.as_deref();
            let write = |out: &mut dyn Write| {
                let unreadable = transfer::export_lines(store, user, MAX_PLACES, out)?;
                let mut trailers = HeaderMap::new();
                if !unreadable.is_empty() {
                    let (missing, places) = (unreadable.summary(), unreadable.places());
                    tracing::error!(missing, ?places, "export is incomplete");
                    if !accepted.any {
                        out.flush()?;
                        return Err(io::Error::other("the client does not accept trailers").into());
                    }
                    trailers.insert(UNSAVED, unsaved(&missing, places));
                }
                Ok::<_, transfer::ExportError>(trailers)
            };
            let outcome =
                writer.write_with_trailers(write, |error| accepted.failed(&error.to_string()));
            if let Err(error) = outcome {
                tracing::error!(%error, "export failed");
            }
        });
        let mut response = Response::new(Body::channel(chunks));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, NDJSON);
        headers.insert(TRAILER, TRAILERS);
        response
    }

    /// Imports the documents in the request body, which contains one document per line.
    pub(super) async fn import(&self, query: Option<&str>, body: &mut RequestBody) -> ApiResult {
        let keep_existing = match query {
            None => false,
            Some(KEEP_EXISTING) => true,
            Some(_) => {
                let detail = "The only supported query is keep-existing.";
                return Err(ApiError::new(Code::InvalidRequest, detail));
            }
        };
        let (sender, chunks) = mpsc::channel(MAX_QUEUED_CHUNKS);
        let import = self.store.spawn_blocking(move |store| {
            let mut lines = BufReader::with_capacity(READ_BYTES, BodyReader::new(chunks));
            transfer::import_lines(store, keep_existing, &mut lines)
        });
        let is_incomplete = loop {
            let frame = tokio::select! {
                frame = tokio::time::timeout(IMPORT_CHUNK_TIMEOUT, body.frame()) => frame,
                // The import has closed the channel, for example because a line was rejected.
                () = sender.closed() => break false,
            };
            let chunk = match frame {
                Ok(None) => break false,
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(chunk) => Ok(chunk),
                    Err(_) => continue,
                },
                // An error is passed to the import, so that the import does not treat the truncated
                // body as complete.
                Ok(Some(Err(_))) | Err(_) => Err(ErrorKind::UnexpectedEof.into()),
            };
            let is_failed = chunk.is_err();
            if sender.send(chunk).await.is_err() || is_failed {
                break is_failed;
            }
        };
        drop(sender);
        let outcome = import
            .await
            .map_err(|_| ApiError::internal("the import panicked"))?;
        match outcome {
            Ok((documents, kept)) => Ok(json_response(
                &json!({"documents": documents, "kept": kept}),
            )),
            Err(_) if is_incomplete => {
                let detail = "The request body is incomplete. All documents before the incomplete line are imported.";
                Err(ApiError::new(Code::InvalidRequest, detail))
            }
            Err(error) => {
                let detail = format!(
                    "The import stopped at {error}. All documents before this line are imported."
                );
                Err(match error {
                    // A store error determines the HTTP status. The exception is an invalid name,
                    // which is an error in the request.
                    ImportError {
                        source: LineFault::Rejected(error),
                        ..
                    } if !matches!(error, Error::InvalidName { .. }) => {
                        Box::<ApiError>::from(error).with_detail(detail)
                    }
                    _ => ApiError::new(Code::InvalidRequest, detail),
                })
            }
        }
    }

    /// Erases all data of a user. The response reports data that could not be erased.
    pub(super) async fn erase(&self, user: Name) -> ApiResult {
        let erased = self.store.erase(user).await?;
        let (complete, documents) = (erased.is_complete(), erased.documents);
        tracing::info!(complete, documents, "erasure ended");
        Ok(json_response(&erased_json(&erased)))
    }
}

/// The trailers that a client accepts.
#[derive(Debug, Clone, Copy)]
pub(super) struct AcceptedTrailers {
    /// The client accepts trailers.
    any: bool,
    /// The client checks whether a response has the trailer [`FAILED`].
    checks_failed: bool,
}

impl AcceptedTrailers {
    /// Reads the head of a request for a streamed response (RFC 9110 section 10.1.4).
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] for a request in HTTP/1.0. A response in HTTP/1.0 has neither trailers
    /// nor chunks, so its recipient could not notice that it is incomplete.
    pub(super) fn of(parts: &Parts) -> Result<Self, Box<ApiError>> {
        if parts.version < Version::HTTP_11 {
            let detail = "Backups and exports need HTTP/1.1, because a client cannot detect an \
                          incomplete response in HTTP/1.0. If the request comes from a proxy, \
                          configure it to use HTTP/1.1 (nginx: proxy_http_version 1.1).";
            return Err(ApiError::new(Code::InvalidRequest, detail));
        }
        let headers = &parts.headers;
        let codings = headers.get_all(TE).iter();
        let codings = codings.filter_map(|codings| codings.to_str().ok());
        let any = codings
            .flat_map(|codings| codings.split(','))
            .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
        Ok(Self {
            any,
            checks_failed: any && headers.contains_key(CHECKS_FAILED),
        })
    }

    /// Returns the trailers of a response that has failed. Returns `None` if the client would not
    /// notice them.
    fn failed(self, cause: &str) -> Option<HeaderMap> {
        if !self.checks_failed {
            return None;
        }
        let value = percent_encode(cause.as_bytes(), TRAILER_ESCAPES).to_string();
        let value = HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("?"));
        Some(HeaderMap::from_iter([(FAILED, value)]))
    }
}

/// Returns the value of the `prefd-unsaved` trailer.
fn unsaved(summary: &str, places: &[String]) -> HeaderValue {
    let encode = |text: &str| percent_encode(text.as_bytes(), TRAILER_ESCAPES).to_string();
    let mut value = encode(summary);
    for place in places {
        let line = encode(&format!("\n{place}"));
        if value.len() + line.len() <= MAX_TRAILER_BYTES {
            value.push_str(&line);
        }
    }
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("?"))
}

fn json_response(value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::full(value.to_string().into()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// Formats the result of an erasure as JSON.
pub(crate) fn erased_json(erased: &Erased) -> Value {
    let unreadable: Vec<_> = erased.unreadable.iter().map(|d| &d.path).collect();
    let reasons: Vec<_> = erased.unreadable.iter().map(|d| &d.what).collect();
    json!({
        "complete": erased.is_complete(),
        "documents": erased.documents,
        "segments": erased.segments,
        "held_by_snapshots": erased.held_by_snapshots,
        "unreadable": unreadable,
        "unreadable_reasons": reasons,
        "deletes_kept": erased.deletes_kept,
    })
}
