//! Creates the parts of a server from its settings.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::{Admin, AdminStore, AdminToken};
use crate::api::{Handler, OpenApi, UPLOAD_BUFFERS_BYTES};
use crate::auth::{KeySet, setup};
use crate::http::{Budget, Cors, CorsError};
use crate::net::{Certificate, ConnectionCounters, ConnectionServer};
use crate::serve::descriptors::FdBudget;
use crate::serve::error::ServeError;
use crate::settings::{Address, MaybeAddress, Settings, duration_or};
use crate::store::{DocumentWriter, OpenError, Store, limits};
use crate::telemetry::{Health, MetricSources, Metrics};

pub(super) const DEFAULT_ADMIN_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8081);
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// The documentation of the PACE Cloud preferences API uses version 2025-1. The newest public
/// client library uses version 2024-2.
const DEFAULT_VERSIONS: [&str; 2] = ["2025-1", "2024-2"];
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_BUDGET_BYTES: u64 = 64 * 1024 * 1024;
const DEFAULT_BUDGET_WAIT: Duration = Duration::from_secs(10);

/// Reads the TLS certificate and its key. Returns `None` if TLS is not configured.
pub(super) fn certificate(settings: &Settings) -> Result<Option<Certificate>, ServeError> {
    match (&settings.tls_cert_file, &settings.tls_key_file) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(Certificate::read(certificate, key)?)),
        _ => Err(ServeError::HalfTls),
    }
}

/// Checks the listen addresses, the API versions, `--workers` and `--max-connections`. Reads no
/// files.
pub(super) fn check(settings: &Settings) -> Result<(), ServeError> {
    let address = listen_address(settings);
    if settings.is_dev() && !address.is_local() {
        return Err(ServeError::DevOffLoopback(address));
    }
    if let Some((address, true)) = admin_address(settings)
        && !address.is_local()
        && settings.admin_token_file.is_none()
    {
        return Err(ServeError::AdminWithoutToken(address));
    }
    if settings.workers == Some(0) {
        return Err(ServeError::Zero("--workers"));
    }
    if settings.max_connections == Some(0) {
        return Err(ServeError::Zero("--max-connections"));
    }
    let is_segment = |version: &String| {
        // The unreserved characters of RFC 3986 section 2.3, which need no percent-encoding.
        let is_unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        !version.is_empty() && version.bytes().all(is_unreserved)
    };
    match versions(settings).into_iter().find(|v| !is_segment(v)) {
        Some(version) => Err(ServeError::Version(version)),
        None => Ok(()),
    }
}

pub(super) fn listen_address(settings: &Settings) -> Address {
    let address = settings.listen.clone();
    address.unwrap_or(Address::Tcp(DEFAULT_LISTEN))
}

/// Opens the store. Logs a warning if the store is damaged. Blocks until the location of every
/// document is known.
pub(super) fn open(
    settings: &Settings,
    data_dir: &Path,
    fd_budget: FdBudget,
) -> Result<Store, ServeError> {
    let store = Store::open(data_dir, settings, fd_budget.open_segments);
    let store = store.map_err(|error| match error {
        OpenError::Unfinished(error) => ServeError::Unfinished(error),
        OpenError::Store(source) => ServeError::Open {
            path: data_dir.to_owned(),
            source,
        },
    })?;
    let damaged = store.damaged_frames();
    if damaged > 0 {
        tracing::warn!(
            damaged_frames = damaged,
            "store is damaged: stop the server and run prefd verify to list the affected documents"
        );
    }
    Ok(store)
}

/// Creates the service of the API listener.
pub(crate) fn handler(
    settings: &Settings,
    store: Store,
    keys: KeySet,
) -> Result<Handler, ServeError> {
    let authenticator = Arc::new(setup::authenticator(settings, keys)?);
    let budget = Budget::new(
        settings.body_budget_bytes.unwrap_or(DEFAULT_BUDGET_BYTES),
        DocumentWriter::max_bytes() + UPLOAD_BUFFERS_BYTES,
        duration_or(settings.body_budget_wait, DEFAULT_BUDGET_WAIT),
    );
    Ok(Handler {
        health: Arc::new(Health::new(store.clone(), Arc::clone(&authenticator))),
        store,
        authenticator,
        requests: Arc::default(),
        known_clients: known_clients(settings),
        cors: cors(settings)?,
        versions: versions(settings),
        openapi: OpenApi::new(&versions(settings), &limits(settings))?,
        max_body_bytes: limits(settings).max_body_bytes,
        budget: Arc::new(budget),
        body_timeout: duration_or(settings.body_timeout, DEFAULT_TIMEOUT),
    })
}

/// Creates the service of the admin listener, which shares the store with `handler`.
pub(super) fn admin(
    settings: &Settings,
    handler: &Handler,
    connections: &Arc<ConnectionCounters>,
    max_connections: usize,
) -> Result<Admin, ServeError> {
    let token = settings.admin_token_file.as_deref().map(AdminToken::read);
    let metrics = Metrics::new(MetricSources {
        store: handler.store.clone(),
        requests: Arc::clone(&handler.requests),
        connections: Arc::clone(connections),
        authenticator: Arc::clone(&handler.authenticator),
        health: Arc::clone(&handler.health),
        budget: Arc::clone(&handler.budget),
        max_connections,
    });
    Ok(Admin {
        token: token.transpose()?,
        health: Arc::clone(&handler.health),
        metrics: Arc::new(metrics),
        store: AdminStore::new(handler.store.clone()),
    })
}

/// Returns the address of the admin listener, and true if the server must not start without the
/// admin listener. Returns `None` if the admin listener is turned off.
pub(super) fn admin_address(settings: &Settings) -> Option<(Address, bool)> {
    match &settings.admin_listen {
        Some(MaybeAddress::Off) => None,
        Some(MaybeAddress::At(address)) => Some((address.clone(), true)),
        // With an admin token, prefd does not start if it cannot listen on the default address,
        // because clients would send the token to the program that listens there.
        None => Some((
            Address::Tcp(DEFAULT_ADMIN_LISTEN),
            settings.admin_token_file.is_some(),
        )),
    }
}

/// Returns the API versions that a request path may contain.
pub(super) fn versions(settings: &Settings) -> Vec<String> {
    settings
        .api_version
        .clone()
        .unwrap_or_else(|| DEFAULT_VERSIONS.map(str::to_owned).to_vec())
}

/// Returns the clients that `--known-client` allows, or `None` if all clients are allowed.
fn known_clients(settings: &Settings) -> Option<HashSet<String>> {
    let clients = settings.known_client.as_ref()?;
    Some(clients.iter().cloned().collect())
}

/// Returns the CORS configuration, or `None` if web pages of other origins have no access.
pub(super) fn cors(settings: &Settings) -> Result<Option<Cors>, CorsError> {
    let headers = settings.cors_header.as_deref().unwrap_or_default();
    let origins = settings.cors_origin.as_deref();
    origins
        .map(|origins| Cors::new(origins, headers))
        .transpose()
}

/// Creates the [`ConnectionServer`], which passes the requests of each connection to `service`.
pub(crate) fn connection_server<H>(settings: &Settings, service: Arc<H>) -> ConnectionServer<H> {
    ConnectionServer {
        service,
        head_timeout: duration_or(settings.head_timeout, DEFAULT_TIMEOUT),
        write_timeout: duration_or(settings.write_timeout, DEFAULT_TIMEOUT),
    }
}
