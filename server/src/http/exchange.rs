//! What a request gets whatever it is for: an id, an answer even where something panics,
//! and a line in the log.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use hyper::header::HeaderValue;
use hyper::{Method, Response};

use crate::http::body::Body;
use crate::http::error::{REQUEST_ID, Refusal};
use crate::http::id::RequestId;

/// The name that filters of the log know these lines by; the help of `--log` gives it as an
/// example.
const LOG_TARGET: &str = "prefd::exchange";

/// What an operation comes to.
pub(crate) type Answer = Result<Response<Body>, Box<Refusal>>;

/// The user of a request that is not known to be anybody's.
pub(crate) const NOBODY: u64 = 0;

/// A request and its answer.
pub(crate) struct Exchange {
    begun: Instant,
    now: SystemTime,
    id: RequestId,
}

impl Exchange {
    pub(crate) fn begin() -> Self {
        let now = SystemTime::now();
        Self {
            begun: Instant::now(),
            now,
            id: RequestId::new(now),
        }
    }

    /// When it began.
    pub(crate) fn now(&self) -> SystemTime {
        self.now
    }

    /// The answer, once the log was told of it, and how long it took. `user` is a
    /// pseudonym, `is_read`: the request's body was read to its end.
    pub(crate) fn end(
        &self,
        outcome: Answer,
        method: &Method,
        route: &'static str,
        user: u64,
        is_read: bool,
    ) -> (Response<Body>, Duration) {
        let id = &self.id;
        let method = shown(method);
        let user = (user != NOBODY).then(|| tracing::field::display(Hex(user)));
        let took = self.begun.elapsed();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut response = match outcome {
            Ok(response) => {
                let status = response.status().as_u16();
                tracing::info!(target: LOG_TARGET, %id, method, route, status, user, micros, "answered");
                response
            }
            Err(refusal) => {
                let code = refusal.code().as_str();
                if let Some(cause) = refusal.cause() {
                    tracing::error!(target: LOG_TARGET, %id, cause, "a request failed");
                }
                let response = refusal.response(id, !is_read);
                let status = response.status().as_u16();
                tracing::info!(target: LOG_TARGET, %id, method, route, status, code, user, micros, "refused");
                response
            }
        };
        if let Ok(id) = HeaderValue::from_bytes(id.as_bytes()) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        (response, took)
    }
}

/// A pseudonym as the log shows it.
struct Hex(u64);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A method as the log shows it: a client can send any word, of any length.
fn shown(method: &Method) -> &str {
    const ORDINARY_BYTES: usize = 16;
    match method.as_str() {
        method if method.len() <= ORDINARY_BYTES => method,
        _ => "other",
    }
}

/// Carries an operation out; a panic in it becomes an internal error, so that the
/// request is answered and the connection's task goes on.
pub(crate) fn unpanicked(
    mut operation: Pin<&mut impl Future<Output = Answer>>,
) -> impl Future<Output = Answer> {
    poll_fn(move |context| {
        catch_unwind(AssertUnwindSafe(|| operation.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Err(Refusal::internal("a panic, told above"))))
    })
}
