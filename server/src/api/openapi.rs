//! Generates the OpenAPI document of the server, and serves it at `/openapi.json`.
//!
//! The document is generated once, when the server starts, from a template, the settings and the
//! table of error codes. Facts that the settings or the table of error codes define are therefore
//! not repeated in the template. The file `docs/openapi.json` is the OpenAPI document of a server
//! with the default settings.

mod error_responses;
mod example;
mod json;

use std::hash::Hasher;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use siphasher::sip::SipHasher13;

use crate::http::{
    ApiResult, Body, Code, Conditions, JSON, METHODS, Route, UnmetCondition, etag,
    precondition_failed,
};
use crate::store::{Limits, Name, Revision};
use crate::telemetry::Probe;

/// The path of the OpenAPI document.
pub(crate) const PATH: &str = "/openapi.json";
/// The OpenAPI document can change when the server restarts with other settings. Caches must
/// therefore revalidate the document before each use. The ETag makes revalidation cheap.
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
/// The template is JSON with placeholders such as `{{name}}` (see [`fill_placeholders`]).
const TEMPLATE: &str = include_str!("openapi/template.json");

/// The generated OpenAPI document, and its revision.
pub(crate) struct OpenApi {
    text: Bytes,
    /// The revision is a hash of the text, so that the ETag stays the same if the server restarts
    /// with the same settings.
    revision: Revision,
}

/// The template of the OpenAPI document is not valid. A test generates the OpenAPI document, so
/// this error cannot occur in a release.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OpenApiError {
    #[error("cannot generate the OpenAPI document: {0}")]
    Template(#[from] serde_json::Error),
    #[error("cannot generate the OpenAPI document: the template has no object {0}")]
    MissingObject(&'static str),
}

/// The top-level members of the OpenAPI document, in the order of the output.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenApiDocument {
    openapi: Value,
    info: Value,
    servers: Value,
    security: Value,
    tags: Value,
    paths: Value,
    components: Value,
}

impl OpenApi {
    /// Generates the OpenAPI document of a server that serves these API versions with these limits.
    ///
    /// # Errors
    /// [`OpenApiError`] if the template is not valid.
    pub(crate) fn new(versions: &[String], limits: &Limits) -> Result<Self, OpenApiError> {
        let mut document: OpenApiDocument =
            serde_json::from_str(&fill_placeholders(TEMPLATE, versions, limits))?;
        for (path, method, can_return) in OPERATIONS {
            members(&mut document.paths, &[path, method, "responses"])?
                .extend(error_responses::responses(*can_return, *method == "head"));
        }
        let components = &mut document.components;
        members(components, &["responses"])?.extend(error_responses::components());
        members(components, &["examples"])?.extend(example::components(limits));
        let mut text = serde_json::to_string_pretty(&document)?;
        text.push('\n');
        let mut hasher = SipHasher13::new();
        hasher.write(text.as_bytes());
        Ok(Self {
            text: text.into(),
            revision: Revision::new(hasher.finish()),
        })
    }

    /// The response to a GET or HEAD of the OpenAPI document.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] if a conditional header is malformed, and
    /// [`Code::PreconditionFailed`] if the condition of If-Match is not met.
    pub(super) fn response(&self, headers: &HeaderMap) -> ApiResult {
        let current = Some(self.revision);
        let mut response = match Conditions::from_headers(headers)?.check_undated(current) {
            Some(UnmetCondition::PreconditionFailed) => {
                return Err(precondition_failed(current));
            }
            Some(UnmetCondition::NotModified) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response
            }
            None => {
                // hyper omits the body of a response to HEAD.
                let mut response = Response::new(Body::full(self.text.clone()));
                response.headers_mut().insert(CONTENT_TYPE, JSON);
                response
            }
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, NO_CACHE);
        if let Some(etag) = etag(self.revision) {
            headers.insert(ETAG, etag);
        }
        Ok(response)
    }
}

/// The path and the method of an operation, and a function that tells which error codes the
/// operation can return.
type OperationErrors = (&'static str, &'static str, fn(Code) -> bool);

const OPERATIONS: &[OperationErrors] = &[
    (Route::TEMPLATE, "get", error_responses::is_read_error),
    (Route::TEMPLATE, "head", error_responses::is_read_error),
    (Route::TEMPLATE, "put", error_responses::is_put_error),
    (Route::TEMPLATE, "delete", error_responses::is_delete_error),
    (PATH, "get", error_responses::is_openapi_error),
    (PATH, "head", error_responses::is_openapi_error),
    (Probe::Live.path(), "get", error_responses::is_health_error),
    (Probe::Live.path(), "head", error_responses::is_health_error),
    (Probe::Ready.path(), "get", error_responses::is_health_error),
    (
        Probe::Ready.path(),
        "head",
        error_responses::is_health_error,
    ),
];

/// The members of the object at `path` in `value`.
fn members<'a>(
    value: &'a mut Value,
    path: &[&'static str],
) -> Result<&'a mut Map<String, Value>, OpenApiError> {
    let mut members = value.as_object_mut();
    for name in path {
        let value = members.and_then(|members| members.get_mut(*name));
        members = value.and_then(Value::as_object_mut);
        if members.is_none() {
            return Err(OpenApiError::MissingObject(name));
        }
    }
    members.ok_or(OpenApiError::MissingObject("at its root"))
}

/// Replaces the placeholders of the template by their values. If a JSON string consists only of a
/// placeholder (`"{{name}}"`), the whole string is replaced by the JSON value. A placeholder inside
/// a longer string is replaced by the value as plain text.
fn fill_placeholders(template: &str, versions: &[String], limits: &Limits) -> String {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let values = [
        ("release", json!(env!("CARGO_PKG_VERSION"))),
        ("versions", json!(versions)),
        ("version", json!(versions.first())),
        ("methods", json!(METHODS)),
        ("codes", json!(codes)),
        ("max_keys", json!(limits.max_keys)),
        ("max_key_bytes", json!(limits.max_key_bytes)),
        ("max_value_bytes", json!(limits.max_value_bytes)),
        ("max_body_bytes", json!(limits.max_body_bytes)),
        ("max_depth", json!(limits.max_depth)),
        ("max_client_id_bytes", json!(Name::MAX_BYTES)),
    ];
    let mut text = template.to_owned();
    for (name, value) in values {
        let plain = value.as_str().map_or(value.to_string(), str::to_owned);
        text = text.replace(&format!("\"{{{{{name}}}}}\""), &value.to_string());
        text = text.replace(&format!("{{{{{name}}}}}"), &plain);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(versions: &[&str], limits: &Limits) -> Value {
        let versions: Vec<String> = versions.iter().map(|v| (*v).to_owned()).collect();
        let openapi = OpenApi::new(&versions, limits).unwrap();
        serde_json::from_slice(&openapi.text).unwrap()
    }

    #[test]
    fn every_placeholder_of_the_template_is_replaced() {
        let text = document(&["v1"], &Limits::default()).to_string();
        assert!(!text.contains("{{"), "{text}");
    }

    #[test]
    fn document_states_the_versions_and_limits_of_the_settings() {
        let mut limits = Limits::new(3, 7, 1000);
        limits.max_body_bytes = 4321;
        let document = document(&["v1", "v2"], &limits);
        let components = &document["components"];
        let version = &components["parameters"]["version"]["schema"];
        assert_eq!(version["enum"], json!(["v1", "v2"]));
        let schema = &components["schemas"]["Preferences"];
        assert_eq!(schema["maxProperties"], 3);
        assert_eq!(schema["propertyNames"]["maxLength"], 7);
        let prose = document["info"]["description"].as_str().unwrap();
        assert!(
            prose.contains("1000 bytes") && prose.contains("4321 bytes"),
            "{prose}"
        );
        let meta = |code: &str| components["examples"][code]["value"]["errors"][0]["meta"].clone();
        assert_eq!(meta("max-keys-exceeded"), json!({"limit": 3, "actual": 4}));
        assert_eq!(meta("max-body-length-exceeded")["limit"], 4321);
    }

    #[test]
    fn etag_changes_only_if_the_document_changes() {
        let revision = |keys| {
            let limits = Limits::new(keys, 7, 1000);
            OpenApi::new(&["v1".to_owned()], &limits).unwrap().revision
        };
        assert_eq!(revision(3), revision(3));
        assert_ne!(revision(3), revision(4));
    }
}
