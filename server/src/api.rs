//! The API: the operations on a document, and the document that describes them.
//!
//! It decides what is judged in which order, and carries a request out against the store.
//! It must not know where clients connect, how the server is started, or what an operator
//! can ask.
//!
//! **Architecture Invariant:** it imports only what lies below it, from `telemetry`
//! downwards. Nothing in it blocks.

mod handler;
mod openapi;
mod upload;

pub(crate) use handler::Handler;
pub(crate) use openapi::{OpenApi, OpenApiError};
pub(crate) use upload::BUFFERS_BYTES;
