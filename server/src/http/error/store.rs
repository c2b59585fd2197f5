//! What the store refuses, as clients are told.

use crate::http::error::Refusal;
use crate::http::error::code::Code;
use crate::store::{Error, Violation};

impl From<Error> for Box<Refusal> {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejected(violation) => violation.into(),
            Error::PreconditionFailed { current } => Refusal::new(
                Code::PreconditionFailed,
                match current {
                    Some(_) => "The document's current ETag does not meet the condition.",
                    None => "There is no document, which does not meet the condition.",
                },
            )
            .current(current),
            Error::Overloaded => Refusal::new(
                Code::Overloaded,
                "Too many writes are waiting; try again later.",
            ),
            Error::Closed => Refusal::new(Code::ShuttingDown, "The server is shutting down."),
            error @ Error::StorageFull { .. } => Refusal::new(
                Code::InsufficientStorage,
                "There is no space left to store the document; nothing was changed.",
            )
            .because(error.to_string()),
            error => Refusal::internal(match std::error::Error::source(&error) {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            }),
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
