//! Listening sockets and connections: accepting, TLS, the connection limit, and the
//! timeouts that hyper does not have.
//!
//! The layer hands each request to a [`Service`] and keeps the service's own state for
//! each connection. It must not know what a request is for, who sent it, or that tokens
//! and documents exist.
//!
//! **Architecture Invariant:** it imports only `http`, `settings` and `counters`, and
//! neither `auth` nor `transfer`.

mod connection;
mod connection_limit;
mod listen;
mod minimum_rate;
mod tls;

pub(crate) use connection::{BUFFER_BYTES, ConnectionContext, ConnectionServer, Service};
pub(crate) use connection_limit::ConnectionLimit;
#[cfg(feature = "fuzzing")]
pub(crate) use connection_limit::ConnectionState;
pub(crate) use listen::{Acceptor, ConnectionCounters, ListenError, Listener};
pub(crate) use tls::{Certificate, TlsError};
