//! Conversion of store errors to error responses.

use crate::http::error::ApiError;
use crate::http::error::code::Code;
use crate::store::{Error, Violation};

impl From<Error> for Box<ApiError> {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejected(violation) => violation.into(),
            Error::PreconditionFailed { current } => ApiError::new(
                Code::PreconditionFailed,
                match current {
                    Some(_) => "The stored document does not meet the condition of the request.",
                    None => "No document is stored, so the condition of the request is not met.",
                },
            )
            .current(current),
            Error::Overloaded => ApiError::new(
                Code::Overloaded,
                "Too many writes are waiting to be committed. Try again later.",
            ),
            Error::Closed => ApiError::new(Code::ShuttingDown, "The server is shutting down."),
            error @ Error::StorageFull { .. } => ApiError::new(
                Code::InsufficientStorage,
                "The disk of the server is full. Nothing was changed.",
            )
            .with_cause(error.to_string()),
            error => ApiError::internal(match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }),
        }
    }
}

impl From<Violation> for Box<ApiError> {
    fn from(violation: Violation) -> Self {
        let detail = to_sentence(&violation.to_string());
        match violation {
            Violation::NotAnObject { at } => ApiError::new(Code::InvalidDocument, detail)
                .at_root()
                .position(at),
            Violation::DuplicateKey { at, key } => ApiError::new(Code::DuplicateKey, detail)
                .at_member(&key)
                .position(at),
            Violation::TooManyKeys { limit, actual, .. } => {
                ApiError::new(Code::MaxKeysExceeded, detail)
                    .at_root()
                    .limit(limit.into(), actual.into())
            }
            Violation::KeyTooLong { limit, actual, .. } => {
                ApiError::new(Code::MaxKeyLengthExceeded, detail).limit(limit.into(), actual.into())
            }
            Violation::ValueTooLong {
                key, limit, actual, ..
            } => ApiError::new(Code::MaxValueLengthExceeded, detail)
                .at_member(&key)
                .limit(limit, actual),
            Violation::BodyTooLong { limit, actual } => {
                ApiError::new(Code::MaxBodyLengthExceeded, detail).limit(limit, actual)
            }
            Violation::Json { at, .. } => ApiError::new(Code::InvalidJson, detail).position(at),
            _ => ApiError::new(Code::InvalidDocument, detail),
        }
    }
}

/// Makes a sentence from an error text of the engine, which starts with a lower-case letter and has
/// no full stop.
fn to_sentence(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|c| c.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), characters.as_str())
}
