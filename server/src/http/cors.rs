//! Pages of other origins (the Fetch standard, "CORS protocol"): which may ask, and what
//! of an answer they may see. Off where no origin is named.
//!
//! Tokens come in a header that a page must set itself, never in a cookie, so credentials
//! mode is of no use here and is not allowed.

use std::collections::HashSet;

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::http::body::Body;
use crate::http::route::METHODS;

const ANY: &str = "*";
const HEADERS: &str = "Authorization, Content-Type, If-Match, If-None-Match, \
                       If-Modified-Since, If-Unmodified-Since";
/// Headers that a page could not see, were they not named.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("ETag, Request-Id, Retry-After, WWW-Authenticate");
/// How long a browser need not ask again, in seconds: what browsers grant at most.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const BY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
/// Of a preflight, what its answer depends on.
const BY_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);

/// Who may ask.
#[derive(Debug)]
pub(crate) struct Cors {
    /// `None` for everybody.
    origins: Option<HashSet<String>>,
    /// What a page may set.
    headers: HeaderValue,
}

/// Not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorsError {
    #[error("--cors-origin {0:?}: not an origin such as https://app.example, or *")]
    Origin(String),
    #[error("--cors-header {0:?}: not a header's name")]
    Header(String),
}

impl Cors {
    /// For pages of these origins, which may set these headers besides those that the API
    /// has.
    pub(crate) fn new(origins: &[String], headers: &[String]) -> Result<Self, CorsError> {
        let odd = |origin: &&String| *origin != ANY && !is_origin(origin);
        if let Some(origin) = origins.iter().find(odd) {
            return Err(CorsError::Origin(origin.clone()));
        }
        let is_name = |name: &str| hyper::header::HeaderName::try_from(name).is_ok();
        if let Some(name) = headers.iter().find(|name| !is_name(name)) {
            return Err(CorsError::Header(name.clone()));
        }
        let mut all = vec![HEADERS];
        all.extend(headers.iter().map(String::as_str));
        let headers = HeaderValue::try_from(all.join(", "));
        let is_any = origins.iter().any(|origin| origin == ANY);
        Ok(Self {
            origins: (!is_any).then(|| origins.iter().cloned().collect()),
            headers: headers.unwrap_or(HeaderValue::from_static(HEADERS)),
        })
    }

    /// What a page of the request's origin is told, if it may ask.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        match &self.origins {
            None => Some(HeaderValue::from_static(ANY)),
            Some(origins) => {
                let is_named = origin.to_str().is_ok_and(|origin| origins.contains(origin));
                is_named.then(|| origin.clone())
            }
        }
    }

    /// The answer to a browser that asks what a page may do; `None` for any other request.
    pub(crate) fn preflight(&self, parts: &Parts) -> Option<Response<Body>> {
        let asks = parts.method == Method::OPTIONS
            && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let origin = asks.then(|| self.allowed(&parts.headers)).flatten()?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static(METHODS),
        );
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        headers.insert(VARY, BY_PREFLIGHT);
        Some(response)
    }

    /// Lets the page that has asked see the answer.
    pub(crate) fn expose(&self, request: &HeaderMap, answer: &mut HeaderMap) {
        // A cache must not give one origin what was said to another, nor to none.
        if self.origins.is_some() {
            answer.append(VARY, BY_ORIGIN);
        }
        if let Some(origin) = self.allowed(request) {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
    }
}

/// `scheme://host[:port]`, as browsers write it: in lower case, without a path.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else {
        return false;
    };
    let is_scheme = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    let is_host = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:[]_".contains(&b);
    !scheme.is_empty()
        && scheme.bytes().all(is_scheme)
        && !host.is_empty()
        && host.bytes().all(is_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Result<Cors, CorsError> {
        let origins: Vec<String> = origins.iter().map(|o| (*o).to_owned()).collect();
        Cors::new(&origins, &["Traceparent".to_owned()])
    }

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        for good in [
            "*",
            "https://app.example",
            "http://localhost:3000",
            "app+x://[::1]",
        ] {
            assert!(cors(&[good]).is_ok(), "{good}");
        }
        for bad in [
            "",
            "app.example",
            "https://",
            "https://app.example/",
            "https://App.example",
            "https://a.example, https://b.example",
            "null",
            "://x",
        ] {
            assert_eq!(cors(&[bad]).unwrap_err(), CorsError::Origin(bad.to_owned()));
        }
        let odd = Cors::new(&["*".to_owned()], &["a b".to_owned()]);
        assert_eq!(odd.unwrap_err(), CorsError::Header("a b".to_owned()));
    }

    #[test]
    fn an_origin_is_compared_whole() {
        let cors = cors(&["https://app.example"]).unwrap();
        let allows = |origin: &'static str| {
            let headers = [(ORIGIN, HeaderValue::from_static(origin))]
                .into_iter()
                .collect();
            cors.allowed(&headers).is_some()
        };
        assert!(allows("https://app.example"));
        for other in [
            "https://app.example.evil",
            "http://app.example",
            "https://app.exampl",
            "null",
        ] {
            assert!(!allows(other), "{other}");
        }
    }
}
