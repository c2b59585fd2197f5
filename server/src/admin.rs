//! The service of the admin listener: metrics, health checks, backup, export, import, and the
//! erasure of a user.
//!
//! If no admin token is configured, the admin listener is reachable only from this machine. Without
//! an admin token, the service also rejects requests from web pages, because any web page can make
//! a browser send requests to this machine. If an admin token is configured, every request except a
//! health check must contain the token.
//!
//! This layer must not know how a server is started, or how documents are served to clients.
//!
//! **Architecture Invariant:** this layer imports only the layers below it, except `api`, which it
//! must not import.

mod service;
mod store;
mod token;

pub(crate) use service::Admin;
pub(crate) use store::{
    AdminStore, CHECKS_FAILED, FAILED, JSON, NDJSON, TAR, TOTAL_BYTES, UNSAVED, erased_json,
};
pub(crate) use token::{AdminToken, AdminTokenError};
