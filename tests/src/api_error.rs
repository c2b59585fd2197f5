//! Checks a complete error response: the status, the headers, and every member of the error
//! object.

use serde_json::Value;

use crate::http::Response;

/// The error that a test expects.
#[derive(Debug, Clone)]
pub struct ExpectedError {
    status: u16,
    code: &'static str,
    title: &'static str,
    source: Option<Value>,
    meta: Option<Value>,
    challenge: Option<String>,
}

/// Checks that a response is a complete, well-formed error with a documented code. Returns the
/// code.
pub fn check_any(response: &Response, context: &str) -> &'static str {
    let body: Value = serde_json::from_slice(&response.body)
        .unwrap_or_else(|error| panic!("{context}: {error}: {response:?}"));
    let error = &body["errors"][0];
    let code = error["code"].as_str().unwrap_or_default();
    let known = TABLE.iter().find(|(name, ..)| *name == code);
    let (code, ..) = known
        .unwrap_or_else(|| panic!("{context}: the error has no documented code: {response:?}"));
    let expected = ExpectedError {
        source: error.get("source").cloned(),
        meta: error.get("meta").cloned(),
        challenge: response.header("www-authenticate").map(str::to_owned),
        ..ExpectedError::code(code)
    };
    expected.check(response, context);
    code
}

/// All documented error codes.
pub fn codes() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(code, ..)| *code)
}

/// Each error code with its status and title.
const TABLE: [(&str, u16, &str); 22] = [
    ("invalid-json", 400, "Invalid JSON"),
    ("invalid-document", 400, "Document is not a JSON object"),
    ("duplicate-key", 400, "Duplicate key"),
    ("invalid-client-id", 400, "Invalid client ID"),
    ("invalid-request", 400, "Invalid request"),
    ("missing-token", 401, "OAuth token missing"),
    ("invalid-token", 401, "OAuth token invalid"),
    (
        "missing-linked-identity",
        401,
        "Missing linked identity for authorized access",
    ),
    ("insufficient-scope", 403, "Insufficient scope"),
    ("not-found", 404, "Resource not found"),
    ("method-not-allowed", 405, "Method not allowed"),
    ("request-timeout", 408, "Request timeout"),
    ("precondition-failed", 412, "Precondition failed"),
    ("max-keys-exceeded", 413, "Max number of keys exceeded"),
    ("max-key-length-exceeded", 413, "Max key length exceeded"),
    (
        "max-value-length-exceeded",
        413,
        "Max value length exceeded",
    ),
    ("max-body-length-exceeded", 413, "Max body length exceeded"),
    ("unsupported-media-type", 415, "Unsupported media type"),
    ("internal-error", 501, "Internal server error"),
    ("overloaded", 503, "Server overloaded"),
    ("shutting-down", 503, "Server shutting down"),
    ("insufficient-storage", 507, "Insufficient storage"),
];

impl ExpectedError {
    /// The error with the given code, without `source` and `meta`.
    pub fn code(code: &'static str) -> Self {
        let (_, status, title) = TABLE
            .iter()
            .find(|(name, ..)| *name == code)
            .unwrap_or_else(|| panic!("{code} is not a documented error code"));
        let challenge = match code {
            "invalid-token" => Some("Bearer realm=\"prefd\", error=\"invalid_token\"".to_owned()),
            "missing-token" | "missing-linked-identity" => {
                Some("Bearer realm=\"prefd\"".to_owned())
            }
            _ => None,
        };
        Self {
            status: *status,
            code,
            title,
            source: None,
            meta: None,
            challenge,
        }
    }

    /// Expects the given `source` member.
    #[must_use]
    pub fn source(mut self, source: Value) -> Self {
        self.source = Some(source);
        self
    }

    /// Expects the given `meta` member.
    #[must_use]
    pub fn meta(mut self, meta: Value) -> Self {
        self.meta = Some(meta);
        self
    }

    /// Expects the `WWW-Authenticate` challenge that names a missing scope.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        self.challenge = Some(format!(
            "Bearer realm=\"prefd\", error=\"insufficient_scope\", scope=\"{scope}\""
        ));
        self
    }

    /// Checks the status and the headers, and returns the value of the Request-Id header.
    pub fn check_headers(&self, response: &Response, context: &str) -> String {
        assert_eq!(response.status, self.status, "{context}: {response:?}");
        assert_eq!(
            response.header("content-type"),
            Some("application/vnd.api+json"),
            "{context}"
        );
        assert_eq!(
            response.header("cache-control"),
            Some("no-store"),
            "{context}"
        );
        let challenge = response.header("www-authenticate");
        assert_eq!(challenge, self.challenge.as_deref(), "{context}");
        let retry = response
            .header("retry-after")
            .map(|seconds| seconds.parse::<u32>().unwrap());
        assert_eq!(retry.is_some(), self.status == 503, "{context}");
        let id = response
            .header("request-id")
            .expect("an error response has a Request-Id header");
        let is_xid = id.len() == 20 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v'));
        assert!(is_xid, "{context}: {id}");
        id.to_owned()
    }

    /// Checks the status, the headers and the body.
    pub fn check(&self, response: &Response, context: &str) {
        let id = self.check_headers(response, context);
        let body: Value = serde_json::from_slice(&response.body)
            .unwrap_or_else(|error| panic!("{context}: {error}: {response:?}"));
        let errors = body.as_object().unwrap();
        assert_eq!(errors.keys().collect::<Vec<_>>(), ["errors"], "{context}");
        let errors = errors["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{context}");
        let error = errors[0].as_object().unwrap();
        assert_eq!(error["id"], *id, "{context}");
        assert_eq!(error["status"], self.status.to_string(), "{context}");
        assert_eq!(error["code"], self.code, "{context}: {error:?}");
        assert_eq!(error["title"], self.title, "{context}");
        let detail = error["detail"].as_str().unwrap();
        assert!(!detail.is_empty() && detail != self.title, "{context}");
        assert_eq!(error.get("source"), self.source.as_ref(), "{context}");
        match (&self.meta, error.get("meta")) {
            // This checks only that a position is reported. Other tests check which position.
            (None, Some(meta)) => {
                let names: Vec<_> = meta.as_object().unwrap().keys().cloned().collect();
                assert_eq!(names, ["column", "line", "offset"], "{context}");
            }
            (expected, found) => assert_eq!(found, expected.as_ref(), "{context}"),
        }
        let known = ["code", "detail", "id", "meta", "source", "status", "title"];
        assert!(
            error.keys().all(|name| known.contains(&name.as_str())),
            "{context}: {error:?}"
        );
    }
}
