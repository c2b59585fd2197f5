//! Every answer that is not a success: one JSON:API error object
//! (<https://jsonapi.org/format/1.1/#error-objects>), its status and its headers.
//!
//! `code` and `title` are stable; `detail` speaks of the occurrence and never of
//! what is inside the server.

use std::borrow::Cow;

use bytes::Bytes;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};
use prefd_engine::{Position, Revision, Violation};
use serde_json::{Value, json};

use crate::download::Body;
use crate::id::RequestId;

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.api+json");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Seconds after which an overloaded or stopping server is worth another try.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// What went wrong, as clients tell errors apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    InvalidJson,
    InvalidDocument,
    DuplicateKey,
    InvalidClientId,
    InvalidRequest,
    MissingToken,
    InvalidToken,
    MissingLinkedIdentity,
    InsufficientScope,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    PreconditionFailed,
    MaxKeysExceeded,
    MaxKeyLengthExceeded,
    MaxValueLengthExceeded,
    MaxBodyLengthExceeded,
    UnsupportedMediaType,
    InternalError,
    Overloaded,
    ShuttingDown,
    InsufficientStorage,
}

impl Code {
    /// Status, code and title.
    fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidJson => (S::BAD_REQUEST, "invalid-json", "Invalid JSON"),
            Self::InvalidDocument => (
                S::BAD_REQUEST,
                "invalid-document",
                "Document is not a JSON object",
            ),
            Self::DuplicateKey => (S::BAD_REQUEST, "duplicate-key", "Duplicate key"),
            Self::InvalidClientId => (S::BAD_REQUEST, "invalid-client-id", "Invalid client ID"),
            Self::InvalidRequest => (S::BAD_REQUEST, "invalid-request", "Invalid request"),
            Self::MissingToken => (S::UNAUTHORIZED, "missing-token", "OAuth token missing"),
            Self::InvalidToken => (S::UNAUTHORIZED, "invalid-token", "OAuth token invalid"),
            Self::MissingLinkedIdentity => (
                S::UNAUTHORIZED,
                "missing-linked-identity",
                "Missing linked identity for authorized access",
            ),
            Self::InsufficientScope => (S::FORBIDDEN, "insufficient-scope", "Insufficient scope"),
            Self::NotFound => (S::NOT_FOUND, "not-found", "Resource not found"),
            Self::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Method not allowed",
            ),
            Self::RequestTimeout => (S::REQUEST_TIMEOUT, "request-timeout", "Request timeout"),
            Self::PreconditionFailed => (
                S::PRECONDITION_FAILED,
                "precondition-failed",
                "Precondition failed",
            ),
            Self::MaxKeysExceeded => (
                S::PAYLOAD_TOO_LARGE,
                "max-keys-exceeded",
                "Max number of keys exceeded",
            ),
            Self::MaxKeyLengthExceeded => (
                S::PAYLOAD_TOO_LARGE,
                "max-key-length-exceeded",
                "Max key length exceeded",
            ),
            Self::MaxValueLengthExceeded => (
                S::PAYLOAD_TOO_LARGE,
                "max-value-length-exceeded",
                "Max value length exceeded",
            ),
            Self::MaxBodyLengthExceeded => (
                S::PAYLOAD_TOO_LARGE,
                "max-body-length-exceeded",
                "Max body length exceeded",
            ),
            Self::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "Unsupported media type",
            ),
            // The page's own status for it.
            Self::InternalError => (
                S::NOT_IMPLEMENTED,
                "internal-error",
                "Internal server error",
            ),
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "Server overloaded"),
            Self::ShuttingDown => (
                S::SERVICE_UNAVAILABLE,
                "shutting-down",
                "Server shutting down",
            ),
            Self::InsufficientStorage => (
                S::INSUFFICIENT_STORAGE,
                "insufficient-storage",
                "Insufficient storage",
            ),
        }
    }
}

/// What the error points at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Header(&'static str),
    /// RFC 6901, of a value that is in the request.
    Pointer(String),
}

/// A refusal: everything that its answer needs but the request's id.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: Code,
    detail: Cow<'static, str>,
    source: Option<Source>,
    meta: Option<Value>,
    headers: HeaderMap,
}

impl Refusal {
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        let mut headers = HeaderMap::new();
        if matches!(code, Code::Overloaded | Code::ShuttingDown) {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        Box::new(Self {
            code,
            detail: detail.into(),
            source: None,
            meta: None,
            headers,
        })
    }

    /// Something that is not the client's fault; the cause belongs in the log.
    pub(crate) fn internal() -> Box<Self> {
        Self::new(
            Code::InternalError,
            "The server could not carry out the request.",
        )
    }

    pub(crate) fn at_header(mut self: Box<Self>, name: &'static str) -> Box<Self> {
        self.source = Some(Source::Header(name));
        self
    }

    fn at_member(mut self: Box<Self>, key: &str) -> Box<Self> {
        let escaped = key.replace('~', "~0").replace('/', "~1");
        self.source = Some(Source::Pointer(format!("/{escaped}")));
        self
    }

    /// Points at the whole document.
    fn at_root(mut self: Box<Self>) -> Box<Self> {
        self.source = Some(Source::Pointer(String::new()));
        self
    }

    pub(crate) fn limit(mut self: Box<Self>, limit: u64, actual: u64) -> Box<Self> {
        self.meta = Some(json!({ "limit": limit, "actual": actual }));
        self
    }

    fn position(mut self: Box<Self>, at: Position) -> Box<Self> {
        self.meta = Some(json!({ "line": at.line, "column": at.column, "offset": at.offset }));
        self
    }

    pub(crate) fn allow(mut self: Box<Self>, methods: &'static str) -> Box<Self> {
        self.headers
            .insert(ALLOW, HeaderValue::from_static(methods));
        self
    }

    /// The challenge of RFC 6750 section 3.
    pub(crate) fn challenge(mut self: Box<Self>, challenge: HeaderValue) -> Box<Self> {
        self.headers.insert(WWW_AUTHENTICATE, challenge);
        self
    }

    pub(crate) fn current(mut self: Box<Self>, revision: Option<Revision>) -> Box<Self> {
        if let Some(etag) = revision.and_then(crate::precondition::etag) {
            self.headers.insert(ETAG, etag);
        }
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// The answer. `close`: the request's body was not read to its end, so nothing
    /// that follows on the connection can be understood.
    pub(crate) fn response(self, id: &RequestId, close: bool) -> Response<Body> {
        let (status, code, title) = self.code.row();
        let mut error = json!({
            "id": id.as_str(),
            "status": status.as_str(),
            "code": code,
            "title": title,
            "detail": self.detail,
        });
        if let Some(members) = error.as_object_mut() {
            match self.source {
                Some(Source::Header(name)) => {
                    members.insert("source".to_owned(), json!({ "header": name }));
                }
                Some(Source::Pointer(pointer)) => {
                    members.insert("source".to_owned(), json!({ "pointer": pointer }));
                }
                None => {}
            }
            if let Some(meta) = self.meta {
                members.insert("meta".to_owned(), meta);
            }
        }
        let body = json!({ "errors": [error] }).to_string();
        let mut response = Response::new(Body::whole(Bytes::from(body)));
        *response.status_mut() = status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
        if close {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<prefd_engine::Error> for Box<Refusal> {
    fn from(error: prefd_engine::Error) -> Self {
        use prefd_engine::Error as E;
        match error {
            E::Rejected(violation) => violation.into(),
            E::PreconditionFailed { current } => Refusal::new(
                Code::PreconditionFailed,
                match current {
                    Some(_) => "The document's current ETag does not meet the condition.",
                    None => "There is no document, which does not meet the condition.",
                },
            )
            .current(current),
            E::Overloaded => Refusal::new(
                Code::Overloaded,
                "Too many writes are waiting; try again later.",
            ),
            E::Closed => Refusal::new(Code::ShuttingDown, "The server is shutting down."),
            E::StorageFull { .. } => {
                tracing::error!(%error, "no space left");
                Refusal::new(
                    Code::InsufficientStorage,
                    "There is no space left to store the document; nothing was changed.",
                )
            }
            error => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "the engine failed");
                Refusal::internal()
            }
        }
    }
}

impl From<Violation> for Box<Refusal> {
    fn from(violation: Violation) -> Self {
        let detail = capitalised(&violation.to_string());
        match violation {
            Violation::NotAnObject { at } => Refusal::new(Code::InvalidDocument, detail)
                .at_root()
                .position(at),
            Violation::DuplicateKey { at, key } => Refusal::new(Code::DuplicateKey, detail)
                .at_member(&key)
                .position(at),
            Violation::TooManyKeys { limit, actual, .. } => {
                Refusal::new(Code::MaxKeysExceeded, detail)
                    .at_root()
                    .limit(limit.into(), actual.into())
            }
            Violation::KeyTooLong { limit, actual, .. } => {
                Refusal::new(Code::MaxKeyLengthExceeded, detail).limit(limit.into(), actual.into())
            }
            Violation::ValueTooLong {
                key, limit, actual, ..
            } => Refusal::new(Code::MaxValueLengthExceeded, detail)
                .at_member(&key)
                .limit(limit, actual),
            Violation::BodyTooLong { limit, actual } => {
                Refusal::new(Code::MaxBodyLengthExceeded, detail).limit(limit, actual)
            }
            Violation::Json { at, .. } => Refusal::new(Code::InvalidJson, detail).position(at),
            _ => Refusal::new(Code::InvalidDocument, detail),
        }
    }
}

/// A sentence of what the engine says in the middle of one.
fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), characters.as_str())
}
