//! Builds the responses with the statuses 200, 204 and 304, and the error for the status 412.

use std::time::SystemTime;

use hyper::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, LAST_MODIFIED, VARY,
};
use hyper::{Response, StatusCode};

use crate::http::body::Body;
use crate::http::date::last_modified;
use crate::http::error::ApiError;
use crate::http::etag::etag;
use crate::http::header::{JSON, NO_STORE};
use crate::store::{Error, Revision, Stat};

/// Shared caches must not store a user's document. A private cache may store the document, but must
/// revalidate it before each use. The ETag makes revalidation cheap.
const PRIVATE_NO_CACHE: HeaderValue = HeaderValue::from_static("private, no-cache");
const VARY_AUTHORIZATION: HeaderValue = HeaderValue::from_static("Authorization");
/// Maximum number of headers in a 200 without CORS headers: [`ok`] sets up to six, and Request-Id
/// and Date are added later. Space for this number of headers is reserved at once, so that the
/// header map does not grow while headers are inserted.
const OK_HEADERS: usize = 8;
/// The response body for a namespace without a document.
pub(crate) const EMPTY_DOCUMENT: &[u8] = b"{}";

/// The error for an unmet precondition (412). If `current` is not `None`, the error has an ETag
/// header with that revision.
pub(crate) fn precondition_failed(current: Option<Revision>) -> Box<ApiError> {
    Error::PreconditionFailed { current }.into()
}

/// Builds a 204. Caches do not store the responses to a PUT or DELETE (RFC 9110 section 9.2.3), but
/// a cache that does not follow this rule must not store the response either.
pub(crate) fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Builds a 304. `current` is the revision of the stored document.
pub(crate) fn not_modified(current: Option<Revision>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    // If a 200 would have Cache-Control, ETag and Vary, the 304 must have these headers too (RFC
    // 9110 section 15.4.5).
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, PRIVATE_NO_CACHE);
    headers.insert(VARY, VARY_AUTHORIZATION);
    if let Some(etag) = current.and_then(etag) {
        headers.insert(ETAG, etag);
    }
    response
}

/// Builds a 200 for a document. `stat` is `None` if no document is stored. `body` is `None` for a
/// HEAD request. The document is shown with a date that is not later than `latest_date`.
pub(crate) fn ok(
    stat: Option<Stat>,
    body: Option<Body>,
    latest_date: SystemTime,
) -> Response<Body> {
    let is_head = body.is_none();
    let mut response = Response::new(body.unwrap_or_else(Body::empty));
    let headers = response.headers_mut();
    headers.reserve(OK_HEADERS);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, PRIVATE_NO_CACHE);
    headers.insert(VARY, VARY_AUTHORIZATION);
    // hyper derives Content-Length from the body. A response to HEAD has no body, so its
    // Content-Length is set here.
    if is_head {
        let bytes = stat.map_or(EMPTY_DOCUMENT.len() as u64, |stat| stat.usage.bytes);
        headers.insert(CONTENT_LENGTH, bytes.into());
    }
    if let Some(stat) = stat {
        if let Some(etag) = etag(stat.revision) {
            headers.insert(ETAG, etag);
        }
        if let Some(date) = last_modified(stat.modified, latest_date) {
            headers.insert(LAST_MODIFIED, date);
        }
    }
    response
}
