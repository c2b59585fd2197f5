//! CORS (section "CORS protocol" of the Fetch standard). CORS controls which web pages of other
//! origins may send requests, and which response headers these pages can read. CORS is off unless
//! an origin is configured.
//!
//! A web page sends its token in the Authorization header, never in a cookie. The page therefore
//! needs no credentialed requests, and prefd never sends `Access-Control-Allow-Credentials`.

use std::collections::HashSet;

use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    CACHE_CONTROL, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::http::body::Body;
use crate::http::header::NO_STORE;
use crate::http::route::METHODS;

const ANY: &str = "*";
/// Request headers that a page of an allowed origin may always set.
const API_HEADERS: &str = "Authorization, Content-Type, If-Match, If-None-Match, \
                       If-Modified-Since, If-Unmodified-Since";
/// Response headers that a page of an allowed origin can read, in addition to the headers that
/// browsers always expose.
const EXPOSED_HEADERS: HeaderValue =
    HeaderValue::from_static("ETag, Request-Id, Retry-After, WWW-Authenticate");
/// How long a browser may cache the result of a preflight, in seconds. Chromium limits this time to
/// 7200 seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
/// The request headers that the response to a preflight depends on.
const VARY_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);

/// Which origins may send requests, and which request headers their pages may set.
#[derive(Debug)]
pub(crate) struct Cors {
    /// The allowed origins. `None` allows all origins.
    origins: Option<HashSet<String>>,
    /// The request headers that pages may set.
    headers: HeaderValue,
}

/// A CORS setting is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CorsError {
    #[error(
        "--cors-origin {0:?} is not valid: expected an origin such as https://app.example, or *"
    )]
    Origin(String),
    #[error("--cors-header {0:?} is not valid: expected the name of a header")]
    Header(String),
}

impl Cors {
    /// Creates a policy that allows requests from pages of these origins. The pages may set
    /// `headers` in addition to the headers that the API uses.
    ///
    /// # Errors
    /// [`CorsError`] for the first invalid origin or, if all origins are valid, for the first
    /// invalid header name.
    pub(crate) fn new(origins: &[String], headers: &[String]) -> Result<Self, CorsError> {
        let is_invalid = |origin: &&String| *origin != ANY && !is_origin(origin);
        if let Some(origin) = origins.iter().find(is_invalid) {
            return Err(CorsError::Origin(origin.clone()));
        }
        let is_name = |name: &str| hyper::header::HeaderName::try_from(name).is_ok();
        if let Some(name) = headers.iter().find(|name| !is_name(name)) {
            return Err(CorsError::Header(name.clone()));
        }
        let mut all = vec![API_HEADERS];
        all.extend(headers.iter().map(String::as_str));
        let headers = HeaderValue::try_from(all.join(", "));
        let is_any = origins.iter().any(|origin| origin == ANY);
        Ok(Self {
            origins: (!is_any).then(|| origins.iter().cloned().collect()),
            headers: headers.unwrap_or(HeaderValue::from_static(API_HEADERS)),
        })
    }

    /// The value of `Access-Control-Allow-Origin`, if the request's origin is allowed.
    fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        match &self.origins {
            None => Some(HeaderValue::from_static(ANY)),
            Some(origins) => {
                let is_named = origin.to_str().is_ok_and(|origin| origins.contains(origin));
                is_named.then(|| origin.clone())
            }
        }
    }

    /// The response to a preflight request from an allowed origin. `None` for any other request.
    pub(crate) fn preflight(&self, parts: &Parts) -> Option<Response<Body>> {
        let is_preflight = parts.method == Method::OPTIONS
            && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let origin = is_preflight
            .then(|| self.allowed_origin(&parts.headers))
            .flatten()?;
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
        headers.insert(VARY, VARY_PREFLIGHT);
        headers.insert(CACHE_CONTROL, NO_STORE);
        Some(response)
    }

    /// Adds the response headers that allow a page of an allowed origin to read the response.
    pub(crate) fn add_headers(&self, request: &HeaderMap, response: &mut HeaderMap) {
        // Without `Vary: Origin`, a cache could send a response that was generated for another
        // origin, or for a request without `Origin`.
        if self.origins.is_some() {
            response.append(VARY, VARY_ORIGIN);
        }
        if let Some(origin) = self.allowed_origin(request) {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        }
    }
}

/// Whether the text is an origin as browsers send it: `scheme://host[:port]`, in lower case and
/// without a path.
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
    fn only_origins_as_browsers_send_them_are_accepted() {
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
        let invalid = Cors::new(&["*".to_owned()], &["a b".to_owned()]);
        assert_eq!(invalid.unwrap_err(), CorsError::Header("a b".to_owned()));
    }

    #[test]
    fn origin_matches_only_if_it_is_identical() {
        let cors = cors(&["https://app.example"]).unwrap();
        let allows = |origin: &'static str| {
            let headers = [(ORIGIN, HeaderValue::from_static(origin))]
                .into_iter()
                .collect();
            cors.allowed_origin(&headers).is_some()
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
