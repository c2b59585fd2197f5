//! What an operator learns about a running server: its metrics and its health.
//!
//! It reads what the parts below count by themselves, and counts requests. It must not
//! know how requests are carried out, or which listener shows what it says.
//!
//! **Architecture Invariant:** it imports only what lies below it: `transfer`, `net`,
//! `auth`, `http`, `store`, `settings` and `counters`.

mod exposition;
mod health;
mod metrics;
mod process;
mod requests;
mod sources;

pub(crate) use health::{Health, Probe};
pub(crate) use metrics::{CONTENT_TYPE, Metrics};
pub(crate) use requests::{Kind, Requests};
pub(crate) use sources::Sources;
