//! `prefd healthcheck`: checks that a running server is ready or, with `--live`, that it responds.

use std::time::Duration;

use clap::Args;
use hyper::Method;
use tokio::time::timeout;

use crate::commands::admin_client::{AdminOptions, block_on};
use crate::commands::error::CommandError;
use crate::http::Body;
use crate::telemetry::Probe;

/// Timeout for the complete check. The check fails if the server does not respond within this time.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Options of `prefd healthcheck`.
#[derive(Debug, Args)]
pub(super) struct HealthcheckOptions {
    #[command(flatten)]
    admin: AdminOptions,
    /// Check only that the server responds (/livez), not that it is ready (/readyz)
    #[arg(long)]
    live: bool,
}

/// Returns an error if the server does not respond in time or, without `--live`, is not ready.
pub(super) fn run(options: &HealthcheckOptions) -> Result<(), CommandError> {
    let probe = if options.live {
        Probe::Live
    } else {
        Probe::Ready
    };
    block_on(async {
        let request = options.admin.send(Method::GET, probe.path(), Body::empty());
        let response = timeout(TIMEOUT, request).await;
        response
            .map_err(|_| CommandError::Timeout(TIMEOUT))?
            .map(drop)
    })
}
