//! The parts of a server that metrics are read from.

use std::sync::Arc;

use crate::auth::Authenticator;
use crate::http::Budget;
use crate::net::ConnectionCounters;
use crate::store::Store;
use crate::telemetry::health::Health;
use crate::telemetry::requests::Requests;

/// What metrics are read from.
pub(crate) struct Sources {
    pub(crate) store: Store,
    pub(crate) requests: Arc<Requests>,
    pub(crate) connections: Arc<ConnectionCounters>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) health: Arc<Health>,
    /// Bytes of bodies in flight, and how many there may be.
    pub(crate) budget: Arc<Budget>,
    pub(crate) max_connections: usize,
}
