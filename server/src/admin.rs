//! What an operator asks of a running server, on a listener of its own: metrics, health,
//! and what is done with the store while it serves.
//!
//! On this machine it can be asked without a token, but not by a page in a browser: one of
//! any site can send requests to this machine. Elsewhere it takes the token.
//!
//! It must not know how the server is started, or how documents are served to clients.
//!
//! **Architecture Invariant:** it imports only what lies below it, and nothing of `api`.

mod service;
mod store;
mod token;

pub(crate) use service::Admin;
pub(crate) use store::{StoreDesk, TOTAL_BYTES, UNSAVED, erased_json};
pub(crate) use token::{AdminToken, AdminTokenError};
