//! The parts of a server that the metrics are read from.

use std::sync::Arc;

use crate::auth::Authenticator;
use crate::http::Budget;
use crate::net::ConnectionCounters;
use crate::store::Store;
use crate::telemetry::health::Health;
use crate::telemetry::requests::RequestMetrics;

/// Handles to the parts of a server that have metrics.
pub(crate) struct MetricSources {
    pub(crate) store: Store,
    pub(crate) requests: Arc<RequestMetrics>,
    pub(crate) connections: Arc<ConnectionCounters>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) health: Arc<Health>,
    /// The memory budget for request bodies that are being received.
    pub(crate) budget: Arc<Budget>,
    /// Maximum number of connections of the API listener.
    pub(crate) max_connections: usize,
}
