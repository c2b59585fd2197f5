//! The OpenAPI document that the server describes itself with, and the route to it.
//!
//! It is made once, at the start: from a template, which has what is the same for every
//! server, the settings, and the table of errors. So no fact of the table or of the
//! settings is written down a second time. `docs/openapi.json` is what a server with the
//! default settings gives.

mod example;
mod failure;
mod json;

use std::hash::Hasher;

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use siphasher::sip::SipHasher13;

use crate::http::{
    Body, Code, Conditions, MAX_CLIENT_ID_BYTES, METHODS, Refusal, Route, Verdict, etag,
};
use crate::store::{Error, Limits, Revision};
use crate::telemetry::Probe;

/// Where it is.
pub(crate) const PATH: &str = "/openapi.json";
const READING_METHODS: &str = "GET, HEAD";
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Another start can have other settings; the ETag makes asking again cheap.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");
/// JSON with `{{names}}` in it: see [`fill`].
const TEMPLATE: &str = include_str!("openapi/template.json");

/// The document, and its tag.
pub(crate) struct OpenApi {
    text: Bytes,
    /// Of the very text, so that it is the same after a restart.
    revision: Revision,
}

/// The template is not what it must be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OpenApiError {
    #[error("the OpenAPI document cannot be made: {0}")]
    Template(#[from] serde_json::Error),
    #[error("the OpenAPI document cannot be made: there is no {0} in the template")]
    NoPlace(&'static str),
}

/// A document's members, in the order in which people read them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    openapi: Value,
    info: Value,
    servers: Value,
    security: Value,
    tags: Value,
    paths: Value,
    components: Value,
}

impl OpenApi {
    /// The document of a server that serves these versions within these limits.
    pub(crate) fn new(versions: &[String], limits: &Limits) -> Result<Self, OpenApiError> {
        let mut document: Document = serde_json::from_str(&fill(TEMPLATE, versions, limits))?;
        for (path, method, is_answered) in OPERATIONS {
            members(&mut document.paths, &[path, method, "responses"])?
                .extend(failure::responses(*is_answered, *method == "head"));
        }
        let components = &mut document.components;
        members(components, &["responses"])?.extend(failure::components());
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

    /// Answers a request for it, which takes no token.
    pub(crate) fn answer(&self, parts: &Parts) -> Result<Response<Body>, Box<Refusal>> {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(Refusal::new(
                Code::MethodNotAllowed,
                "The OpenAPI document can be read with GET and HEAD.",
            )
            .allow(READING_METHODS));
        }
        let current = Some(self.revision);
        let mut response = match Conditions::of(&parts.headers)?.judge_read(current) {
            Some(Verdict::Failed) => {
                return Err(Error::PreconditionFailed { current }.into());
            }
            Some(Verdict::NotModified) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response
            }
            None => {
                // Hyper leaves the body out where a HEAD has asked.
                let mut response = Response::new(Body::whole(self.text.clone()));
                response.headers_mut().insert(CONTENT_TYPE, JSON);
                response
            }
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, ASK_AGAIN);
        if let Some(etag) = etag(self.revision) {
            headers.insert(ETAG, etag);
        }
        Ok(response)
    }
}

/// Path, method, and which errors it can be answered with.
type Operation = (&'static str, &'static str, fn(Code) -> bool);

const OPERATIONS: &[Operation] = &[
    (Route::TEMPLATE, "get", failure::is_of_reading),
    (Route::TEMPLATE, "head", failure::is_of_reading),
    (Route::TEMPLATE, "put", failure::is_of_putting),
    (Route::TEMPLATE, "delete", failure::is_of_deleting),
    (PATH, "get", failure::is_of_this_document),
    (PATH, "head", failure::is_of_this_document),
    (Probe::Live.path(), "get", failure::is_of_health),
    (Probe::Live.path(), "head", failure::is_of_health),
    (Probe::Ready.path(), "get", failure::is_of_health),
    (Probe::Ready.path(), "head", failure::is_of_health),
];

/// The members of the object at the end of this path.
fn members<'a>(
    value: &'a mut Value,
    path: &[&'static str],
) -> Result<&'a mut Map<String, Value>, OpenApiError> {
    let mut found = value.as_object_mut();
    for name in path {
        let value = found.and_then(|members| members.get_mut(*name));
        found = value.and_then(Value::as_object_mut);
        if found.is_none() {
            return Err(OpenApiError::NoPlace(name));
        }
    }
    found.ok_or(OpenApiError::NoPlace("anything"))
}

/// Puts values in place of their names: in place of `"{{name}}"`, quotes and all, the value's
/// JSON, and of `{{name}}` in a longer text, the value as people read it.
fn fill(template: &str, versions: &[String], limits: &Limits) -> String {
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
        ("max_client_id_bytes", json!(MAX_CLIENT_ID_BYTES)),
    ];
    let mut text = template.to_owned();
    for (name, value) in values {
        let shown = value.as_str().map_or(value.to_string(), str::to_owned);
        text = text.replace(&format!("\"{{{{{name}}}}}\""), &value.to_string());
        text = text.replace(&format!("{{{{{name}}}}}"), &shown);
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
    fn every_name_in_the_template_is_filled_in() {
        let text = document(&["v1"], &Limits::default()).to_string();
        assert!(!text.contains("{{"), "{text}");
    }

    #[test]
    fn settings_are_where_they_belong() {
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
    fn the_tag_changes_with_the_document_only() {
        let revision = |keys| {
            let limits = Limits::new(keys, 7, 1000);
            OpenApi::new(&["v1".to_owned()], &limits).unwrap().revision
        };
        assert_eq!(revision(3), revision(3));
        assert_ne!(revision(3), revision(4));
    }
}
