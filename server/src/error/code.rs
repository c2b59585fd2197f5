//! The errors that clients can tell apart: each one's status, code and title, all of
//! them stable.

use hyper::StatusCode;

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
    /// As the answer and the log spell it.
    pub(crate) fn as_str(self) -> &'static str {
        self.row().1
    }

    /// Status, code and title.
    pub(super) fn row(self) -> (StatusCode, &'static str, &'static str) {
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
