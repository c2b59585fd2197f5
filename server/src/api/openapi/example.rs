//! Describes for each error code when the error occurs, and generates an example response.

use serde_json::{Map, Value, json};

use crate::api::openapi::json::object;
use crate::auth::NO_LINKED_IDENTITY;
use crate::http::{ApiError, Code};
use crate::store::{Error, Limits, Position, Violation};

/// The request id in the example responses, which is taken from the documentation of the PACE Cloud
/// preferences API.
const ID: &str = "cbgmhslmp1o9or9kh1p0";

/// Describes when the error occurs. In the OpenAPI document, the error code and a colon precede
/// this text.
pub(super) fn when(code: Code) -> &'static str {
    match code {
        Code::InvalidJson => "the body is not valid JSON (RFC 8259), or is nested too deeply.",
        Code::InvalidDocument => "the body is valid JSON, but not an object.",
        Code::DuplicateKey => {
            "a key appears twice in the document. Keys are compared after decoding escapes."
        }
        Code::InvalidClientId => {
            "the clientId is too long, contains a control character, or is not correctly \
             percent-encoded UTF-8."
        }
        Code::InvalidRequest => {
            "the request is malformed. Examples: it has two Authorization headers, the value of \
             If-Match is not a list of entity tags, a PUT has a Content-Range, or the body is \
             incomplete."
        }
        Code::MissingToken => "the request has no bearer token.",
        Code::InvalidToken => {
            "the token is not accepted. Examples: it is malformed, has expired, or was issued \
             by an issuer that the server does not trust."
        }
        Code::MissingLinkedIdentity => {
            "the token is valid, but its user has no linked identity. The error occurs only if \
             the server is configured to require a linked identity."
        }
        Code::InsufficientScope => "the token does not have the required scope.",
        Code::NotFound => {
            "the path does not exist, the server does not serve the API version, or the server does \
             not allow this clientId."
        }
        Code::MethodNotAllowed => {
            "the path does not support the method. The Allow header lists the supported methods."
        }
        Code::RequestTimeout => {
            "the client sent nothing for too long, sent the body too slowly while another upload \
             waited for memory, or had too many uploads in progress while uploads of other users \
             waited for memory."
        }
        Code::PreconditionFailed => {
            "the condition of If-Match, If-None-Match or If-Unmodified-Since is not met. Nothing \
             was changed."
        }
        Code::MaxKeysExceeded => "the document has too many keys.",
        Code::MaxKeyLengthExceeded => "a key of the document is too long.",
        Code::MaxValueLengthExceeded => "a value of the document is too long.",
        Code::MaxBodyLengthExceeded => "the body is too long.",
        Code::UnsupportedMediaType => {
            "the Content-Type is not a JSON type, or the Content-Encoding is not `identity`."
        }
        Code::InternalError => {
            "the server failed. The server log contains the cause, together with the `id` of the \
             error."
        }
        Code::Overloaded => {
            "the server has no capacity for the request at the moment, or cannot reach the \
             issuer of the token."
        }
        Code::ShuttingDown => "the server is shutting down.",
        Code::InsufficientStorage => "the disk of the server is full. Nothing was changed.",
    }
}

/// The position of the error in the example responses.
const AT: Position = Position {
    offset: 13,
    line: 1,
    column: 14,
};

/// Creates an example error with this code. If possible, the example is created by the same
/// function that creates the error of a real response.
fn error(code: Code, limits: &Limits) -> Box<ApiError> {
    let rejected = |violation: Violation| Error::Rejected(violation).into();
    let key = || "some".to_owned();
    match code {
        Code::InvalidJson => rejected(Violation::Json {
            at: AT,
            what: "expected value".to_owned(),
        }),
        Code::InvalidDocument => rejected(Violation::NotAnObject { at: AT }),
        Code::DuplicateKey => rejected(Violation::DuplicateKey { at: AT, key: key() }),
        Code::MaxKeysExceeded => rejected(Violation::TooManyKeys {
            at: AT,
            limit: limits.max_keys,
            actual: limits.max_keys.saturating_add(1),
        }),
        Code::MaxKeyLengthExceeded => rejected(Violation::KeyTooLong {
            at: AT,
            limit: limits.max_key_bytes,
            actual: limits.max_key_bytes.saturating_add(1),
        }),
        Code::MaxValueLengthExceeded => rejected(Violation::ValueTooLong {
            at: AT,
            key: key(),
            limit: limits.max_value_bytes,
            actual: limits.max_value_bytes.saturating_add(1),
        }),
        Code::MaxBodyLengthExceeded => rejected(Violation::BodyTooLong {
            limit: limits.max_body_bytes,
            actual: limits.max_body_bytes.saturating_add(1),
        }),
        Code::PreconditionFailed => Error::PreconditionFailed { current: None }.into(),
        Code::InternalError => ApiError::internal(""),
        Code::Overloaded => Error::Overloaded.into(),
        Code::ShuttingDown => Error::Closed.into(),
        Code::InsufficientStorage => Error::StorageFull { path: "".into() }.into(),
        Code::InvalidToken => {
            ApiError::new(code, "The token has expired.").at_header("Authorization")
        }
        Code::InvalidRequest => ApiError::new(
            code,
            "If-Match must be * or a list of entity tags in double quotes.",
        )
        .at_header("If-Match"),
        Code::UnsupportedMediaType => {
            let detail = "The body must not have a Content-Encoding other than identity.";
            ApiError::new(code, detail).at_header("Content-Encoding")
        }
        Code::InvalidClientId => ApiError::new(code, "The client ID is not valid UTF-8."),
        Code::MissingToken => ApiError::new(
            code,
            "The request has no Authorization header with a Bearer token.",
        ),
        Code::MissingLinkedIdentity => ApiError::new(code, NO_LINKED_IDENTITY),
        Code::InsufficientScope => ApiError::new(
            code,
            "The token was issued to another client and does not have the scope \
             user:preferences:read:xyz.",
        ),
        Code::NotFound => ApiError::new(code, "There is no resource at this path."),
        Code::MethodNotAllowed => {
            ApiError::new(code, "Preferences support GET, HEAD, PUT and DELETE.")
        }
        Code::RequestTimeout => ApiError::new(
            code,
            "The upload timed out: the client sent no data for too long.",
        ),
    }
}

/// Generates one example response for each error code.
pub(super) fn components(limits: &Limits) -> Map<String, Value> {
    object(Code::ALL.iter().map(|code| {
        let (_, name, title) = code.row();
        let example = json!({
            "summary": title,
            "value": error(*code, limits).to_json(ID),
        });
        (name.to_owned(), example)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_has_the_code_it_is_listed_under() {
        for code in Code::ALL {
            assert_eq!(error(*code, &Limits::default()).code(), *code);
        }
    }
}
