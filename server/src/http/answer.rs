//! Answers that are successes: heads of documents, and of what is known of them.

use std::time::SystemTime;

use httpdate::HttpDate;
use hyper::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderValue, LAST_MODIFIED, VARY,
};
use hyper::{Response, StatusCode};

use crate::http::body::Body;
use crate::http::error::Refusal;
use crate::http::etag::etag;
use crate::http::header::header_value;
use crate::store::{Error, Revision, Stat};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// A user's document is that user's only, and must be asked for again: its ETag makes
/// that cheap.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const BY_AUTHORIZATION: HeaderValue = HeaderValue::from_static("Authorization");
/// Headers of an answer with a document, at most.
const FOUND_HEADERS: usize = 7;
/// What a namespace answers that holds nothing.
pub(crate) const NO_DOCUMENT: &[u8] = b"{}";

pub(crate) fn precondition_failed(current: Option<Revision>) -> Box<Refusal> {
    Error::PreconditionFailed { current }.into()
}

pub(crate) fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

pub(crate) fn not_modified(current: Option<Revision>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    // Section 15.4.5 of RFC 9110: what a 200 would have sent of these.
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, PRIVATE);
    headers.insert(VARY, BY_AUTHORIZATION);
    if let Some(etag) = current.and_then(etag) {
        headers.insert(ETAG, etag);
    }
    response
}

/// A 200; without `body` the answer to a HEAD.
pub(crate) fn found(stat: Option<Stat>, body: Option<Body>) -> Response<Body> {
    let is_head = body.is_none();
    let mut response = Response::new(body.unwrap_or_else(Body::empty));
    let headers = response.headers_mut();
    headers.reserve(FOUND_HEADERS);
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(CACHE_CONTROL, PRIVATE);
    headers.insert(VARY, BY_AUTHORIZATION);
    // Of a body that is sent hyper knows it.
    if is_head {
        let bytes = stat.map_or(NO_DOCUMENT.len() as u64, |stat| stat.usage.bytes);
        headers.insert(CONTENT_LENGTH, bytes.into());
    }
    if let Some(stat) = stat {
        if let Some(etag) = etag(stat.revision) {
            headers.insert(ETAG, etag);
        }
        if let Some(modified) = http_date(stat.modified) {
            headers.insert(LAST_MODIFIED, modified);
        }
    }
    response
}

pub(super) fn http_date(time: SystemTime) -> Option<HeaderValue> {
    header_value(format_args!("{}", HttpDate::from(time)))
}
