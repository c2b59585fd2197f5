//! Sockets and connections: where clients come to, who is let in, TLS, and what hyper
//! leaves to the server.
//!
//! It hands each request to a [`Service`], and keeps whatever state the service wants
//! to have for a connection. It must not know what a request is for, who asks, or that
//! tokens and documents exist.
//!
//! **Architecture Invariant:** it imports only `http`, `settings` and `counters`, and
//! neither `auth` nor `transfer`.

mod connection;
mod listen;
mod pace;
mod places;
mod tls;

pub(crate) use connection::{BUFFER_BYTES, Caller, Carrier, Service};
pub(crate) use listen::{ConnectionCounters, Door, ListenError, Listener};
pub(crate) use places::Places;
#[cfg(feature = "fuzzing")]
pub(crate) use places::Standing;
pub(crate) use tls::{Certificate, TlsError};
