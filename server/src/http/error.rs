//! Error responses. An error response contains one JSON:API error object
//! (<https://jsonapi.org/format/1.1/#error-objects>), and has the status and the headers of the
//! error.
//!
//! The members `code` and `title` of an error object are stable. `detail` describes one occurrence
//! of the error, and never reveals server internals such as file paths.

mod code;
mod store;

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use serde_json::{Value, json};

use crate::http::body::Body;
use crate::http::etag::etag;
use crate::http::header::{CLOSE, NO_STORE};
use crate::http::request_id::RequestId;
use crate::store::{Position, Revision};
pub(crate) use code::Code;

/// The media type of JSON:API error responses.
pub(crate) const JSON_API: &str = "application/vnd.api+json";
const JSON_API_VALUE: HeaderValue = HeaderValue::from_static(JSON_API);
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// If the server is overloaded or shutting down, a client may retry after this number of seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// The `source` member of an error object: the part of the request that caused the error.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ErrorSource {
    /// The name of the header that caused the error.
    Header(&'static str),
    /// A JSON Pointer (RFC 6901) to the cause in the request body.
    Pointer(String),
}

/// An error response without the request id, which [`ApiError::response`] adds.
#[derive(Debug)]
pub(crate) struct ApiError {
    code: Code,
    detail: Cow<'static, str>,
    source: Option<ErrorSource>,
    meta: Option<Value>,
    headers: HeaderMap,
    /// The cause of a server error. The cause is logged, and never sent to the client.
    cause: Option<String>,
}

impl ApiError {
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        let mut headers = HeaderMap::new();
        if matches!(code, Code::Overloaded | Code::ShuttingDown) {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        Box::new(Self {
            code,
            detail: detail.into(),
            source: None,
            meta: None,
            headers,
            cause: None,
        })
    }

    /// Creates an error for a failure of the server. The log contains `cause` together with the
    /// request id that the client receives.
    pub(crate) fn internal(cause: impl Into<String>) -> Box<Self> {
        Self::new(
            Code::InternalError,
            "The server failed to process the request. The server log has the cause under the id of \
             this error.",
        )
        .with_cause(cause)
    }

    fn with_cause(mut self: Box<Self>, cause: impl Into<String>) -> Box<Self> {
        self.cause = Some(cause.into());
        self
    }

    /// Replaces `detail`.
    pub(crate) fn with_detail(
        mut self: Box<Self>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        self.detail = detail.into();
        self
    }

    /// Sets `source` to the header that caused the error.
    pub(crate) fn at_header(mut self: Box<Self>, name: &'static str) -> Box<Self> {
        self.source = Some(ErrorSource::Header(name));
        self
    }

    /// Sets `source` to a member of the document.
    fn at_member(mut self: Box<Self>, key: &str) -> Box<Self> {
        let escaped = key.replace('~', "~0").replace('/', "~1");
        self.source = Some(ErrorSource::Pointer(format!("/{escaped}")));
        self
    }

    /// Sets `source` to the whole document.
    fn at_root(mut self: Box<Self>) -> Box<Self> {
        self.source = Some(ErrorSource::Pointer(String::new()));
        self
    }

    /// Sets `meta` to the exceeded limit and to `actual`, which is the size that was sent or a
    /// lower bound of that size.
    pub(crate) fn limit(mut self: Box<Self>, limit: u64, actual: u64) -> Box<Self> {
        self.meta = Some(json!({ "limit": limit, "actual": actual }));
        self
    }

    /// Sets `meta` to the position in the request body at which the error was found.
    fn position(mut self: Box<Self>, at: Position) -> Box<Self> {
        self.meta = Some(json!({ "line": at.line, "column": at.column, "offset": at.offset }));
        self
    }

    /// Sets the Retry-After header to a time, rounded up to seconds.
    pub(crate) fn retry_after(mut self: Box<Self>, wait: Duration) -> Box<Self> {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.headers.insert(RETRY_AFTER, seconds.into());
        self
    }

    /// Adds the Allow header with the methods that the resource supports.
    pub(crate) fn allow(mut self: Box<Self>, methods: &'static str) -> Box<Self> {
        self.headers
            .insert(ALLOW, HeaderValue::from_static(methods));
        self
    }

    /// Adds the WWW-Authenticate header with the challenge for a Bearer token (RFC 6750 section 3).
    pub(crate) fn challenge(mut self: Box<Self>, challenge: HeaderValue) -> Box<Self> {
        self.headers.insert(WWW_AUTHENTICATE, challenge);
        self
    }

    /// Adds the ETag of the stored document. If `revision` is `None`, no document is stored, and no
    /// ETag is added.
    pub(crate) fn current(mut self: Box<Self>, revision: Option<Revision>) -> Box<Self> {
        if let Some(etag) = revision.and_then(etag) {
            self.headers.insert(ETAG, etag);
        }
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The response body, with `id` as the request id.
    pub(crate) fn to_json(&self, id: &str) -> Value {
        let (status, code, title) = self.code.row();
        let mut error = json!({
            "id": id,
            "status": status.as_str(),
            "code": code,
            "title": title,
            "detail": self.detail,
        });
        if let Some(members) = error.as_object_mut() {
            match &self.source {
                Some(ErrorSource::Header(name)) => {
                    members.insert("source".to_owned(), json!({ "header": name }));
                }
                Some(ErrorSource::Pointer(pointer)) => {
                    members.insert("source".to_owned(), json!({ "pointer": pointer }));
                }
                None => {}
            }
            if let Some(meta) = &self.meta {
                members.insert("meta".to_owned(), meta.clone());
            }
        }
        json!({ "errors": [error] })
    }

    /// Builds the response. `close` must be true if the request body was not read to its end,
    /// because the next bytes on the connection are then the rest of the body, and not a new
    /// request.
    pub(crate) fn response(self, id: &RequestId, close: bool) -> Response<Body> {
        let body = self.to_json(id.as_str()).to_string();
        let (status, ..) = self.code.row();
        let mut response = Response::new(Body::full(Bytes::from(body)));
        *response.status_mut() = status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(CONTENT_TYPE, JSON_API_VALUE);
        // Without Cache-Control, a cache may store some errors, such as 404 and 501 (RFC 9110
        // section 15.1), and send them after their cause has gone.
        response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
        if close {
            response.headers_mut().insert(CONNECTION, CLOSE);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::SystemTime;

    use super::*;
    use crate::store::{Error, Violation};

    /// Builds the response for `error`. Returns the error object from the response body as the
    /// first value, and the response as the second.
    fn respond(error: Box<ApiError>) -> (Value, Response<Body>) {
        let id = RequestId::new(SystemTime::now());
        let response = error.response(&id, false);
        let text = response.body().as_bytes().unwrap();
        let document: Value = serde_json::from_slice(text).unwrap();
        let errors = document["errors"].as_array().unwrap();
        assert_eq!((document.as_object().unwrap().len(), errors.len()), (1, 1));
        let error = errors[0].clone();
        assert_eq!(error["id"], id.as_str());
        assert_eq!(error["status"], response.status().as_str());
        assert_eq!(response.headers()[CONTENT_TYPE], "application/vnd.api+json");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        (error, response)
    }

    fn error_object(violation: Violation) -> Value {
        respond(Error::Rejected(violation).into()).0
    }

    const AT: Position = Position {
        offset: 7,
        line: 2,
        column: 3,
    };

    #[test]
    fn error_object_has_every_required_member_and_no_empty_one() {
        let (error, _) = respond(ApiError::new(Code::NotFound, "No \"such\" thing."));
        let members = error.as_object().unwrap();
        let names: Vec<&String> = members.keys().collect();
        assert_eq!(names, ["code", "detail", "id", "status", "title"]);
        assert_eq!(error["code"], "not-found");
        assert_eq!(error["title"], "Resource not found");
        assert_eq!(error["detail"], "No \"such\" thing.");
        let (error, _) = respond(ApiError::new(Code::InvalidToken, "x").at_header("Authorization"));
        assert_eq!(error["source"], json!({"header": "Authorization"}));
    }

    #[test]
    fn exceeded_limit_reports_limit_and_actual_size() {
        let meta = json!({"limit": 10, "actual": 11});
        let keys = error_object(Violation::TooManyKeys {
            at: AT,
            limit: 10,
            actual: 11,
        });
        let key = error_object(Violation::KeyTooLong {
            at: AT,
            limit: 10,
            actual: 11,
        });
        let value = error_object(Violation::ValueTooLong {
            at: AT,
            key: "a/b~c".to_owned(),
            limit: 10,
            actual: 11,
        });
        let body = error_object(Violation::BodyTooLong {
            limit: 10,
            actual: 11,
        });
        for (error, code) in [
            (&keys, "max-keys-exceeded"),
            (&key, "max-key-length-exceeded"),
            (&value, "max-value-length-exceeded"),
            (&body, "max-body-length-exceeded"),
        ] {
            assert_eq!(
                (&error["status"], &error["code"]),
                (&json!("413"), &json!(code))
            );
            assert_eq!(error["meta"], meta, "{code}");
        }
        assert_eq!(keys["source"], json!({"pointer": ""}));
        assert_eq!(value["source"], json!({"pointer": "/a~1b~0c"}));
        // prefd does not read a key to its end if the key is too long, so the error has no pointer
        // to the key.
        assert_eq!(
            (&key["source"], &body["source"]),
            (&Value::Null, &Value::Null)
        );
    }

    #[test]
    fn invalid_document_reports_the_position() {
        let meta = json!({"offset": 7, "line": 2, "column": 3});
        let json = error_object(Violation::Json {
            at: AT,
            what: "no colon".to_owned(),
        });
        let not_an_object = error_object(Violation::NotAnObject { at: AT });
        let duplicate = error_object(Violation::DuplicateKey {
            at: AT,
            key: "k".to_owned(),
        });
        for (error, code) in [
            (&json, "invalid-json"),
            (&not_an_object, "invalid-document"),
            (&duplicate, "duplicate-key"),
        ] {
            assert_eq!(
                (&error["status"], &error["code"]),
                (&json!("400"), &json!(code))
            );
            assert_eq!(error["meta"], meta, "{code}");
        }
        assert_eq!(json["source"], Value::Null);
        assert_eq!(duplicate["source"], json!({"pointer": "/k"}));
    }

    #[test]
    fn response_to_a_server_error_reveals_no_internals() {
        let corrupt = Error::Corrupt {
            path: PathBuf::from("/secret/place"),
            offset: 1,
            what: "a checksum".to_owned(),
        };
        let corrupt: Box<ApiError> = corrupt.into();
        assert!(corrupt.cause().unwrap().contains("/secret/place"));
        let (error, response) = respond(corrupt);
        assert_eq!(
            (&error["status"], &error["code"]),
            (&json!("501"), &json!("internal-error"))
        );
        assert!(!error.to_string().contains("secret"));
        assert!(response.headers().get(RETRY_AFTER).is_none());
        let full = Error::StorageFull {
            path: PathBuf::from("/secret"),
        };
        assert_eq!(respond(full.into()).0["status"], "507");
    }

    #[test]
    fn statuses_have_the_headers_that_http_requires() {
        for error in [Error::Overloaded, Error::Closed] {
            let (error, response) = respond(error.into());
            assert_eq!(error["status"], "503");
            assert_eq!(response.headers()[RETRY_AFTER], "1");
        }
        let current = Some(Revision::new(42));
        let failed = Error::PreconditionFailed { current };
        let (error, response) = respond(failed.into());
        assert_eq!(error["code"], "precondition-failed");
        assert_eq!(response.headers()[ETAG], "\"42\"");
        let failed = Error::PreconditionFailed { current: None };
        assert!(respond(failed.into()).1.headers().get(ETAG).is_none());
        let closing = ApiError::new(Code::RequestTimeout, "x")
            .response(&RequestId::new(SystemTime::now()), true);
        assert_eq!(closing.headers()[CONNECTION], "close");
    }
}
