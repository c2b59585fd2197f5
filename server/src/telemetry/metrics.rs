//! The metrics in the Prometheus text format (version 0.0.4). Counting an event is cheap. Totals
//! are computed only when the metrics are requested.

use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;

use crate::telemetry::exposition::Exposition;
use crate::telemetry::sources::MetricSources;

/// The media type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// All metrics.
pub(crate) struct Metrics(Registry);

impl Metrics {
    pub(crate) fn new(sources: MetricSources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Exposition(sources)));
        Self(registry)
    }

    /// Returns all metrics with their current values in the Prometheus text format.
    ///
    /// # Errors
    /// [`std::fmt::Error`] if the encoder fails.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}
