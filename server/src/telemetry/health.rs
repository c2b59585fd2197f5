//! Whether the process lives, and whether it is ready for requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::auth::Authenticator;
use crate::http::Body;
use crate::store::Store;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Which question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Whether to leave the process alone.
    Live,
    /// Whether to send it requests.
    Ready,
}

impl Probe {
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Live => "/livez",
            Self::Ready => "/readyz",
        }
    }

    pub(crate) fn of(path: &str) -> Option<Self> {
        [Self::Live, Self::Ready]
            .into_iter()
            .find(|probe| probe.path() == path)
    }
}

pub(crate) struct Health {
    store: Store,
    authenticator: Arc<Authenticator>,
    is_stopping: AtomicBool,
}

impl Health {
    pub(crate) fn new(store: Store, authenticator: Arc<Authenticator>) -> Self {
        Self {
            store,
            authenticator,
            is_stopping: AtomicBool::new(false),
        }
    }

    /// From now on it is not ready any more.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Why it is not ready; empty where it is.
    pub(crate) fn reasons(&self) -> Vec<&'static str> {
        let mut reasons = Vec::new();
        if self.is_stopping.load(Ordering::Acquire) {
            reasons.push("stopping");
        }
        if self.store.ready().is_err() {
            reasons.push("not-writable");
        }
        if !self.authenticator.has_keys_of_all_providers() {
            reasons.push("identity-provider-never-reached");
        }
        reasons
    }

    pub(crate) fn answer(&self, probe: Probe) -> Response<Body> {
        let reasons = match probe {
            Probe::Live => Vec::new(),
            Probe::Ready => self.reasons(),
        };
        let mut response = if reasons.is_empty() {
            let mut response = Response::new(Body::whole(Bytes::from_static(b"ok\n")));
            response.headers_mut().insert(CONTENT_TYPE, TEXT);
            response
        } else {
            let body = json!({ "ready": false, "reasons": reasons }).to_string();
            let mut response = Response::new(Body::whole(body.into()));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(CONTENT_TYPE, JSON);
            response
        };
        response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
        response
    }
}
