//! What an operator does with the store while it serves.

use std::io::{BufReader, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TRAILER};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use crate::http::{ApiError, ApiResult, Body, BodyReader, BodyWriter, Code};
use crate::store::{Erased, Error, Store};
use crate::transfer::{self, Fault, READ_BYTES, RefusedLine, archive};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const TAR: HeaderValue = HeaderValue::from_static("application/x-tar");
/// How much a backup will have in its files, for whoever shows how far it has come.
pub(crate) const TOTAL_BYTES: HeaderName = HeaderName::from_static("prefd-total-bytes");
/// The trailer of an export from which documents are missing, because they cannot be read.
/// Its value says which, percent-encoded.
pub(crate) const UNSAVED: HeaderName = HeaderName::from_static("prefd-unsaved");
/// What the value of that trailer has encoded.
const IN_TRAILER: &AsciiSet = &CONTROLS.add(b'%');
/// How long a backup waits for one that is being taken.
const BACKUP_WAIT: Duration = Duration::from_secs(30);
/// Pieces of an import that may wait to be read.
const WAITING_PIECES: usize = 4;
/// How long an import may stall.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a query says where documents that are there are to stay.
const KEEP_EXISTING: &str = "keep-existing";

pub(crate) struct StoreDesk {
    store: Store,
    /// One at a time: a snapshot keeps what is replaced from being removed.
    backups: Arc<Semaphore>,
}

impl StoreDesk {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            backups: Arc::new(Semaphore::new(1)),
        }
    }

    /// The store at one moment, as an archive.
    pub(super) async fn backup(&self) -> ApiResult {
        // One whose client has gone ends a moment later.
        let turn = Arc::clone(&self.backups).acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(BACKUP_WAIT, turn).await else {
            let detail = "Another backup is being taken.";
            return Err(ApiError::new(Code::Overloaded, detail));
        };
        let snapshot = self.store.snapshot().await?;
        let total = snapshot.bytes();
        let damaged = snapshot.damaged_frames();
        if damaged > 0 {
            tracing::warn!(damaged, "the store is damaged, and so is the backup of it");
        }
        let (pipe, pieces) = BodyWriter::new();
        self.store.spawn_bulk(move |_| {
            let _turn = turn;
            let outcome = pipe.write(|out| {
                let contents = archive::write(&snapshot, out, &mut |_| {})?;
                for place in &contents.unreadable {
                    tracing::error!(%place, "the backup lacks what the disk does not return");
                }
                Ok::<_, archive::ArchiveError>(())
            });
            match outcome {
                Ok(()) => tracing::info!(bytes = total, "a backup was taken"),
                Err(error) => tracing::error!(%error, "a backup broke off"),
            }
        });
        let mut response = Response::new(Body::channel(pieces));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, TAR);
        headers.insert(TOTAL_BYTES, total.into());
        Ok(response)
    }

    /// The documents of a user, or of everybody, as lines.
    pub(super) fn export(&self, user: Option<String>) -> Response<Body> {
        let (pipe, pieces) = BodyWriter::new();
        self.store.spawn_bulk(move |bulk| {
            let user = user.as_deref();
            let outcome = pipe.write_with_trailers(|out| {
                let unsaved = transfer::write_lines(bulk, user, out)?;
                let mut trailers = HeaderMap::new();
                if !unsaved.is_empty() {
                    tracing::error!(%unsaved, "the export is incomplete");
                    let text = unsaved.to_string();
                    let value = percent_encode(text.as_bytes(), IN_TRAILER).to_string();
                    let value = HeaderValue::try_from(value);
                    trailers.insert(UNSAVED, value.unwrap_or(HeaderValue::from_static("?")));
                }
                Ok::<_, transfer::LineError>(trailers)
            });
            if let Err(error) = outcome {
                tracing::error!(%error, "an export broke off");
            }
        });
        let mut response = Response::new(Body::channel(pieces));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, LINES);
        headers.insert(TRAILER, HeaderValue::from_static("prefd-unsaved"));
        response
    }

    /// Puts the documents of the lines that come.
    pub(super) async fn import(&self, query: Option<&str>, body: &mut Incoming) -> ApiResult {
        let keep_existing = match query {
            None => false,
            Some(KEEP_EXISTING) => true,
            Some(_) => {
                let detail = "The query can be keep-existing, and nothing else.";
                return Err(ApiError::new(Code::InvalidRequest, detail));
            }
        };
        let (sender, pieces) = mpsc::channel(WAITING_PIECES);
        let reading = self.store.spawn_bulk(move |bulk| {
            let mut lines = BufReader::with_capacity(READ_BYTES, BodyReader::new(pieces));
            transfer::read_lines(bulk, keep_existing, &mut lines)
        });
        let broken = loop {
            let frame = tokio::select! {
                frame = tokio::time::timeout(PATIENCE, body.frame()) => frame,
                // What reads has found a line that it does not take.
                () = sender.closed() => break false,
            };
            let piece = match frame {
                Ok(None) => break false,
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => Ok(piece),
                    Err(_) => continue,
                },
                // The line that breaks off is none.
                Ok(Some(Err(_))) | Err(_) => Err(ErrorKind::UnexpectedEof.into()),
            };
            let is_broken = piece.is_err();
            if sender.send(piece).await.is_err() || is_broken {
                break is_broken;
            }
        };
        drop(sender);
        let read = reading
            .await
            .map_err(|_| ApiError::internal("a panic, told above"))?;
        match read {
            Ok((documents, kept)) => Ok(told(&json!({"documents": documents, "kept": kept}))),
            Err(_) if broken => {
                let detail = "The lines break off; those before are imported.";
                Err(ApiError::new(Code::InvalidRequest, detail))
            }
            Err(error) => {
                let detail = format!("The import ended: {error}. The lines before are imported.");
                Err(match error {
                    // Not the fault of the line, or one that HTTP has a status for.
                    RefusedLine {
                        source: Fault::Refused(error),
                        ..
                    } if !matches!(error, Error::InvalidName { .. }) => {
                        Box::<ApiError>::from(error).with_detail(detail)
                    }
                    _ => ApiError::new(Code::InvalidRequest, detail),
                })
            }
        }
    }

    /// Erases a user.
    pub(super) async fn erase(&self, user: String) -> ApiResult {
        let erased = self.store.erase(user).await?;
        let (complete, documents) = (erased.is_complete(), erased.documents);
        tracing::info!(complete, documents, "a user was erased");
        Ok(told(&erased_json(&erased)))
    }
}

fn told(what: &Value) -> Response<Body> {
    let mut response = Response::new(Body::full(what.to_string().into()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// What erasing has done, for whoever asked.
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
