//! The table of error codes, with the status and the title of each code. Codes, statuses and titles
//! must not change, because clients depend on them.

use hyper::StatusCode;

/// Defines one variant of [`Code`] for each line of the table.
macro_rules! codes {
    ($($name:ident: $status:ident, $code:literal, $title:literal;)*) => {
        /// The kind of an error. Clients distinguish errors by their codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code {
            $($name,)*
        }

        impl Code {
            /// All codes, in the order of their statuses.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the status, the code as text, and the title.
            pub(crate) fn row(self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Self::$name => (StatusCode::$status, $code, $title),)*
                }
            }
        }
    };
}

codes! {
    InvalidJson: BAD_REQUEST, "invalid-json", "Invalid JSON";
    InvalidDocument: BAD_REQUEST, "invalid-document", "Document is not a JSON object";
    DuplicateKey: BAD_REQUEST, "duplicate-key", "Duplicate key";
    InvalidClientId: BAD_REQUEST, "invalid-client-id", "Invalid client ID";
    InvalidRequest: BAD_REQUEST, "invalid-request", "Invalid request";
    MissingToken: UNAUTHORIZED, "missing-token", "OAuth token missing";
    InvalidToken: UNAUTHORIZED, "invalid-token", "OAuth token invalid";
    MissingLinkedIdentity: UNAUTHORIZED, "missing-linked-identity",
        "Missing linked identity for authorized access";
    InsufficientScope: FORBIDDEN, "insufficient-scope", "Insufficient scope";
    NotFound: NOT_FOUND, "not-found", "Resource not found";
    MethodNotAllowed: METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed";
    RequestTimeout: REQUEST_TIMEOUT, "request-timeout", "Request timeout";
    PreconditionFailed: PRECONDITION_FAILED, "precondition-failed", "Precondition failed";
    MaxKeysExceeded: PAYLOAD_TOO_LARGE, "max-keys-exceeded", "Max number of keys exceeded";
    MaxKeyLengthExceeded: PAYLOAD_TOO_LARGE, "max-key-length-exceeded",
        "Max key length exceeded";
    MaxValueLengthExceeded: PAYLOAD_TOO_LARGE, "max-value-length-exceeded",
        "Max value length exceeded";
    MaxBodyLengthExceeded: PAYLOAD_TOO_LARGE, "max-body-length-exceeded",
        "Max body length exceeded";
    UnsupportedMediaType: UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type",
        "Unsupported media type";
    // The PACE Cloud preferences API uses 501 for internal errors.
    InternalError: NOT_IMPLEMENTED, "internal-error", "Internal server error";
    Overloaded: SERVICE_UNAVAILABLE, "overloaded", "Server overloaded";
    ShuttingDown: SERVICE_UNAVAILABLE, "shutting-down", "Server shutting down";
    InsufficientStorage: INSUFFICIENT_STORAGE, "insufficient-storage", "Insufficient storage";
}

impl Code {
    /// The code as text, as it appears in the response and in the log.
    pub(crate) fn as_str(self) -> &'static str {
        self.row().1
    }
}
