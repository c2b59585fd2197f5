//! Metrics and health of a running server.
//!
//! This layer counts requests, and reads the counters of the layers below. It must not know
//! how requests are processed, or which listener serves the metrics.
//!
//! **Architecture Invariant:** This layer imports only the layers below it: `transfer`, `net`,
//! `auth`, `http`, `store`, `settings` and `counters`.

mod exposition;
mod health;
mod metrics;
mod process;
mod requests;
mod sources;

pub(crate) use health::{Health, Probe};
pub(crate) use metrics::{CONTENT_TYPE, Metrics};
pub(crate) use requests::{RequestMetrics, RouteKind};
pub(crate) use sources::MetricSources;
