//! Of each error when it happens, in words, and an answer as it is really sent.

use serde_json::{Map, Value, json};

use crate::api::openapi::json::object;
use crate::auth::NO_LINKED_IDENTITY;
use crate::http::{Code, Refusal};
use crate::store::{Error, Limits, Position, Violation};

/// An id, the page's own.
const ID: &str = "cbgmhslmp1o9or9kh1p0";

/// When it happens.
pub(super) fn when(code: Code) -> &'static str {
    match code {
        Code::InvalidJson => "the body is not JSON (RFC 8259), or nested too deeply.",
        Code::InvalidDocument => "the body is JSON, but not an object.",
        Code::DuplicateKey => "a key of the document is there twice, once decoded.",
        Code::InvalidClientId => {
            "the clientId is too long, not percent-encoded correctly, not UTF-8, or has a \
             control character."
        }
        Code::InvalidRequest => {
            "the request is malformed: two Authorization headers, a condition that is no list \
             of entity tags, a body that broke off."
        }
        Code::MissingToken => "there is no bearer token.",
        Code::InvalidToken => "the token is not believed: malformed, expired, of another issuer.",
        Code::MissingLinkedIdentity => {
            "the token is good, but its user has no linked identity where the operator requires \
             one."
        }
        Code::InsufficientScope => {
            "the token is of another client, and does not have the scope that \
             WWW-Authenticate names."
        }
        Code::NotFound => {
            "there is no such route or version, or the operator knows no such client."
        }
        Code::MethodNotAllowed => "the path has other methods, which Allow names.",
        Code::RequestTimeout => "the body did not go on in time.",
        Code::PreconditionFailed => {
            "If-Match, If-None-Match or If-Unmodified-Since does not hold; nothing was changed."
        }
        Code::MaxKeysExceeded => "the document has too many keys.",
        Code::MaxKeyLengthExceeded => "a key of the document is too long.",
        Code::MaxValueLengthExceeded => "a value of the document is too long.",
        Code::MaxBodyLengthExceeded => "the body is too long.",
        Code::UnsupportedMediaType => {
            "there is a Content-Type, and it is not JSON; or a Content-Encoding other than \
             identity."
        }
        Code::InternalError => "the server failed; the log says why, beside the id.",
        Code::Overloaded => {
            "there is no room for the request now, or the token's issuer does not answer."
        }
        Code::ShuttingDown => "the server is stopping.",
        Code::InsufficientStorage => "the disk is full; nothing was changed.",
    }
}

/// Where the document of an example goes wrong.
const AT: Position = Position {
    offset: 13,
    line: 1,
    column: 14,
};

/// Such an error, made where the server makes it as far as it can be.
fn refusal(code: Code, limits: &Limits) -> Box<Refusal> {
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
        Code::InternalError => Refusal::internal(""),
        Code::Overloaded => Error::Overloaded.into(),
        Code::ShuttingDown => Error::Closed.into(),
        Code::InsufficientStorage => Error::StorageFull { path: "".into() }.into(),
        Code::InvalidToken => {
            Refusal::new(code, "The token has expired.").at_header("Authorization")
        }
        Code::InvalidRequest => {
            Refusal::new(code, "If-Match is neither * nor a list of entity tags.")
                .at_header("If-Match")
        }
        Code::UnsupportedMediaType => {
            Refusal::new(code, "A Content-Encoding is not supported.").at_header("Content-Encoding")
        }
        Code::InvalidClientId => Refusal::new(code, "The client ID is not UTF-8."),
        Code::MissingToken => Refusal::new(
            code,
            "The request has no Authorization header with a Bearer token.",
        ),
        Code::MissingLinkedIdentity => Refusal::new(code, NO_LINKED_IDENTITY),
        Code::InsufficientScope => Refusal::new(
            code,
            "The token was issued to another client and does not have the scope \
             user:preferences:read:xyz.",
        ),
        Code::NotFound => Refusal::new(code, "There is no such resource."),
        Code::MethodNotAllowed => Refusal::new(
            code,
            "Preferences can be read with GET and HEAD, set with PUT and deleted with DELETE.",
        ),
        Code::RequestTimeout => Refusal::new(code, "The body did not go on in time."),
    }
}

/// An example of each error.
pub(super) fn components(limits: &Limits) -> Map<String, Value> {
    object(Code::ALL.iter().map(|code| {
        let (_, name, title) = code.row();
        let example = json!({
            "summary": title,
            "value": refusal(*code, limits).document(ID),
        });
        (name.to_owned(), example)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_of_its_own_code() {
        for code in Code::ALL {
            assert_eq!(refusal(*code, &Limits::default()).code(), *code);
        }
    }
}
