//! Every answer that is not a success: one JSON:API error object
//! (<https://jsonapi.org/format/1.1/#error-objects>), its status and its headers.
//!
//! `code` and `title` are stable; `detail` speaks of the occurrence and never of
//! what is inside the server.

mod code;
mod store;

use std::borrow::Cow;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use serde_json::{Value, json};

use crate::http::body::Body;
use crate::http::etag::etag;
use crate::http::id::RequestId;
use crate::store::{Position, Revision};
pub(crate) use code::Code;

/// The media type of every error.
pub(crate) const JSON_API: &str = "application/vnd.api+json";
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static(JSON_API);
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// Seconds after which an overloaded or stopping server is worth another try.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// What the error points at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Header(&'static str),
    /// RFC 6901, of a value that is in the request.
    Pointer(String),
}

/// A refusal: everything that its answer needs but the request's id.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: Code,
    detail: Cow<'static, str>,
    source: Option<Source>,
    meta: Option<Value>,
    headers: HeaderMap,
    /// For the log alone.
    cause: Option<String>,
}

impl Refusal {
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

    /// Something that is not the client's fault. The cause goes to the log, next to the
    /// id that the client is told.
    pub(crate) fn internal(cause: impl Into<String>) -> Box<Self> {
        Self::new(
            Code::InternalError,
            "The server could not carry out the request.",
        )
        .because(cause)
    }

    fn because(mut self: Box<Self>, cause: impl Into<String>) -> Box<Self> {
        self.cause = Some(cause.into());
        self
    }

    /// The same, in other words about this occurrence.
    pub(crate) fn detailed(mut self: Box<Self>, detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        self.detail = detail.into();
        self
    }

    pub(crate) fn at_header(mut self: Box<Self>, name: &'static str) -> Box<Self> {
        self.source = Some(Source::Header(name));
        self
    }

    fn at_member(mut self: Box<Self>, key: &str) -> Box<Self> {
        let escaped = key.replace('~', "~0").replace('/', "~1");
        self.source = Some(Source::Pointer(format!("/{escaped}")));
        self
    }

    /// Points at the whole document.
    fn at_root(mut self: Box<Self>) -> Box<Self> {
        self.source = Some(Source::Pointer(String::new()));
        self
    }

    pub(crate) fn limit(mut self: Box<Self>, limit: u64, actual: u64) -> Box<Self> {
        self.meta = Some(json!({ "limit": limit, "actual": actual }));
        self
    }

    fn position(mut self: Box<Self>, at: Position) -> Box<Self> {
        self.meta = Some(json!({ "line": at.line, "column": at.column, "offset": at.offset }));
        self
    }

    pub(crate) fn allow(mut self: Box<Self>, methods: &'static str) -> Box<Self> {
        self.headers
            .insert(ALLOW, HeaderValue::from_static(methods));
        self
    }

    /// The challenge of RFC 6750 section 3.
    pub(crate) fn challenge(mut self: Box<Self>, challenge: HeaderValue) -> Box<Self> {
        self.headers.insert(WWW_AUTHENTICATE, challenge);
        self
    }

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

    /// The body of the answer.
    pub(crate) fn document(&self, id: &str) -> Value {
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
                Some(Source::Header(name)) => {
                    members.insert("source".to_owned(), json!({ "header": name }));
                }
                Some(Source::Pointer(pointer)) => {
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

    /// The answer. `close`: the request's body was not read to its end, so nothing
    /// that follows on the connection can be understood.
    pub(crate) fn response(self, id: &RequestId, close: bool) -> Response<Body> {
        let body = self.document(id.as_str()).to_string();
        let (status, ..) = self.code.row();
        let mut response = Response::new(Body::whole(Bytes::from(body)));
        *response.status_mut() = status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
        if close {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
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

    /// The error object of an answer, and the answer.
    fn answered(refusal: Box<Refusal>) -> (Value, Response<Body>) {
        let id = RequestId::new(SystemTime::now());
        let response = refusal.response(&id, false);
        let text = response.body().as_bytes().unwrap();
        let document: Value = serde_json::from_slice(text).unwrap();
        let errors = document["errors"].as_array().unwrap();
        assert_eq!((document.as_object().unwrap().len(), errors.len()), (1, 1));
        let error = errors[0].clone();
        assert_eq!(error["id"], id.as_str());
        assert_eq!(error["status"], response.status().as_str());
        assert_eq!(response.headers()[CONTENT_TYPE], "application/vnd.api+json");
        (error, response)
    }

    fn of(violation: Violation) -> Value {
        answered(Error::Rejected(violation).into()).0
    }

    const AT: Position = Position {
        offset: 7,
        line: 2,
        column: 3,
    };

    #[test]
    fn a_refusal_has_all_members_of_an_error_object_and_no_empty_ones() {
        let (error, _) = answered(Refusal::new(Code::NotFound, "No \"such\" thing."));
        let members = error.as_object().unwrap();
        let names: Vec<&String> = members.keys().collect();
        assert_eq!(names, ["code", "detail", "id", "status", "title"]);
        assert_eq!(error["code"], "not-found");
        assert_eq!(error["title"], "Resource not found");
        assert_eq!(error["detail"], "No \"such\" thing.");
        let (error, _) = answered(Refusal::new(Code::InvalidToken, "x").at_header("Authorization"));
        assert_eq!(error["source"], json!({"header": "Authorization"}));
    }

    #[test]
    fn a_limit_tells_itself_and_what_was_sent() {
        let meta = json!({"limit": 10, "actual": 11});
        let keys = of(Violation::TooManyKeys {
            at: AT,
            limit: 10,
            actual: 11,
        });
        let key = of(Violation::KeyTooLong {
            at: AT,
            limit: 10,
            actual: 11,
        });
        let value = of(Violation::ValueTooLong {
            at: AT,
            key: "a/b~c".to_owned(),
            limit: 10,
            actual: 11,
        });
        let body = of(Violation::BodyTooLong {
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
        // The key that is too long is not known in full, and points at nothing.
        assert_eq!(
            (&key["source"], &body["source"]),
            (&Value::Null, &Value::Null)
        );
    }

    #[test]
    fn what_is_no_document_tells_where() {
        let meta = json!({"offset": 7, "line": 2, "column": 3});
        let json = of(Violation::Json {
            at: AT,
            what: "no colon".to_owned(),
        });
        let other = of(Violation::NotAnObject { at: AT });
        let twice = of(Violation::DuplicateKey {
            at: AT,
            key: "k".to_owned(),
        });
        for (error, code) in [
            (&json, "invalid-json"),
            (&other, "invalid-document"),
            (&twice, "duplicate-key"),
        ] {
            assert_eq!(
                (&error["status"], &error["code"]),
                (&json!("400"), &json!(code))
            );
            assert_eq!(error["meta"], meta, "{code}");
        }
        assert_eq!(json["source"], Value::Null);
        assert_eq!(twice["source"], json!({"pointer": "/k"}));
    }

    #[test]
    fn nothing_of_the_inside_is_told() {
        let corrupt = Error::Corrupt {
            path: PathBuf::from("/secret/place"),
            offset: 1,
            what: "a checksum".to_owned(),
        };
        let refusal: Box<Refusal> = corrupt.into();
        assert!(refusal.cause().unwrap().contains("/secret/place"));
        let (error, response) = answered(refusal);
        assert_eq!(
            (&error["status"], &error["code"]),
            (&json!("501"), &json!("internal-error"))
        );
        assert!(!error.to_string().contains("secret"));
        assert!(response.headers().get(RETRY_AFTER).is_none());
        let full = Error::StorageFull {
            path: PathBuf::from("/secret"),
        };
        assert_eq!(answered(full.into()).0["status"], "507");
    }

    #[test]
    fn headers_go_with_the_statuses_that_need_them() {
        for error in [Error::Overloaded, Error::Closed] {
            let (error, response) = answered(error.into());
            assert_eq!(error["status"], "503");
            assert_eq!(response.headers()[RETRY_AFTER], "1");
        }
        let current = Some(Revision::new(42));
        let failed = Error::PreconditionFailed { current };
        let (error, response) = answered(failed.into());
        assert_eq!(error["code"], "precondition-failed");
        assert_eq!(response.headers()[ETAG], "\"42\"");
        let failed = Error::PreconditionFailed { current: None };
        assert!(answered(failed.into()).1.headers().get(ETAG).is_none());
        let closing = Refusal::new(Code::RequestTimeout, "x")
            .response(&RequestId::new(SystemTime::now()), true);
        assert_eq!(closing.headers()[CONNECTION], "close");
    }
}
