//! What is counted, and how Prometheus is told (its text format, version 0.0.4). Counting
//! is next to free; adding up is left to whoever asks.

use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;

use crate::telemetry::exposition::Exposition;
use crate::telemetry::sources::Sources;

/// The media type of what [`Metrics::text`] gives.
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

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
