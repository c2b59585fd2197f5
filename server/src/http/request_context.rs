//! Provides what every request needs: an id, a line in the log, and a response even if the
//! operation panics.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use hyper::body::Body as _;
use hyper::header::{CONNECTION, DATE, HeaderValue};
use hyper::{Method, Response};

use crate::http::body::Body;
use crate::http::clock::Clock;
use crate::http::date::date;
use crate::http::error::{ApiError, REQUEST_ID};
use crate::http::header::CLOSE;
use crate::http::request_body::RequestBody;
use crate::http::request_id::RequestId;
use crate::log::{REQUEST_TARGET, RequestLine};

/// The result of an operation.
pub(crate) type ApiResult = Result<Response<Body>, Box<ApiError>>;

/// This value is used instead of a user's pseudonym if the user of a request is not known.
pub(crate) const NO_USER: u64 = 0;

/// The id and the start time of a request.
pub(crate) struct RequestContext {
    clock: Clock,
    start: Instant,
    received_at: SystemTime,
    id: RequestId,
}

impl RequestContext {
    /// Creates the context of a request whose head was received just now.
    pub(crate) fn new(clock: Clock) -> Self {
        let received_at = clock.now();
        Self {
            clock,
            start: Instant::now(),
            received_at,
            id: RequestId::new(received_at),
        }
    }

    /// The time at which the head of the request was received.
    pub(crate) fn received_at(&self) -> SystemTime {
        self.received_at
    }

    /// Logs the request, and returns the response and the time since the head was received. `user`
    /// is a pseudonym or [`NO_USER`]. The response has the header `Connection: close` if the next
    /// bytes on the connection may not be the start of a request: if the request failed and its
    /// body was not read to its end, or if the end of the body is not certain.
    pub(crate) fn finish(
        &self,
        result: ApiResult,
        method: &Method,
        route: &'static str,
        user: u64,
        body: &RequestBody,
    ) -> (Response<Body>, Duration) {
        let id = &self.id;
        let duration = self.start.elapsed();
        let now = self.clock.now();
        let (mut response, code) = match result {
            Ok(response) => (response, None),
            Err(error) => {
                if let Some(cause) = error.cause() {
                    tracing::error!(target: REQUEST_TARGET, %id, cause, "server error while processing a request");
                }
                let code = error.code().as_str();
                (error.response(id, !body.is_end_stream()), Some(code))
            }
        };
        RequestLine {
            time: now,
            id: id.as_str(),
            method: loggable(method),
            route,
            status: response.status().as_u16(),
            code,
            user: (user != NO_USER).then_some(user),
            micros: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        }
        .log();
        let headers = response.headers_mut();
        if !body.is_end_certain() {
            headers.insert(CONNECTION, CLOSE);
        }
        if let Ok(id) = HeaderValue::from_bytes(id.as_bytes()) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(date) = date(now) {
            headers.insert(DATE, date);
        }
        (response, duration)
    }
}

/// The method, or `other` if the method is too long to log. The length is limited because a client
/// can send a very long method name.
fn loggable(method: &Method) -> &str {
    const MAX_LOGGED_BYTES: usize = 16;
    match method.as_str() {
        method if method.len() <= MAX_LOGGED_BYTES => method,
        _ => "other",
    }
}

/// Runs an operation. If the operation panics, the result is an internal error, so that the client
/// gets a response and the task that serves the connection continues.
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
