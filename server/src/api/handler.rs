//! The operations: what is judged in which order, and what is answered.
//!
//! Nothing here blocks: what may touch the disk is handed to a blocking thread.

use std::collections::HashSet;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{ETAG, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, Version};

use crate::api::openapi::{self, OpenApi};
use crate::api::upload::{Received, receive};
use crate::auth::{Access, Authenticator, LastToken};
use crate::http::{
    Answer, Body, Budget, Code, Conditions, Cors, Exchange, METHODS, NO_DOCUMENT, NOBODY, Refusal,
    Route, Verdict, etag, found, media_type, no_content, not_modified, precondition_failed,
    unmodified, unpanicked,
};
use crate::net::{ConnectionContext, Service};
use crate::store::{Change, Name, Precondition, Revisions, Store};
use crate::telemetry::{Health, Kind, Probe, Requests};

/// Everything that answering needs.
pub(crate) struct Handler {
    pub(crate) store: Store,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) health: Arc<Health>,
    pub(crate) requests: Arc<Requests>,
    /// The clients that there are; `None` where any may be.
    pub(crate) known_clients: Option<HashSet<String>>,
    /// Which pages of other origins may ask; `None` where none may.
    pub(crate) cors: Option<Cors>,
    pub(crate) versions: Vec<String>,
    pub(crate) openapi: OpenApi,
    pub(crate) max_body_bytes: u64,
    pub(crate) budget: Arc<Budget>,
    /// How long a body may stall.
    pub(crate) body_timeout: Duration,
}

/// The operation on the document.
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
    /// Most connections send the same token each time.
    type Connection = LastToken;

    /// What this returns is as small as it can be, since each request has memory allocated
    /// for it.
    fn respond(
        &self,
        request: Request<Incoming>,
        connection: &ConnectionContext<'_, LastToken>,
        on_response: impl FnOnce(&Response<Body>) + Send,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send {
        let exchange = Exchange::begin();
        // Outside, so that there is no room for the request as well.
        let (parts, mut body) = request.into_parts();
        async move {
            let route = Route::parse(parts.uri.path(), &self.versions);
            let user = AtomicU64::new(NOBODY);
            let operation = self.operate(&parts, route, &mut body, connection, &exchange, &user);
            let outcome = unpanicked(pin!(operation)).await;
            let (kind, name) = match route {
                Some(_) => (Kind::Preferences, Route::TEMPLATE),
                None => page(parts.uri.path()),
            };
            let user = user.into_inner();
            let is_read = body.is_end_stream();
            let (mut response, took) = exchange.end(outcome, &parts.method, name, user, is_read);
            if let Some(cors) = &self.cors {
                cors.expose(&parts.headers, response.headers_mut());
            }
            let status = response.status();
            self.requests.count(kind, &parts.method, status, took);
            on_response(&response);
            Ok(response)
        }
    }
}

/// What a path is of that is not that of a document, as metrics and the log call it.
fn page(path: &str) -> (Kind, &'static str) {
    match Probe::of(path) {
        Some(probe) => (Kind::Page, probe.path()),
        None if path == openapi::PATH => (Kind::Page, openapi::PATH),
        None => (Kind::None, "none"),
    }
}

impl Handler {
    /// Judges the request in the order that clients can rely on, and carries it out.
    async fn operate(
        &self,
        parts: &Parts,
        route: Option<Route<'_>>,
        body: &mut Incoming,
        connection: &ConnectionContext<'_, LastToken>,
        exchange: &Exchange,
        user: &AtomicU64,
    ) -> Answer {
        if let Some(cors) = &self.cors
            && let Some(response) = cors.preflight(parts)
        {
            return Ok(response);
        }
        check_host(parts)?;
        check_coding(parts)?;
        let Some(route) = route else {
            return self.page(parts);
        };
        let operation = Operation::of(&parts.method).ok_or_else(|| {
            Refusal::new(
                Code::MethodNotAllowed,
                "Preferences can be read with GET and HEAD, set with PUT and deleted with DELETE.",
            )
            .allow(METHODS)
        })?;
        let claims = self
            .authenticator
            .authenticate(&parts.headers, &connection.service_state, exchange.now())
            .await?;
        if tracing::enabled!(tracing::Level::INFO) {
            user.store(self.store.pseudonym(&claims.user), Ordering::Relaxed);
        }
        let client_id = route
            .client_id()
            .map_err(|reason| Refusal::new(Code::InvalidClientId, reason.0))?;
        let access = operation.access();
        if !access.is_allowed(&claims, &client_id) {
            return Err(self.authenticator.insufficient(&access.scope(&client_id)));
        }
        if let Some(known) = &self.known_clients
            && !known.contains(&*client_id)
        {
            return Err(Refusal::new(Code::NotFound, "There is no such client."));
        }
        connection.state.record_granted();
        let name = Name {
            user: &claims.user,
            client: &client_id,
        };
        match operation {
            Operation::Get | Operation::Head => {
                let conditions = Conditions::of(&parts.headers)?;
                self.read(name, &conditions, operation).await
            }
            // On their own, so that what they wait with is not moved about by reads.
            Operation::Put => Box::pin(self.put(parts, name, body)).await,
            Operation::Delete => Box::pin(self.delete(parts, name)).await,
        }
    }

    /// What there is besides documents, for anybody.
    fn page(&self, parts: &Parts) -> Answer {
        if parts.uri.path() == openapi::PATH {
            return self.openapi.answer(parts);
        }
        let Some(probe) = Probe::of(parts.uri.path()) else {
            return Err(Refusal::new(Code::NotFound, "There is no such resource."));
        };
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            let refusal = Refusal::new(Code::MethodNotAllowed, "This can be read only.");
            return Err(refusal.allow("GET, HEAD"));
        }
        Ok(self.health.answer(probe))
    }

    async fn put(&self, parts: &Parts, name: Name<'_>, body: &mut Incoming) -> Answer {
        media_type::check(&parts.headers)?;
        self.check_length(body)?;
        let conditions = Conditions::of(&parts.headers)?;
        // Its room in the budget is kept to the end.
        let Received {
            document,
            room: _room,
        } = receive(&self.store, body, self.body_timeout, &self.budget).await?;
        let precondition = self.precondition(name, conditions).await?;
        let change = Change::Document(document);
        let revision = self.store.apply(name, change, precondition).await?;
        let mut response = no_content();
        if let Some(etag) = revision.and_then(etag) {
            response.headers_mut().insert(ETAG, etag);
        }
        Ok(response)
    }

    async fn delete(&self, parts: &Parts, name: Name<'_>) -> Answer {
        let conditions = Conditions::of(&parts.headers)?;
        let precondition = self.precondition(name, conditions).await?;
        self.store.apply(name, Change::Delete, precondition).await?;
        Ok(no_content())
    }

    fn check_length(&self, body: &Incoming) -> Result<(), Box<Refusal>> {
        match body.size_hint().exact() {
            Some(actual) if actual > self.max_body_bytes => {
                let limit = self.max_body_bytes;
                Err(Refusal::new(
                    Code::MaxBodyLengthExceeded,
                    format!("The body has {actual} bytes, and {limit} are allowed."),
                )
                .limit(limit, actual))
            }
            _ => Ok(()),
        }
    }

    /// GET and HEAD. A document that overtakes its own judgement is judged again.
    async fn read(&self, name: Name<'_>, conditions: &Conditions, operation: Operation) -> Answer {
        loop {
            let stored = self.store.get(name)?;
            let current = stored.revision();
            match conditions.judge_read(current) {
                Some(Verdict::Failed) => return Err(precondition_failed(current)),
                Some(Verdict::NotModified) => return Ok(not_modified(current)),
                None => {}
            }
            let (stat, body) = match operation {
                Operation::Head => (stored.stat().await?, None),
                _ => match stored.read().await? {
                    Some((stat, text)) => (Some(stat), Some(Body::document(text))),
                    None => (None, Some(Body::whole(NO_DOCUMENT.into()))),
                },
            };
            if stat.map(|stat| stat.revision) != current {
                continue;
            }
            match conditions.judge_dates(stat.map(|stat| stat.modified)) {
                Some(Verdict::Failed) => return Err(precondition_failed(current)),
                Some(Verdict::NotModified) => return Ok(not_modified(current)),
                None => return Ok(found(stat, body)),
            }
        }
    }

    /// The store's precondition for a write. A date is judged now, and what it was judged
    /// on must still be there in the commit: where it is not, it was modified since.
    async fn precondition(
        &self,
        name: Name<'_>,
        conditions: Conditions,
    ) -> Result<Precondition, Box<Refusal>> {
        let mut precondition = conditions.tags;
        if conditions.unmodified_since.is_some() {
            match self.store.get(name)?.stat().await? {
                Some(stat) if !unmodified(conditions.unmodified_since, Some(stat.modified)) => {
                    return Err(precondition_failed(Some(stat.revision)));
                }
                Some(stat) => precondition.must_match = Some(Revisions::OneOf(vec![stat.revision])),
                None => precondition.must_not_match = Some(Revisions::Any),
            }
        }
        Ok(precondition)
    }
}

/// One host, since intermediaries that see two may each take another (RFC 9112 section
/// 3.2); HTTP/1.0 did not have it.
fn check_host(parts: &Parts) -> Result<(), Box<Refusal>> {
    let hosts = parts.headers.get_all(HOST).iter().count();
    if hosts == 1 || (hosts == 0 && parts.version < Version::HTTP_11) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::InvalidRequest,
        "The request does not have exactly one Host header.",
    )
    .at_header("Host"))
}

/// A body in chunks, and nothing else. hyper takes any list that ends in `chunked`, but
/// nobody here undoes what else there is in it, and an intermediary could read it another
/// way (RFC 9112 section 6.1).
fn check_coding(parts: &Parts) -> Result<(), Box<Refusal>> {
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if is_chunked(coding) => Ok(()),
        _ => Err(Refusal::new(
            Code::InvalidRequest,
            "A transfer coding other than chunked is not understood.",
        )
        .at_header("Transfer-Encoding")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function returns that is never called.
    fn size_of_returned<A, B, C, R>(_: impl FnOnce(A, B, C) -> R) -> usize {
        size_of::<R>()
    }

    /// glibc hands out and takes back longer pieces of memory at some ten times the cost
    /// (its thread cache ends at 1,032 bytes), and each request takes one for its future.
    #[test]
    fn future_of_a_request_fits_the_allocators_thread_cache() {
        const MOST_BYTES: usize = 1032;
        let bytes = size_of_returned(
            |handler: &'static Handler, request, caller: &'static Caller<'static, LastToken>| {
                handler.answer(request, caller, |_| {})
            },
        );
        assert!(bytes <= MOST_BYTES, "{bytes}");
    }
}
