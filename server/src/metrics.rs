//! What is counted, and how Prometheus is told (its text format, version 0.0.4). Counting
//! is next to free; adding up is left to whoever asks.

mod exposition;
mod process;
mod requests;

use std::sync::Arc;

use prefd_engine::Engine;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;

use crate::auth::Authenticator;
use crate::health::Health;
use crate::http::Budget;
use crate::net::ConnectionCounters;
use exposition::Exposition;
pub(crate) use requests::{Kind, Requests};

/// The media type of what [`Metrics::text`] gives.
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// What metrics are read from.
pub(crate) struct Sources {
    pub(crate) engine: Engine,
    pub(crate) requests: Arc<Requests>,
    pub(crate) connections: Arc<ConnectionCounters>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) health: Arc<Health>,
    /// Bytes of bodies in flight, and how many there may be.
    pub(crate) budget: Arc<Budget>,
    pub(crate) max_connections: usize,
}

/// All metrics.
pub(crate) struct Metrics(Registry);

impl Metrics {
    pub(crate) fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exposition(sources)));
        Self(registry)
    }

    /// As they are now.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}
