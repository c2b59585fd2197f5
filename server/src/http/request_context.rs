//! What every request gets: an id, a line in the log, and a response even if its operation
//! panics.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use hyper::header::HeaderValue;
use hyper::{Method, Response};

use crate::http::body::Body;
use crate::http::error::{ApiError, REQUEST_ID};
use crate::http::request_id::RequestId;

/// The log target of the line for each request. Users filter by this name: the help of `--log`
/// shows it as an example.
const LOG_TARGET: &str = "prefd::exchange";

/// The result of an operation.
pub(crate) type ApiResult = Result<Response<Body>, Box<ApiError>>;

/// The pseudonym to log for a request without a known user.
pub(crate) const NO_USER: u64 = 0;

/// The id and the start time of a request.
pub(crate) struct RequestContext {
    start: Instant,
    received_at: SystemTime,
    id: RequestId,
}

impl RequestContext {
    /// For a request whose head was received just now.
    pub(crate) fn new() -> Self {
        let received_at = SystemTime::now();
        Self {
            start: Instant::now(),
            received_at,
            id: RequestId::new(received_at),
        }
    }

    /// When the head of the request was received.
    pub(crate) fn received_at(&self) -> SystemTime {
        self.received_at
    }

    /// Logs the request, and returns the response and the time since the head was received.
    /// `user` is a pseudonym or [`NO_USER`]. `is_body_read` states whether the request body was
    /// read to its end; after an error, the connection is closed if it was not.
    pub(crate) fn finish(
        &self,
        result: ApiResult,
        method: &Method,
        route: &'static str,
        user: u64,
        is_body_read: bool,
    ) -> (Response<Body>, Duration) {
        let id = &self.id;
        let method = loggable(method);
        let user = (user != NO_USER).then(|| tracing::field::display(Hex(user)));
        let duration = self.start.elapsed();
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut response = match result {
            Ok(response) => {
                let status = response.status().as_u16();
                tracing::info!(target: LOG_TARGET, %id, method, route, status, user, micros, "request completed");
                response
            }
            Err(error) => {
                let code = error.code().as_str();
                if let Some(cause) = error.cause() {
                    tracing::error!(target: LOG_TARGET, %id, cause, "server error while processing a request");
                }
                let response = error.response(id, !is_body_read);
                let status = response.status().as_u16();
                tracing::info!(target: LOG_TARGET, %id, method, route, status, code, user, micros, "request failed");
                response
            }
        };
        if let Ok(id) = HeaderValue::from_bytes(id.as_bytes()) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        (response, duration)
    }
}

/// Displays a pseudonym as 16 hexadecimal digits.
struct Hex(u64);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The method, or `other` if it is too long to log: a client can send any token as a method,
/// of any length.
fn loggable(method: &Method) -> &str {
    const MAX_LOGGED_BYTES: usize = 16;
    match method.as_str() {
        method if method.len() <= MAX_LOGGED_BYTES => method,
        _ => "other",
    }
}

/// Runs an operation. A panic becomes an internal error, so that the client gets a response
/// and the task of the connection continues.
pub(crate) fn catch_unwind(
    mut operation: Pin<&mut impl Future<Output = ApiResult>>,
) -> impl Future<Output = ApiResult> {
    poll_fn(move |context| {
        std::panic::catch_unwind(AssertUnwindSafe(|| operation.as_mut().poll(context)))
            .unwrap_or_else(|_| {
                Poll::Ready(Err(ApiError::internal(
                    "the operation panicked; standard error has the panic message",
                )))
            })
    })
}
