//! The server log on standard error, as lines of text or JSON.
//!
//! A thread that logs appends a line to a buffer of its own. The thread `prefd-log` writes the
//! buffers, so a slow reader of standard error does not delay requests. The line of a request is
//! formatted without `tracing`, because formatting it with `tracing` took a third of the time of
//! a GET. All other lines are `tracing` events.
//!
//! **Architecture Invariant:** this layer imports only `settings`.

mod output;
mod request_line;
mod start;
mod timestamp;

pub(crate) use request_line::{REQUEST_TARGET, RequestLine, is_logging_requests};
pub(crate) use start::{Log, LogError, parse, start};
