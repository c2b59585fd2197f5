//! Creates the parts of a server from its settings.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::{Admin, AdminStore, AdminToken};
use crate::api::{Handler, OpenApi, UploadRules};
use crate::auth::{KeySet, setup};
use crate::http::{Budget, Clock, Cors, CorsError};
use crate::net::{Certificate, ConnectionCounters, ConnectionServer};
use crate::serve::descriptors::FdBudget;
use crate::serve::error::ServeError;
use crate::settings::{Address, MaybeAddress, Settings, duration_or};
use crate::small_file;
use crate::store::{Limits, OpenError, Store, limits, owner, writable_by_everyone};
use crate::telemetry::{Health, MetricSources, Metrics};

pub(super) const DEFAULT_ADMIN_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8081);
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// The versions of the PACE Cloud preferences API that were published. Its documentation uses the
/// first version, and its client libraries use different versions.
const DEFAULT_VERSIONS: [&str; 7] = [
    "2025-1", "2024-4", "2024-3", "2024-2", "2024-1", "2021-2", "2020-4",
];
/// Maximum number of threads that serve connections. Each thread needs memory for its stack, and
/// more threads than cores do not make the server faster.
const MAX_WORKERS: u64 = 1024;
/// Length of the shortest document, `{}`, in bytes.
const MIN_BODY_BYTES: u64 = 2;
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_BUDGET_BYTES: u64 = 64 * 1024 * 1024;
/// Default of `--max-unfinished-upload-bytes`, in bodies of the maximum length. If four users need
/// all the space, each of them can still upload four of the largest documents at the same time.
const DEFAULT_UNFINISHED_BODIES: u64 = 16;
const DEFAULT_BUDGET_WAIT: Duration = Duration::from_secs(10);

/// Reads the TLS certificate and its key. Returns `None` if TLS is not configured.
pub(super) fn certificate(settings: &Settings) -> Result<Option<Certificate>, ServeError> {
    match (&settings.tls_cert_file, &settings.tls_key_file) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(Certificate::read(certificate, key)?)),
        _ => Err(ServeError::HalfTls),
    }
}

/// Logs a warning for each secret file that every user of the machine may read. Blocks.
pub(super) fn warn_about_readable_secrets(settings: &Settings) {
    for (setting, file) in [
        ("--jwt-hs256-secret-file", &settings.jwt_hs256_secret_file),
        (
            "--introspection-credentials-file",
            &settings.introspection_credentials_file,
        ),
        ("--admin-token-file", &settings.admin_token_file),
        ("--tls-key-file", &settings.tls_key_file),
    ] {
        if let Some(file) = file
            && small_file::is_readable_by_others(file)
        {
            tracing::warn!(
                setting,
                file = %file.display(),
                "secret file can be read by every user of this machine: remove the permission with \
                 chmod o-r"
            );
        }
    }
}

/// Checks the listen addresses, the API versions, and numbers that are out of range. Reads no
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
    check_numbers(settings)?;
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

/// Checks the numbers for which not every value is useful.
fn check_numbers(settings: &Settings) -> Result<(), ServeError> {
    let count = |setting: Option<usize>| setting.map(|count| count as u64);
    let workers = count(settings.workers);
    for (setting, value, min) in [
        ("--workers", workers, 1),
        ("--max-connections", count(settings.max_connections), 1),
        ("--max-keys", settings.max_keys.map(u64::from), 1),
        ("--max-key-bytes", settings.max_key_bytes.map(u64::from), 1),
        ("--max-value-bytes", settings.max_value_bytes, 1),
        ("--max-body-bytes", settings.max_body_bytes, MIN_BODY_BYTES),
    ] {
        if value.is_some_and(|value| value < min) {
            return Err(ServeError::TooSmall { setting, min });
        }
    }
    if workers.is_some_and(|workers| workers > MAX_WORKERS) {
        return Err(ServeError::TooLarge {
            setting: "--workers",
            max: MAX_WORKERS,
        });
    }
    max_unfinished_bytes(settings, &limits(settings)?)?;
    Store::check_settings(settings).map_err(ServeError::Storage)
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
    owner::require_own(data_dir)?;
    let store = Store::open(data_dir, settings, fd_budget.open_segments);
    let store = store.map_err(|error| match error {
        OpenError::Unfinished(error) => ServeError::Unfinished(error),
        OpenError::Limits(error) => ServeError::Limits(error),
        OpenError::Store(source) => ServeError::Open {
            path: data_dir.to_owned(),
            source,
        },
    })?;
    if !store.is_directory_locked() {
        tracing::warn!(
            "data directory is not locked, because its file system cannot lock directories: do not \
             remove the file lock while prefd is running"
        );
    }
    for path in writable_by_everyone(data_dir) {
        tracing::warn!(
            path = %path.display(),
            "every user of this machine can change the stored documents: run chmod o-w on this \
             directory"
        );
    }
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
    let limits = limits(settings)?;
    let budget = Budget::new(
        settings.body_budget_bytes.unwrap_or(DEFAULT_BUDGET_BYTES),
        max_unfinished_bytes(settings, &limits)?,
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
        clock: Clock::SYSTEM,
        openapi: OpenApi::new(&versions(settings), &limits)?,
        max_body_bytes: limits.max_body_bytes,
        uploads: UploadRules {
            budget: Arc::new(budget),
            idle_timeout: duration_or(settings.body_timeout, DEFAULT_TIMEOUT),
        },
    })
}

/// Returns the maximum disk space for uploads that are not complete, in bytes.
fn max_unfinished_bytes(settings: &Settings, limits: &Limits) -> Result<u64, ServeError> {
    let max_body_bytes = limits.max_body_bytes;
    match settings.max_unfinished_upload_bytes {
        Some(bytes) if bytes < max_body_bytes => Err(ServeError::UnfinishedUploads {
            bytes,
            max_body_bytes,
        }),
        Some(bytes) => Ok(bytes),
        None => Ok(DEFAULT_UNFINISHED_BODIES.saturating_mul(max_body_bytes)),
    }
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
        budget: Arc::clone(&handler.uploads.budget),
        max_connections,
    });
    Ok(Admin {
        clock: handler.clock,
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
