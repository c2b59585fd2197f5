//! The API: the operations on a document, and the OpenAPI document that describes them.
//!
//! This layer decides in which order the parts of a request are checked, and runs the request
//! against the store. It must not know where clients connect, how the server is started, or
//! what the admin listener offers.
//!
//! **Architecture Invariant:** This layer imports only the layers below it, from `telemetry`
//! downwards. Nothing in it blocks.

mod handler;
mod openapi;
mod upload;

pub(crate) use handler::Handler;
pub(crate) use openapi::{OpenApi, OpenApiError};
pub(crate) use upload::UPLOAD_BUFFERS_BYTES;
