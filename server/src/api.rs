//! The API: the operations on preferences documents, and the OpenAPI document that describes these
//! operations.
//!
//! This layer decides in which order the parts of a request are checked, and performs the operation
//! in the store. This layer must not know on which addresses the server listens, how the server is
//! started, or what the admin listener offers.
//!
//! **Architecture Invariant:** this layer imports only the layers below it. The layer directly
//! below `api` is `telemetry`. No code in this layer blocks.

mod handler;
mod openapi;
mod upload;
mod upload_progress;

pub(crate) use handler::Handler;
pub(crate) use openapi::{OpenApi, OpenApiError};
pub(crate) use upload::UploadRules;
