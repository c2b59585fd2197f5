//! Handles the requests of the API: checks each request in the documented order, performs the
//! operation on the document, and builds the response.
//!
//! No code in this file blocks, because the store accesses the disk on blocking threads.

use std::borrow::Cow;
use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use hyper::body::{Body as _, Incoming};
use hyper::header::ETAG;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};

use crate::api::openapi::{self, OpenApi};
use crate::api::upload::{ReceivedDocument, UploadRules, receive};
use crate::auth::{Access, Authenticator, LastToken};
use crate::http::{
    ApiError, ApiResult, Body, Clock, Code, Conditions, Cors, EMPTY_DOCUMENT, METHODS, NO_USER,
    RequestBody, RequestContext, Route, UnmetCondition, body_headers, catch_unwind, etag,
    no_content, not_modified, ok, precondition_failed, request_head,
};
use crate::log::is_logging_requests;
use crate::net::{ConnectionContext, Service};
use crate::store::{Change, Namespace, Precondition, Revision, Revisions, Store};
use crate::telemetry::{Health, Probe, RequestMetrics, RouteKind};

/// Serves the requests of the API listener.
pub(crate) struct Handler {
    pub(crate) store: Store,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) health: Arc<Health>,
    pub(crate) requests: Arc<RequestMetrics>,
    /// The ids of the clients whose documents the server gives access to. `None` allows all
    /// clients.
    pub(crate) known_clients: Option<HashSet<String>>,
    /// The CORS policy. `None` if CORS is off.
    pub(crate) cors: Option<Cors>,
    pub(crate) versions: Vec<String>,
    pub(crate) clock: Clock,
    pub(crate) openapi: OpenApi,
    pub(crate) max_body_bytes: u64,
    pub(crate) uploads: UploadRules,
}

/// An operation on a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Get,
    Head,
    Put,
    Delete,
}

impl Operation {
    fn of(method: &Method) -> Option<Self> {
        match *method {
            Method::GET => Some(Self::Get),
            Method::HEAD => Some(Self::Head),
            Method::PUT => Some(Self::Put),
            Method::DELETE => Some(Self::Delete),
            _ => None,
        }
    }

    fn access(self) -> Access {
        match self {
            Self::Get | Self::Head => Access::Read,
            Self::Put | Self::Delete => Access::Write,
        }
    }
}

impl Service for Handler {
    /// Caches the connection's last token that was verified with a key, because most connections
    /// send the same token with every request.
    type Connection = LastToken;

    /// Each request allocates memory for the returned future, so the future must be small.
    fn respond(
        &self,
        request: Request<Incoming>,
        connection: &ConnectionContext<'_, LastToken>,
        on_response: impl FnOnce(&Response<Body>) + Send,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send {
        let context = RequestContext::new(self.clock);
        // `into_parts` is called outside the async block, so that the future contains only the
        // parts of the request, and not the request itself as well.
        let (parts, body) = request.into_parts();
        let mut body = RequestBody::new(body);
        async move {
            let route = Route::parse(parts.uri.path(), &self.versions);
            let user = AtomicU64::new(NO_USER);
            let operation = self.operate(&parts, route, &mut body, connection, &context, &user);
            let result = catch_unwind(pin!(operation)).await;
            let (kind, name) = match route {
                Some(_) => (RouteKind::Preferences, Route::TEMPLATE),
                None => other_route(parts.uri.path()),
            };
            let user = user.into_inner();
            let (mut response, duration) = context.finish(result, &parts.method, name, user, &body);
            if let Some(cors) = &self.cors {
                cors.add_headers(&parts.headers, response.headers_mut());
            }
            let status = response.status();
            self.requests.count(kind, &parts.method, status, duration);
            on_response(&response);
            Ok(response)
        }
    }
}

/// Returns the names under which metrics and the log record a request whose path is not the path of
/// a document.
fn other_route(path: &str) -> (RouteKind, &'static str) {
    match Probe::of(path) {
        Some(probe) => (RouteKind::Page, probe.path()),
        None if path == openapi::PATH => (RouteKind::Page, openapi::PATH),
        None => (RouteKind::None, "none"),
    }
}

impl Handler {
    /// Checks the request in the documented order, and performs the requested operation.
    async fn operate(
        &self,
        parts: &Parts,
        route: Option<Route<'_>>,
        body: &mut RequestBody,
        connection: &ConnectionContext<'_, LastToken>,
        context: &RequestContext,
        user: &AtomicU64,
    ) -> ApiResult {
        request_head::check(parts)?;
        if let Some(cors) = &self.cors
            && let Some(response) = cors.preflight(parts)
        {
            return Ok(response);
        }
        let Some(route) = route else {
            return self.serve_page(parts);
        };
        let operation = Operation::of(&parts.method).ok_or_else(|| {
            ApiError::new(
                Code::MethodNotAllowed,
                "Preferences support GET, HEAD, PUT and DELETE.",
            )
            .allow(METHODS)
        })?;
        let claims = self
            .authenticator
            .authenticate(
                &parts.headers,
                &connection.service_state,
                context.received_at(),
            )
            .await?;
        if is_logging_requests() {
            user.store(self.store.pseudonym(&claims.user), Ordering::Relaxed);
        }
        let client_id = route.client_id(&claims.client).map_err(|reason| {
            ApiError::new(Code::InvalidClientId, format!("The client ID {reason}"))
        })?;
        self.authenticator
            .authorize(&claims, operation.access(), &client_id)?;
        if let Some(known) = &self.known_clients
            && !known.contains(client_id.as_str())
        {
            return Err(ApiError::new(
                Code::NotFound,
                "This server does not allow this client ID.",
            ));
        }
        connection.state.record_granted();
        let namespace = Namespace {
            user: &claims.user,
            client: &client_id,
        };
        match operation {
            Operation::Get | Operation::Head => {
                let conditions = Conditions::from_headers(&parts.headers)?;
                let now = context.received_at();
                self.read(namespace, &conditions, operation, now).await
            }
            // The futures of writes are boxed, so that they do not enlarge the future of a read.
            Operation::Put => Box::pin(self.put(parts, namespace, body)).await,
            Operation::Delete => Box::pin(self.delete(parts, namespace)).await,
        }
    }

    /// Serves the OpenAPI document and the health checks, which require no token.
    fn serve_page(&self, parts: &Parts) -> ApiResult {
        let path = parts.uri.path();
        let probe = Probe::of(path);
        if probe.is_none() && path != openapi::PATH {
            let detail = if Route::matches_with_any_version(path) {
                let served = self.versions.join(", ");
                format!("This server does not serve this API version. It serves {served}.").into()
            } else {
                Cow::Borrowed("There is no resource at this path.")
            };
            return Err(ApiError::new(Code::NotFound, detail));
        }
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            let detail = "This resource supports only GET and HEAD.";
            return Err(ApiError::new(Code::MethodNotAllowed, detail).allow("GET, HEAD"));
        }
        match probe {
            Some(probe) => Ok(self.health.response(probe)),
            None => self.openapi.response(&parts.headers),
        }
    }

    async fn put(
        &self,
        parts: &Parts,
        namespace: Namespace<'_>,
        body: &mut RequestBody,
    ) -> ApiResult {
        body_headers::check(&parts.headers)?;
        self.check_length(body)?;
        let conditions = Conditions::from_headers(&parts.headers)?;
        // The upload keeps its memory permit until the document is committed.
        let ReceivedDocument {
            document,
            permit: _permit,
        } = receive(&self.store, namespace.user, body, &self.uploads).await?;
        let precondition = match self.precondition(namespace, conditions).await {
            Ok(precondition) => precondition,
            Err(error) => {
                self.store.discard(document);
                return Err(error);
            }
        };
        let change = Change::Document(document);
        let revision = self.store.apply(namespace, change, precondition).await?;
        let mut response = no_content();
        if let Some(etag) = revision.and_then(etag) {
            response.headers_mut().insert(ETAG, etag);
        }
        Ok(response)
    }

    async fn delete(&self, parts: &Parts, namespace: Namespace<'_>) -> ApiResult {
        let conditions = Conditions::from_headers(&parts.headers)?;
        let precondition = self.precondition(namespace, conditions).await?;
        self.store
            .apply(namespace, Change::Delete, precondition)
            .await?;
        Ok(no_content())
    }

    fn check_length(&self, body: &RequestBody) -> Result<(), Box<ApiError>> {
        match body.size_hint().exact() {
            Some(actual) if actual > self.max_body_bytes => {
                let limit = self.max_body_bytes;
                Err(ApiError::new(
                    Code::MaxBodyLengthExceeded,
                    format!("The body has {actual} bytes, but the limit is {limit} bytes."),
                )
                .limit(limit, actual))
            }
            _ => Ok(()),
        }
    }

    /// Performs a GET or HEAD. If the document changes after its revision was checked and before it
    /// is read, the conditions are evaluated again for the new revision. `now` is the time at which
    /// the request was received.
    async fn read(
        &self,
        namespace: Namespace<'_>,
        conditions: &Conditions,
        operation: Operation,
        now: SystemTime,
    ) -> ApiResult {
        loop {
            // The date is determined before the lookup, so that no later version has this date.
            let latest_date = self.store.latest_date(now);
            let stored = self.store.get(namespace)?;
            let current = stored.revision();
            if let Some(unmet) = conditions.check_etags(current) {
                return respond_to_unmet(unmet, current);
            }
            let (stat, body) = match operation {
                Operation::Head => (stored.stat().await?, None),
                _ => match stored.read().await? {
                    Some((stat, text)) => (Some(stat), Some(Body::document(text))),
                    None => (None, Some(Body::full(EMPTY_DOCUMENT.into()))),
                },
            };
            if stat.map(|stat| stat.revision) != current {
                continue;
            }
            let modified = stat.map(|stat| stat.modified);
            return match conditions.check_dates(current, modified, now) {
                Some(unmet) => respond_to_unmet(unmet, current),
                None => Ok(ok(stat, body, latest_date)),
            };
        }
    }

    /// Returns the precondition that the store checks when it commits a write. If the request has
    /// If-Unmodified-Since but not If-Match, this function evaluates If-Unmodified-Since itself,
    /// and the returned precondition fails if the document changes before the commit.
    async fn precondition(
        &self,
        namespace: Namespace<'_>,
        mut conditions: Conditions,
    ) -> Result<Precondition, Box<ApiError>> {
        if conditions.unmodified_since.is_some() {
            match self.store.get(namespace)?.stat().await? {
                Some(stat) if conditions.is_modified(stat.modified, self.clock.now()) => {
                    return Err(precondition_failed(Some(stat.revision)));
                }
                Some(stat) => {
                    conditions.etags.must_match = Some(Revisions::OneOf(vec![stat.revision]));
                }
                None => conditions.etags.must_not_match = Some(Revisions::Any),
            }
        }
        Ok(conditions.etags)
    }
}

/// Responds to a GET or HEAD with an unmet condition.
fn respond_to_unmet(unmet: UnmetCondition, current: Option<Revision>) -> ApiResult {
    match unmet {
        UnmetCondition::PreconditionFailed => Err(precondition_failed(current)),
        UnmetCondition::NotModified => Ok(not_modified(current)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the size of a function's return type. The function is not called.
    fn size_of_returned<A, B, C, R>(_: impl FnOnce(A, B, C) -> R) -> usize {
        size_of::<R>()
    }

    /// Each request allocates memory for its future. The thread cache of glibc's `malloc` contains
    /// only blocks of at most 1,032 bytes. Larger blocks take about ten times as long to allocate
    /// and free as blocks from the cache.
    #[test]
    fn future_of_a_request_fits_the_allocators_thread_cache() {
        const MOST_BYTES: usize = 1032;
        let bytes = size_of_returned(
            |handler: &'static Handler,
             request,
             connection: &'static ConnectionContext<'static, LastToken>| {
                handler.respond(request, connection, |_| {})
            },
        );
        assert!(bytes <= MOST_BYTES, "{bytes}");
    }
}
