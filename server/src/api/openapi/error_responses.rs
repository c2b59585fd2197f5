//! Describes the error responses of each operation.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::api::openapi::example;
use crate::api::openapi::json::{object, reference};
use crate::http::{Code, JSON_API};

/// Whether a GET or HEAD of a document can return this error.
pub(super) fn is_read_error(code: Code) -> bool {
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
        // `MethodNotAllowed` is returned only for methods that the OpenAPI document does not
        // contain.
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

/// Whether a PUT can return this error.
pub(super) fn is_put_error(code: Code) -> bool {
    code != Code::MethodNotAllowed
}

/// Whether a DELETE can return this error.
pub(super) fn is_delete_error(code: Code) -> bool {
    is_read_error(code) || code == Code::InsufficientStorage
}

/// Whether a GET or HEAD of the OpenAPI document can return this error.
pub(super) fn is_openapi_error(code: Code) -> bool {
    matches!(code, Code::InvalidRequest | Code::PreconditionFailed)
}

/// Whether a GET or HEAD of a health check can return this error. A 503 response from `/readyz` is
/// not included, because it is not a JSON:API error.
pub(super) fn is_health_error(code: Code) -> bool {
    code == Code::InvalidRequest
}

/// The error responses of an operation, by status. If an operation other than HEAD can return every
/// error code of a status, the response for that status is a reference to a component. If `is_head`
/// is true, the responses have no body.
pub(super) fn responses(can_return: fn(Code) -> bool, is_head: bool) -> Map<String, Value> {
    object(statuses().into_iter().filter_map(|status| {
        let all = codes(status);
        let returned: Vec<Code> = all
            .iter()
            .copied()
            .filter(|code| can_return(*code))
            .collect();
        let response = if returned.is_empty() {
            return None;
        } else if returned == all && !is_head {
            reference("responses", &component_name(status))
        } else {
            response(status, &returned, is_head)
        };
        Some((status.as_str().to_owned(), response))
    }))
}

/// Generates one response component for each error status. The component describes a response that
/// can have any error code of its status.
pub(super) fn components() -> Map<String, Value> {
    object(statuses().into_iter().map(|status| {
        let response = response(status, &codes(status), false);
        (component_name(status), response)
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
    let restriction = json!({ "properties": { "errors": { "items": item } } });
    json!({ JSON_API: {
        "schema": { "allOf": [reference("schemas", "Errors"), restriction] },
        "examples": object(examples),
    }})
}

/// The headers of a response with this status: `Request-Id`, `Cache-Control`, and at most one
/// header that is specific to the status.
fn headers(status: StatusCode) -> Map<String, Value> {
    let specific = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Some(("WWW-Authenticate", None)),
        StatusCode::METHOD_NOT_ALLOWED => Some(("Allow", None)),
        StatusCode::PRECONDITION_FAILED => Some(("ETag", Some("ETag-if-stored"))),
        StatusCode::SERVICE_UNAVAILABLE => Some(("Retry-After", None)),
        _ => None,
    };
    object(
        [
            ("Request-Id", None),
            ("Cache-Control", Some("Cache-Control-no-store")),
        ]
        .into_iter()
        .chain(specific)
        .map(|(header, name)| {
            let header_component = reference("headers", name.unwrap_or(header));
            (header.to_owned(), header_component)
        }),
    )
}

/// Each status in the table of error codes, in the order of the table and without duplicates.
fn statuses() -> Vec<StatusCode> {
    let mut statuses: Vec<StatusCode> = Code::ALL.iter().map(|code| code.row().0).collect();
    statuses.dedup();
    statuses
}

/// The error codes with this status.
fn codes(status: StatusCode) -> Vec<Code> {
    let has_status = |code: &Code| code.row().0 == status;
    Code::ALL.iter().copied().filter(has_status).collect()
}

/// Returns the name of the component for a status: the reason phrase of the status without spaces.
fn component_name(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or(status.as_str());
    reason.replace(' ', "")
}
