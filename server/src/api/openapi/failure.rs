//! Which errors an operation can be answered with, and what such an answer is.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::api::openapi::example;
use crate::api::openapi::json::{object, reference};
use crate::http::{Code, JSON_API};

/// Whether a GET or HEAD of a document can be answered with it.
pub(super) fn is_of_reading(code: Code) -> bool {
    match code {
        Code::InvalidClientId
        | Code::InvalidRequest
        | Code::MissingToken
        | Code::InvalidToken
        | Code::MissingLinkedIdentity
        | Code::InsufficientScope
        | Code::NotFound
        | Code::PreconditionFailed
        | Code::InternalError
        | Code::Overloaded
        | Code::ShuttingDown => true,
        Code::InvalidJson
        | Code::InvalidDocument
        | Code::DuplicateKey
        // Of no operation: it says that there is none.
        | Code::MethodNotAllowed
        | Code::RequestTimeout
        | Code::MaxKeysExceeded
        | Code::MaxKeyLengthExceeded
        | Code::MaxValueLengthExceeded
        | Code::MaxBodyLengthExceeded
        | Code::UnsupportedMediaType
        | Code::InsufficientStorage => false,
    }
}

/// The same of a PUT.
pub(super) fn is_of_putting(code: Code) -> bool {
    code != Code::MethodNotAllowed
}

/// The same of a DELETE.
pub(super) fn is_of_deleting(code: Code) -> bool {
    is_of_reading(code) || code == Code::InsufficientStorage
}

/// The same of a GET or HEAD of the OpenAPI document.
pub(super) fn is_of_this_document(code: Code) -> bool {
    matches!(code, Code::InvalidRequest | Code::PreconditionFailed)
}

/// The same of a probe.
pub(super) fn is_of_health(code: Code) -> bool {
    code == Code::InvalidRequest
}

/// The answers with an error of an operation, by status. Those that may have any code of
/// their status are components. `is_head`: they have no body.
pub(super) fn responses(is_answered: fn(Code) -> bool, is_head: bool) -> Map<String, Value> {
    object(statuses().into_iter().filter_map(|status| {
        let all = codes(status);
        let answered: Vec<Code> = all
            .iter()
            .copied()
            .filter(|code| is_answered(*code))
            .collect();
        let response = if answered.is_empty() {
            return None;
        } else if answered == all && !is_head {
            reference("responses", &component(status))
        } else {
            response(status, &answered, is_head)
        };
        Some((status.as_str().to_owned(), response))
    }))
}

/// The answer of each status with any of its codes.
pub(super) fn components() -> Map<String, Value> {
    object(statuses().into_iter().map(|status| {
        let response = response(status, &codes(status), false);
        (component(status), response)
    }))
}

fn response(status: StatusCode, codes: &[Code], is_head: bool) -> Value {
    let lines = codes.iter().map(|code| {
        let when = example::when(*code);
        format!("- `{}`: {when}", code.as_str())
    });
    let mut response = json!({
        "description": lines.collect::<Vec<_>>().join("\n"),
        "headers": headers(status),
    });
    if let Some(members) = response.as_object_mut()
        && !is_head
    {
        members.insert("content".to_owned(), content(status, codes));
    }
    response
}

fn content(status: StatusCode, codes: &[Code]) -> Value {
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let examples = names.iter().map(|name| {
        let example = reference("examples", name);
        ((*name).to_owned(), example)
    });
    let item = json!({ "properties": {
        "status": { "const": status.as_str() },
        "code": { "enum": names },
    }});
    let narrowed = json!({ "properties": { "errors": { "items": item } } });
    json!({ JSON_API: {
        "schema": { "allOf": [reference("schemas", "Errors"), narrowed] },
        "examples": object(examples),
    }})
}

/// The headers that tell more of a status, and the id that every answer has.
fn headers(status: StatusCode) -> Map<String, Value> {
    let more = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(("WWW-Authenticate", None)),
        StatusCode::METHOD_NOT_ALLOWED => Some(("Allow", None)),
        StatusCode::PRECONDITION_FAILED => Some(("ETag", Some("ETag-of-what-is-stored"))),
        StatusCode::SERVICE_UNAVAILABLE => Some(("Retry-After", None)),
        _ => None,
    };
    object(
        [("Request-Id", None)]
            .into_iter()
            .chain(more)
            .map(|(header, name)| {
                let header_component = reference("headers", name.unwrap_or(header));
                (header.to_owned(), header_component)
            }),
    )
}

/// The statuses of the table, in its order.
fn statuses() -> Vec<StatusCode> {
    let mut statuses: Vec<StatusCode> = Code::ALL.iter().map(|code| code.row().0).collect();
    statuses.dedup();
    statuses
}

fn codes(status: StatusCode) -> Vec<Code> {
    let has_status = |code: &Code| code.row().0 == status;
    Code::ALL.iter().copied().filter(has_status).collect()
}

/// The name of a status's component: its reason phrase.
fn component(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or(status.as_str());
    reason.replace(' ', "")
}
