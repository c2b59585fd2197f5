//! Health checks: whether the process responds, and whether it is ready for requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::auth::Authenticator;
use crate::http::{Body, JSON, NO_STORE};
use crate::store::Store;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// A health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Succeeds whenever the process responds. If the liveness check fails, restart the process.
    Live,
    /// Succeeds if the server is ready for requests.
    Ready,
}

impl Probe {
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Live => "/livez",
            Self::Ready => "/readyz",
        }
    }

    /// Returns the health check with this path, or `None` if no health check has this path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        [Self::Live, Self::Ready]
            .into_iter()
            .find(|probe| probe.path() == path)
    }
}

/// The state that the health checks report.
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

    /// Makes the readiness check report that the server is stopping and therefore not ready.
    pub(crate) fn set_stopping(&self) {
        self.is_stopping.store(true, Ordering::Release);
    }

    /// Returns the reasons why the server is not ready. The list is empty if the server is ready.
    pub(crate) fn not_ready_reasons(&self) -> Vec<&'static str> {
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

    /// Returns the response to a health check: 200, or 503 with the reasons as JSON.
    pub(crate) fn response(&self, probe: Probe) -> Response<Body> {
        let reasons = match probe {
            Probe::Live => Vec::new(),
            Probe::Ready => self.not_ready_reasons(),
        };
        let mut response = if reasons.is_empty() {
            let mut response = Response::new(Body::full(Bytes::from_static(b"ok\n")));
            response.headers_mut().insert(CONTENT_TYPE, TEXT);
            response
        } else {
            let body = json!({ "ready": false, "reasons": reasons }).to_string();
            let mut response = Response::new(Body::full(body.into()));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert(CONTENT_TYPE, JSON);
            response
        };
        response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
        response
    }
}
