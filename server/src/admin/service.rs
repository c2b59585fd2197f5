//! Checks requests to the admin listener, and routes them by path.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response};

use crate::admin::store::{AcceptedTrailers, AdminStore};
use crate::admin::token::AdminToken;
use crate::auth::http_client::is_loopback_host;
use crate::auth::{authorization, bearer};
use crate::http::{
    ApiError, ApiResult, Body, Clock, Code, NO_STORE, NO_USER, RequestBody, RequestContext,
    body_headers, catch_unwind, path_name, request_head,
};
use crate::net::{ConnectionContext, Service};
use crate::telemetry::{CONTENT_TYPE as METRICS_TYPE, Health, Metrics, Probe};

const TEXT: HeaderValue = HeaderValue::from_static(METRICS_TYPE);

/// The service of the admin listener.
pub(crate) struct Admin {
    pub(crate) clock: Clock,
    /// If set, every request except a health check must contain this token.
    pub(crate) token: Option<AdminToken>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store: AdminStore,
}

impl Service for Admin {
    type Connection = ();

    fn respond(
        &self,
        request: Request<Incoming>,
        connection: &ConnectionContext<'_, ()>,
        on_response: impl FnOnce(&Response<Body>) + Send,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send {
        let context = RequestContext::new(self.clock);
        let (parts, body) = request.into_parts();
        let mut body = RequestBody::new(body);
        async move {
            let outcome = catch_unwind(pin!(self.route(&parts, &mut body, connection))).await;
            let (mut response, _) =
                context.finish(outcome, &parts.method, route_name(&parts), NO_USER, &body);
            // The documents, the metrics and the results of all requests may be confidential, and
            // change at any time.
            response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
            on_response(&response);
            Ok(response)
        }
    }
}

impl Admin {
    /// Checks a request, and processes it.
    async fn route(
        &self,
        parts: &Parts,
        body: &mut RequestBody,
        connection: &ConnectionContext<'_, ()>,
    ) -> ApiResult {
        request_head::check(parts)?;
        let path = parts.uri.path();
        if let Some(probe) = Probe::of(path) {
            require_method(parts, &[Method::GET, Method::HEAD], "GET, HEAD")?;
            return Ok(self.health.response(probe));
        }
        self.authorize(parts)?;
        connection.state.record_granted();
        match path {
            "/metrics" => {
                require_method(parts, &[Method::GET, Method::HEAD], "GET, HEAD")?;
                self.metrics().await
            }
            "/backup" => {
                require_method(parts, &[Method::GET], "GET")?;
                self.store.backup(AcceptedTrailers::of(parts)?).await
            }
            "/documents" if parts.method == Method::POST => {
                body_headers::check_encoding(&parts.headers)?;
                self.store.import(parts.uri.query(), body).await
            }
            "/documents" => {
                require_method(parts, &[Method::GET], "GET, POST")?;
                Ok(self.store.export(None, AcceptedTrailers::of(parts)?))
            }
            _ => self.route_user(parts).await,
        }
    }

    /// Processes a request for `/users/{user}` or `/users/{user}/documents`.
    async fn route_user(&self, parts: &Parts) -> ApiResult {
        let not_found = || ApiError::new(Code::NotFound, "There is no resource at this path.");
        let path = parts
            .uri
            .path()
            .strip_prefix("/users/")
            .ok_or_else(not_found)?;
        let (user, resource) = match path.split_once('/') {
            Some((user, resource)) => (user, Some(resource)),
            None => (path, None),
        };
        let name = || {
            path_name::name(user).map_err(|reason| {
                ApiError::new(Code::InvalidRequest, format!("The user ID {reason}"))
            })
        };
        match resource {
            _ if user.is_empty() => Err(not_found()),
            None => {
                require_method(parts, &[Method::DELETE], "DELETE")?;
                self.store.erase(name()?).await
            }
            Some("documents") => {
                require_method(parts, &[Method::GET], "GET")?;
                let accepted = AcceptedTrailers::of(parts)?;
                Ok(self.store.export(Some(name()?), accepted))
            }
            Some(_) => Err(not_found()),
        }
    }

    /// Checks the Authorization header and the admin token. Without a configured token, rejects
    /// requests from web pages.
    fn authorize(&self, parts: &Parts) -> Result<(), Box<ApiError>> {
        let header = authorization(&parts.headers)?;
        let Some(token) = &self.token else {
            return reject_web_page(parts);
        };
        let challenge = HeaderValue::from_static("Bearer realm=\"prefd admin\"");
        let given = header.and_then(bearer).ok_or_else(|| {
            ApiError::new(
                Code::MissingToken,
                "The request has no Authorization header with the admin token.",
            )
            .challenge(challenge.clone())
        })?;
        verify_slices_are_equal(given, token.as_bytes()).map_err(|_| {
            ApiError::new(
                Code::InvalidToken,
                "The token is not the admin token of this server.",
            )
            .at_header("Authorization")
            .challenge(challenge)
        })
    }

    async fn metrics(&self) -> ApiResult {
        let metrics = Arc::clone(&self.metrics);
        let text = tokio::task::spawn_blocking(move || metrics.text()).await;
        let Ok(Ok(text)) = text else {
            return Err(ApiError::internal("the metrics cannot be encoded"));
        };
        let mut response = Response::new(Body::full(text.into()));
        response.headers_mut().insert(CONTENT_TYPE, TEXT);
        Ok(response)
    }
}

/// Returns the name of the path for the log. A user name in the path is replaced by `{user}`,
/// because the log must not contain user names.
fn route_name(parts: &Parts) -> &'static str {
    let path = parts.uri.path();
    if path.starts_with("/users/") {
        return "/users/{user}";
    }
    ["/metrics", "/backup", "/documents", "/livez", "/readyz"]
        .into_iter()
        .find(|name| *name == path)
        .unwrap_or("none")
}

/// Rejects a request that a web page may have sent. Current browsers add an Origin or
/// Sec-Fetch-Site header to each request that a web page sends to a loopback address. The check of
/// the Host header protects against DNS rebinding, an attack in which the host name of a web page
/// resolves to this machine.
fn reject_web_page(parts: &Parts) -> Result<(), Box<ApiError>> {
    let headers = &parts.headers;
    let forbidden =
        |header, detail| Err(ApiError::new(Code::InsufficientScope, detail).at_header(header));
    if headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site") {
        return forbidden(
            "Origin",
            "Requests from web pages require an admin token, and this server has none.",
        );
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host: Option<Authority> = host.and_then(|host| host.parse().ok());
    let is_host_local = host.is_some_and(|host| is_loopback_host(host.host()));
    // The host in a request target in absolute form overrides the Host header (RFC 9112 section
    // 3.2.2).
    let is_target_local = parts.uri.host().is_none_or(is_loopback_host);
    if is_host_local && is_target_local {
        return Ok(());
    }
    forbidden(
        "Host",
        "Without an admin token, the Host header must be localhost or a loopback address.",
    )
}

fn require_method(
    parts: &Parts,
    methods: &[Method],
    allow: &'static str,
) -> Result<(), Box<ApiError>> {
    if methods.contains(&parts.method) {
        return Ok(());
    }
    let detail = format!("This resource supports only {allow}.");
    Err(ApiError::new(Code::MethodNotAllowed, detail).allow(allow))
}
