//! `prefd serve`: from settings to a listening server, and back to a closed store.

use std::collections::HashSet;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prefd_engine::{Config, Engine};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use crate::auth::keys::KeySet;
use crate::connection::Carrier;
use crate::descriptors::{Shares, TooFew};
use crate::dev;
use crate::handler::Handler;
use crate::identity::{self, IdentityError};
use crate::settings::{Settings, SettingsError, span};
use crate::token::{self, TokenError};
use crate::upload::Budget;

const DEFAULT_DATA_DIR: &str = "prefd-data";
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// The page says 2025-1; the newest public client library calls 2024-2.
const DEFAULT_VERSIONS: [&str; 2] = ["2025-1", "2024-2"];
const DEFAULT_MAX_CONNECTIONS: usize = 1024;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_BUDGET_BYTES: u64 = 64 * 1024 * 1024;
const DEFAULT_BUDGET_WAIT: Duration = Duration::from_secs(10);
/// How long to wait where the system has no file descriptor for a connection: they
/// come back as connections end, and asking at once again would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the system keeps until they are accepted. Of the usual 128 too many
/// would be turned away where clients wait for a place, each to try again after seconds.
const BACKLOG: u32 = 1024;

/// Why the server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServeError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("--dev listens on loopback addresses only, and {0} is none: its key is for trying out")]
    DevOffLoopback(SocketAddr),
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    #[error("--api-version {0:?} cannot be a part of a path")]
    Version(String),
    #[error("--log: {0}")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot open the data directory {}: {source}{}", path.display(), cause(source))]
    Open {
        path: PathBuf,
        source: prefd_engine::Error,
    },
    #[error("the store was not closed cleanly: {0}")]
    Close(prefd_engine::Error),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("{what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Descriptors(#[from] TooFew),
}

impl ServeError {
    /// Whether it was asked for in a way that cannot work.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Settings(_)
            | Self::DevOffLoopback(_)
            | Self::Zero(_)
            | Self::Version(_)
            | Self::Log(_)
            | Self::Open {
                source: prefd_engine::Error::InvalidConfig { .. },
                ..
            } => true,
            Self::Identity(error) => error.is_usage(),
            _ => false,
        }
    }
}

/// What the system said, if it said something.
pub(crate) fn cause(error: &prefd_engine::Error) -> String {
    std::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"))
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::System { what, source }
}

/// Serves until it is told to stop.
pub(crate) fn run(settings: &Settings) -> Result<(), ServeError> {
    check(settings)?;
    start_log(settings.log.as_deref().unwrap_or("info"))?;
    identity::check(settings)?;
    let data_dir = settings
        .data_dir
        .clone()
        .unwrap_or_else(|| DEFAULT_DATA_DIR.into());
    let is_dev = settings.dev.unwrap_or(false);
    // Keys that were given are judged before anything is made; the one of --dev is in
    // the data directory, which must be ours before it is written to.
    let mut keys = local_keys(settings)?;
    let shares = Shares::of_process(settings.max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS))?;
    let engine = open(settings, &data_dir, shares)?;
    if is_dev {
        dev::ensure_key(&data_dir).map_err(system("cannot make the key of --dev"))?;
        keys.add_secret_file(&dev::key_path(&data_dir))
            .map_err(IdentityError::from)?;
    }
    let handler = Arc::new(handler(settings, engine.clone(), keys)?);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = settings.workers {
        runtime.worker_threads(workers);
    }
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(system("cannot start threads"))?;
    let served = runtime.block_on(serve(settings, &data_dir, shares, handler));
    // What is still on a blocking thread ends by itself, and its write with it.
    runtime.shutdown_timeout(Duration::from_secs(1));
    engine.close().map_err(ServeError::Close)?;
    served
}

fn check(settings: &Settings) -> Result<(), ServeError> {
    let address = settings.listen.unwrap_or(DEFAULT_LISTEN);
    if settings.dev.unwrap_or(false) && !address.ip().is_loopback() {
        return Err(ServeError::DevOffLoopback(address));
    }
    if settings.workers == Some(0) {
        return Err(ServeError::Zero("--workers"));
    }
    if settings.max_connections == Some(0) {
        return Err(ServeError::Zero("--max-connections"));
    }
    let is_segment = |version: &String| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        !version.is_empty() && version.bytes().all(plain)
    };
    match versions(settings).into_iter().find(|v| !is_segment(v)) {
        Some(version) => Err(ServeError::Version(version)),
        None => Ok(()),
    }
}

fn start_log(filter: &str) -> Result<(), ServeError> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
    // A second call in one process keeps the first log, which is as good.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .try_init();
    Ok(())
}

/// The keys in files.
pub(crate) fn local_keys(settings: &Settings) -> Result<KeySet, ServeError> {
    Ok(identity::local_keys(settings).map_err(IdentityError::from)?)
}

fn open(settings: &Settings, data_dir: &Path, shares: Shares) -> Result<Engine, ServeError> {
    let mut config = Config::new(data_dir);
    config.open_segments = shares.open_segments;
    config.limits = settings.limits();
    if let Some(bytes) = settings.document_cache_bytes {
        config.cache_bytes = bytes;
    }
    if let Some(bytes) = settings.segment_bytes {
        config.segment_bytes = bytes;
    }
    let engine = Engine::open(config).map_err(|source| ServeError::Open {
        path: data_dir.to_owned(),
        source,
    })?;
    let damaged = engine.usage_on_disk().damaged_frames;
    if damaged > 0 {
        tracing::warn!(
            damaged,
            "frames of the log cannot be read: `prefd verify` says whose documents they are"
        );
    }
    Ok(engine)
}

pub(crate) fn handler(
    settings: &Settings,
    engine: Engine,
    keys: KeySet,
) -> Result<Handler, ServeError> {
    Ok(Handler {
        engine,
        authenticator: identity::authenticator(settings, keys)?,
        known_clients: known_clients(settings),
        versions: versions(settings),
        max_body_bytes: settings.limits().max_body_bytes,
        budget: Budget::new(
            settings.body_budget_bytes.unwrap_or(DEFAULT_BUDGET_BYTES),
            Config::new("").inline_bytes.into(),
            span(settings.body_budget_wait, DEFAULT_BUDGET_WAIT),
        ),
        body_timeout: span(settings.body_timeout, DEFAULT_TIMEOUT),
    })
}

fn versions(settings: &Settings) -> Vec<String> {
    settings
        .api_version
        .clone()
        .unwrap_or_else(|| DEFAULT_VERSIONS.map(str::to_owned).to_vec())
}

/// The clients that there are; `None` where any may be.
fn known_clients(settings: &Settings) -> Option<HashSet<String>> {
    let clients = settings.known_client.as_ref()?;
    Some(clients.iter().cloned().collect())
}

/// Listens, says so, and accepts until a signal; then lets what is in flight end.
async fn serve(
    settings: &Settings,
    data_dir: &Path,
    shares: Shares,
    handler: Arc<Handler>,
) -> Result<(), ServeError> {
    let address = settings.listen.unwrap_or(DEFAULT_LISTEN);
    let mut terminate =
        signal(SignalKind::terminate()).map_err(system("cannot wait for signals"))?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(system("cannot wait for signals"))?;
    let listener = listen(address).map_err(|source| ServeError::Listen { address, source })?;
    let address = listener
        .local_addr()
        .map_err(|source| ServeError::Listen { address, source })?;
    for provider in handler.authenticator.providers() {
        let provider = Arc::clone(provider);
        tokio::spawn(async move { provider.run().await });
    }
    announce(settings, data_dir, address)?;

    let (stop, stopping) = watch::channel(());
    let connections = shares.connections.min(Semaphore::MAX_PERMITS);
    let places = Arc::new(Semaphore::new(connections));
    let carrier = Arc::new(carrier(settings, handler));
    let accepting = async {
        loop {
            // Never closed, so it always gives a place.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            match listener.accept().await {
                Ok((stream, _)) => {
                    // An answer is written in one go; waiting for more would only
                    // delay it.
                    let _ = stream.set_nodelay(true);
                    let (carrier, stopping) = (Arc::clone(&carrier), stopping.clone());
                    tokio::spawn(async move {
                        carrier.carry(stream, stopping).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    drop(listener);
    drop(stopping);
    tracing::info!("stopping: letting what is in flight end");
    let _ = stop.send(());
    let drained = stop.closed();
    let deadline = span(settings.drain_timeout, DEFAULT_TIMEOUT);
    if tokio::time::timeout(deadline, drained).await.is_err() {
        tracing::warn!("not everything in flight has ended in time");
    }
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Else a restart could fail for a minute, on what is left of old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

pub(crate) fn carrier(settings: &Settings, handler: Arc<Handler>) -> Carrier {
    Carrier {
        handler,
        head_timeout: span(settings.head_timeout, DEFAULT_TIMEOUT),
        write_timeout: span(settings.write_timeout, DEFAULT_TIMEOUT),
    }
}

/// Says where the server listens, and with --dev how to try it.
fn announce(settings: &Settings, data_dir: &Path, address: SocketAddr) -> Result<(), ServeError> {
    let mut text = format!("listening on http://{address}\n");
    if settings.dev.unwrap_or(false) {
        let path = dev::key_path(data_dir);
        let key = std::fs::read(path).map_err(system("cannot read the key of --dev"))?;
        let claims = token::NewClaims {
            sub: dev::USER,
            client_id: dev::CLIENT,
            scope: None,
            iss: settings.jwt_issuer.as_deref(),
            aud: settings.jwt_audience.as_deref(),
        };
        let secret = crate::auth::keys::secret_of(&key);
        let token = token::sign(secret, &claims, token::DEFAULT_TTL)?;
        let versions = versions(settings);
        let version = versions.first().map_or("", String::as_str);
        text.push_str(&dev::requests(address, version, &token));
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(system("cannot write to standard output"))
}
