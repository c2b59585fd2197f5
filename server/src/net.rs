//! Listening sockets and connections. This layer accepts connections, and adds TLS, the connection
//! limit, and the timeouts that hyper does not have.
//!
//! The layer passes each request to a [`Service`], and stores the service's state for each
//! connection. This layer must not know what a request is for, who sent it, or that tokens and
//! documents exist.
//!
//! **Architecture Invariant:** this layer imports only `http`, `settings`, `counters` and
//! `small_file`. This layer does not import `auth` or `transfer`.

mod certificate_expiry;
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
