//! Runs a server: start, reload on SIGHUP, and graceful shutdown.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{Admin, AdminToken};
use crate::api::Handler;
use crate::auth::setup::{self, IdentityError};
use crate::auth::{DEFAULT_TTL, KeySet, NewClaims, dev, secret_of, sign};
use crate::io_error::io_error;
use crate::log::{self, Log};
use crate::net::{Acceptor, Certificate, ConnectionCounters, ConnectionLimit, Listener};
use crate::serve::descriptors::FdBudget;
use crate::serve::error::ServeError;
use crate::serve::parts::{
    DEFAULT_TIMEOUT, admin, admin_address, certificate, check, connection_server, cors, handler,
    listen_address, open, versions, warn_about_readable_secrets,
};
use crate::serve::signals::{SignalRequest, Signals};
use crate::serve::store_watch::report_stop;
use crate::serve::systemd;
use crate::settings::{Address, Settings, SettingsSources, duration_or};
use crate::small_file;
use crate::store::Store;

const DEFAULT_DATA_DIR: &str = "prefd-data";
/// Maximum number of simultaneous connections of the admin listener.
const ADMIN_CONNECTIONS: usize = 16;

/// A server that has opened its store, and is ready to listen.
struct Server {
    /// The sources of the settings. On SIGHUP, the configuration file is read again, but only a
    /// changed log filter is applied.
    sources: SettingsSources,
    settings: Settings,
    data_dir: PathBuf,
    fd_budget: FdBudget,
    handler: Arc<Handler>,
    connections: Arc<ConnectionCounters>,
    certificate: Option<Certificate>,
    log: Log,
}

/// Runs a server until SIGTERM or SIGINT. Blocks until the store is closed. If one of these signals
/// arrives while the store is being opened, returns without waiting for the store.
///
/// # Errors
/// [`ServeError`] if the server cannot be started, or if the store cannot be closed cleanly.
pub(crate) fn run(sources: SettingsSources) -> Result<(), ServeError> {
    // Without a handler, SIGHUP would kill the process, and the first process of a container would
    // not receive SIGTERM.
    let mut signals = Signals::install().map_err(io_error("install", "signal handlers"))?;
    let settings = sources.settings()?;
    check(&settings)?;
    let log = log::start(
        settings.log.as_deref(),
        settings.log_format.unwrap_or_default(),
    )?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = settings.workers {
        runtime.worker_threads(workers);
    }
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(io_error("start", "the async runtime"))?;
    let opening = runtime.spawn_blocking(move || ServedStore::open(settings));
    let opened = runtime.block_on(async {
        tokio::select! {
            opened = opening => Some(opened),
            () = signals.stop() => None,
        }
    });
    let Some(opened) = opened else {
        // An interrupted recovery leaves the files in the same state as a crash, so the process can
        // end while another thread is still opening the store.
        tracing::info!("shutdown: stopped before the store was open");
        runtime.shutdown_background();
        return Ok(());
    };
    let ServedStore {
        settings,
        data_dir,
        fd_budget,
        store,
        handler,
        certificate,
    } = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    let server = Arc::new(Server {
        sources,
        settings,
        data_dir,
        fd_budget,
        handler,
        connections: Arc::default(),
        certificate,
        log,
    });
    let outcome = runtime.block_on(server.serve(signals));
    // A blocking thread cannot be aborted. A write or a reload that is still running when the
    // shutdown timeout of one second expires continues on its blocking thread.
    runtime.shutdown_timeout(Duration::from_secs(1));
    store.close().map_err(ServeError::Close)?;
    outcome
}

/// An open store, and the parts of a server that are created before and after the store is opened.
struct ServedStore {
    settings: Settings,
    data_dir: PathBuf,
    fd_budget: FdBudget,
    store: Store,
    handler: Arc<Handler>,
    certificate: Option<Certificate>,
}

impl ServedStore {
    /// Opens the store. Blocks until the location of every document is known.
    fn open(settings: Settings) -> Result<Self, ServeError> {
        setup::check(&settings)?;
        let data_dir = settings
            .data_dir
            .clone()
            .unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        // Most settings, the keys and the certificate are checked before the data directory is
        // created. The signing key of --dev is written only after the store is open, because an
        // open store locks the data directory.
        let mut keys = setup::local_keys(&settings)?;
        let certificate = certificate(&settings)?;
        warn_about_readable_secrets(&settings);
        let connections = settings.connections();
        let fd_budget = FdBudget::of_process(connections, reserved_descriptors(&settings))?;
        let store = open(&settings, &data_dir, fd_budget)?;
        if settings.is_dev() {
            let key = dev::key_path(&data_dir);
            dev::ensure_key(&data_dir).map_err(io_error("create the signing key", key))?;
            add_dev_key(&mut keys, &data_dir)?;
        }
        let handler = Arc::new(handler(&settings, store.clone(), keys)?);
        Ok(Self {
            settings,
            data_dir,
            fd_budget,
            store,
            handler,
            certificate,
        })
    }
}

/// Checks the settings, and reads every file that they name. [`run`] makes the same checks, but
/// makes some of them only after the store is open.
///
/// # Errors
/// [`ServeError`] if a setting or a file is invalid.
pub(crate) fn check_settings(settings: &Settings) -> Result<(), ServeError> {
    check(settings)?;
    log::parse(settings.log.as_deref())?;
    setup::check(settings)?;
    setup::authenticator(settings, setup::local_keys(settings)?)?;
    cors(settings)?;
    if let Some(file) = &settings.admin_token_file {
        AdminToken::read(file)?;
    }
    warn_about_readable_secrets(settings);
    certificate(settings).map(drop)
}

/// Returns the number of file descriptors to reserve for the admin listener and for identity
/// providers. Each connection of the admin listener needs two file descriptors: one for its socket,
/// and one for a file that is read.
fn reserved_descriptors(settings: &Settings) -> u64 {
    let admin = admin_address(settings).map_or(0, |_| 2 * ADMIN_CONNECTIONS as u64);
    admin + setup::descriptors(settings)
}

fn add_dev_key(keys: &mut KeySet, data_dir: &Path) -> Result<(), IdentityError> {
    keys.add_secret_file(&dev::key_path(data_dir))
        .map_err(IdentityError::keys("--dev"))
}

impl Server {
    /// Listens and accepts connections until a signal asks the server to stop. After the signal,
    /// waits for in-flight requests until the drain timeout has expired or a second signal arrives.
    async fn serve(self: &Arc<Self>, mut signals: Signals) -> Result<(), ServeError> {
        let listener = self.listener()?;
        for provider in self.handler.authenticator.providers() {
            let provider = Arc::clone(provider);
            tokio::spawn(async move { provider.run().await });
        }
        let (stop, stopping) = watch::channel(());
        let acceptor = Acceptor {
            server: Arc::new(connection_server(&self.settings, Arc::clone(&self.handler))),
            counters: Arc::clone(&self.connections),
            tls: self
                .certificate
                .as_ref()
                .map(Certificate::acceptor)
                .transpose()?,
            limit: ConnectionLimit::new(self.fd_budget.connections),
            handshake_timeout: duration_or(self.settings.head_timeout, DEFAULT_TIMEOUT),
        };
        // The admin listener stops last, so that health and metrics can be read during shutdown.
        let (admin_stop, admin_stopping) = watch::channel(());
        let admin = self.admin_listener()?.map(|(listener, acceptor)| {
            tokio::spawn(async move { acceptor.accept_loop(&listener, &admin_stopping).await })
        });
        self.announce(listener.address())?;
        systemd::ready();
        tokio::spawn(systemd::run_watchdog());
        tokio::spawn(report_stop(self.handler.store.clone()));
        tokio::select! {
            () = acceptor.accept_loop(&listener, &stopping) => {}
            () = self.reload_until_stop(&mut signals) => {}
        }
        self.handler.health.set_stopping();
        drop(listener);
        drop(stopping);
        systemd::stopping();
        tracing::info!("shutdown started: waiting for in-flight requests");
        let drained = async {
            let _ = stop.send(());
            stop.closed().await;
            // Stop accepting on the admin listener, and wait for its requests, such as a backup.
            if let Some(admin) = admin {
                admin.abort();
                let _ = admin.await;
            }
            let _ = admin_stop.send(());
            admin_stop.closed().await;
        };
        let deadline = duration_or(self.settings.drain_timeout, DEFAULT_TIMEOUT);
        tokio::select! {
            drained = tokio::time::timeout(deadline, drained) => if drained.is_err() {
                tracing::warn!(
                    "drain timeout (--drain-timeout) expired: aborting the remaining requests"
                );
            },
            () = signals.stop() => {
                tracing::warn!("second signal to stop: aborting the remaining requests");
            }
        }
        Ok(())
    }

    /// Reloads on each request to reload, until a signal asks the server to stop.
    ///
    /// A file can take any time to read, for example on a network file system that does not
    /// respond. Therefore a reload runs on a blocking thread. At most one reload runs at a time.
    async fn reload_until_stop(self: &Arc<Self>, signals: &mut Signals) {
        let mut running: Option<JoinHandle<()>> = None;
        loop {
            let is_idle = running.is_none();
            tokio::select! {
                () = end_of(&mut running), if !is_idle => running = None,
                request = signals.next(is_idle) => match request {
                    SignalRequest::Stop => return,
                    SignalRequest::Reload => {
                        let server = Arc::clone(self);
                        running = Some(tokio::task::spawn_blocking(move || server.reload()));
                    }
                },
            }
        }
    }

    /// Returns the listener that systemd has passed, or binds the listener of the API.
    fn listener(&self) -> Result<Listener, ServeError> {
        match Listener::inherited()? {
            Some(listener) if self.settings.is_dev() && !listener.address().is_local() => {
                Err(ServeError::DevOffLoopback(listener.address().clone()))
            }
            Some(listener) => Ok(listener),
            None => Ok(Listener::bind(&listen_address(&self.settings))?),
        }
    }

    /// Binds the admin listener. Returns `None` if the admin listener is off, or if it is not
    /// required and its default address cannot be bound.
    fn admin_listener(&self) -> Result<Option<(Listener, Acceptor<Admin>)>, ServeError> {
        let Some((address, is_required)) = admin_address(&self.settings) else {
            return Ok(None);
        };
        let listener = match Listener::bind(&address) {
            Ok(listener) => listener,
            Err(error) if is_required => return Err(error.into()),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "admin listener not started: choose another address with --admin-listen"
                );
                return Ok(None);
            }
        };
        // An admin listener that only this machine can reach does not use TLS, so local clients do
        // not need to trust the certificate.
        let certificate = self.certificate.as_ref().filter(|_| !address.is_local());
        let admin = admin(
            &self.settings,
            &self.handler,
            &self.connections,
            self.fd_budget.connections,
        )?;
        let acceptor = Acceptor {
            server: Arc::new(connection_server(&self.settings, Arc::new(admin))),
            counters: Arc::default(),
            tls: certificate.map(Certificate::acceptor).transpose()?,
            limit: ConnectionLimit::new(ADMIN_CONNECTIONS),
            handshake_timeout: duration_or(self.settings.head_timeout, DEFAULT_TIMEOUT),
        };
        if acceptor.tls.is_none() && !address.is_local() {
            tracing::warn!(
                "admin listener has no TLS, so the admin token crosses the network unencrypted: set \
                 --tls-cert-file and --tls-key-file"
            );
        }
        tracing::info!(address = %listener.address(), "admin listener started");
        Ok(Some((listener, acceptor)))
    }

    /// Reloads the certificate, the keys together with the introspection credentials, and the log
    /// filter. If the certificate, the keys or the log filter cannot be reloaded, the previous
    /// version stays in use. Blocks while files are read.
    fn reload(&self) {
        systemd::reloading();
        let report = |what: &str, outcome: Result<(), ServeError>| match outcome {
            Ok(()) => tracing::info!(what, "reload completed"),
            Err(error) => {
                tracing::error!(what, %error, "reload failed: the previous version stays in use");
            }
        };
        if let Some(certificate) = &self.certificate {
            report(
                "certificate",
                certificate.reload().map_err(ServeError::from),
            );
        }
        report("keys", self.reload_keys());
        report("log", self.reload_log());
        systemd::ready();
    }

    fn reload_keys(&self) -> Result<(), ServeError> {
        let mut keys = setup::local_keys(&self.settings)?;
        if self.settings.is_dev() {
            add_dev_key(&mut keys, &self.data_dir)?;
        }
        Ok(setup::reload(
            &self.settings,
            &self.handler.authenticator,
            keys,
        )?)
    }

    /// Applies a changed log filter. Logs a warning if a changed setting takes effect only after a
    /// restart.
    fn reload_log(&self) -> Result<(), ServeError> {
        let settings = self.sources.settings()?;
        self.log.set_filter(settings.log.as_deref())?;
        let with_current_log = Settings {
            log: self.settings.log.clone(),
            ..settings
        };
        if with_current_log != self.settings {
            tracing::warn!("some changed settings take effect only after a restart");
        }
        Ok(())
    }

    /// Prints the address of the API listener. With --dev, also prints example requests.
    fn announce(&self, address: &Address) -> Result<(), ServeError> {
        let settings = &self.settings;
        let scheme = match (address, &self.certificate) {
            (Address::Unix(_), _) => "",
            (Address::Tcp(_), None) => "http://",
            (Address::Tcp(_), Some(_)) => "https://",
        };
        let mut text = format!("listening on {scheme}{address}\n");
        if settings.is_dev() {
            let path = dev::key_path(&self.data_dir);
            let key = small_file::read(&path).map_err(io_error("read the signing key", &path))?;
            let claims = NewClaims {
                sub: dev::USER,
                client_id: dev::CLIENT,
                scope: None,
                iss: settings.jwt_issuer.as_deref(),
                aud: settings.jwt_audience.as_deref(),
            };
            let secret = secret_of(&key);
            let token = sign(secret, &claims, DEFAULT_TTL)?;
            let versions = versions(settings);
            let version = versions.first().map_or("", String::as_str);
            text.push_str(&dev::requests(address, scheme, version, &token));
        }
        let mut out = io::stdout().lock();
        let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        if let Err(error) = printed {
            // The server works without this output, for example if standard output is a file on a
            // full disk.
            tracing::warn!(%error, %address, "cannot print the listening address");
        }
        Ok(())
    }
}

/// Waits until the task, if any, has ended.
async fn end_of(task: &mut Option<JoinHandle<()>>) {
    if let Some(Err(error)) = async { Some(task.as_mut()?.await) }.await {
        tracing::error!(%error, "reload failed");
    }
}
