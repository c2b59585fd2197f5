//! `prefd serve`: from settings to a listening server, and back to a closed store.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::admin::{Admin, AdminToken};
use crate::api::Handler;
use crate::auth::setup::{self, IdentityError};
use crate::auth::{DEFAULT_TTL, KeySet, NewClaims, dev, secret_of, sign};
use crate::net::{Acceptor, Certificate, ConnectionCounters, ConnectionLimit, Listener};
use crate::serve::descriptors::Shares;
use crate::serve::error::{ServeError, system};
use crate::serve::log::{self, Log};
use crate::serve::parts::{
    DEFAULT_TIMEOUT, admin, admin_address, certificate, check, connection_server, cors, handler,
    listen_address, open, versions,
};
use crate::serve::systemd;
use crate::settings::{Address, Settings, SettingsSources, duration_or};

const DEFAULT_DATA_DIR: &str = "prefd-data";
/// Connections of the operator's listener.
const ADMIN_CONNECTIONS: usize = 16;

/// A server that is about to serve.
struct Server {
    /// What it was told, to be read again.
    given: SettingsSources,
    settings: Settings,
    data_dir: PathBuf,
    shares: Shares,
    handler: Arc<Handler>,
    connections: Arc<ConnectionCounters>,
    certificate: Option<Certificate>,
    log: Log,
}

/// Serves until it is told to stop.
pub(crate) fn run(given: SettingsSources) -> Result<(), ServeError> {
    let settings = given.settings()?;
    check(&settings)?;
    let log = log::start(
        settings.log.as_deref(),
        settings.log_format.unwrap_or_default(),
    )?;
    setup::check(&settings)?;
    let data_dir = settings
        .data_dir
        .clone()
        .unwrap_or_else(|| DEFAULT_DATA_DIR.into());
    // What was given is judged before anything is made; the key of --dev is in the data
    // directory, which must be ours before it is written to.
    let mut keys = setup::local_keys(&settings)?;
    let certificate = certificate(&settings)?;
    let connections = settings.connections();
    let shares = Shares::of_process(connections, other_descriptors(&settings))?;
    let store = open(&settings, &data_dir, shares)?;
    if settings.is_dev() {
        dev::ensure_key(&data_dir).map_err(system("cannot make the key of --dev"))?;
        add_dev_key(&mut keys, &data_dir)?;
    }
    let handler = Arc::new(handler(&settings, store.clone(), keys)?);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = settings.workers {
        runtime.worker_threads(workers);
    }
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(system("cannot start threads"))?;
    let server = Server {
        given,
        settings,
        data_dir,
        shares,
        handler,
        connections: Arc::default(),
        certificate,
        log,
    };
    let outcome = runtime.block_on(server.serve());
    // What is still on a blocking thread ends by itself, and its write with it.
    runtime.shutdown_timeout(Duration::from_secs(1));
    store.close().map_err(ServeError::Close)?;
    outcome
}

/// Judges settings, and reads every file that they name: what a start does before it opens
/// the data directory.
pub(crate) fn check_settings(settings: &Settings) -> Result<(), ServeError> {
    check(settings)?;
    log::parse(settings.log.as_deref())?;
    setup::check(settings)?;
    setup::authenticator(settings, setup::local_keys(settings)?)?;
    cors(settings)?;
    if let Some(file) = &settings.admin_token_file {
        AdminToken::read(file)?;
    }
    certificate(settings).map(drop)
}

/// File descriptors beside those of connections and the store: the operator's, each with
/// a file that is read, and those to identity providers.
fn other_descriptors(settings: &Settings) -> u64 {
    let admin = admin_address(settings).map_or(0, |_| 2 * ADMIN_CONNECTIONS as u64);
    admin + setup::descriptors(settings)
}

fn add_dev_key(keys: &mut KeySet, data_dir: &Path) -> Result<(), IdentityError> {
    keys.add_secret_file(&dev::key_path(data_dir))
        .map_err(IdentityError::keys("--dev"))
}

/// The signals that a server heeds.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

impl Server {
    /// Listens, says so, and accepts until a signal; then lets what is in flight end.
    async fn serve(&self) -> Result<(), ServeError> {
        let mut signals = Signals::new().map_err(system("cannot wait for signals"))?;
        let listener = match Listener::inherited()? {
            Some(listener) if self.settings.is_dev() && !listener.address().is_local() => {
                return Err(ServeError::DevOffLoopback(listener.address().clone()));
            }
            Some(listener) => listener,
            None => Listener::bind(&listen_address(&self.settings))?,
        };
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
            limit: ConnectionLimit::new(self.shares.connections),
            handshake_timeout: duration_or(self.settings.head_timeout, DEFAULT_TIMEOUT),
        };
        // Longer than the other, so that somebody can look at how it stops.
        let (admin_stop, admin_stopping) = watch::channel(());
        let admin = self.admin()?.map(|(listener, acceptor)| {
            tokio::spawn(async move { acceptor.accept_loop(&listener, &admin_stopping).await })
        });
        self.announce(listener.address())?;
        systemd::ready();
        tokio::spawn(systemd::keep_watched());
        {
            let mut accepting = pin!(acceptor.accept_loop(&listener, &stopping));
            loop {
                tokio::select! {
                    () = &mut accepting => {}
                    _ = signals.terminate.recv() => break,
                    _ = signals.interrupt.recv() => break,
                    _ = signals.hangup.recv() => self.reload(),
                }
            }
        }
        self.handler.health.set_stopping();
        drop(listener);
        drop(stopping);
        systemd::stopping();
        tracing::info!("stopping: letting what is in flight end");
        let drained = async {
            let _ = stop.send(());
            stop.closed().await;
            // What operators have begun: a backup, an import.
            if let Some(admin) = admin {
                admin.abort();
                let _ = admin.await;
            }
            let _ = admin_stop.send(());
            admin_stop.closed().await;
        };
        let deadline = duration_or(self.settings.drain_timeout, DEFAULT_TIMEOUT);
        if tokio::time::timeout(deadline, drained).await.is_err() {
            tracing::warn!("not everything in flight has ended in time");
        }
        Ok(())
    }

    /// The operator's listener, if there is to be one.
    fn admin(&self) -> Result<Option<(Listener, Acceptor<Admin>)>, ServeError> {
        let Some((address, is_required)) = admin_address(&self.settings) else {
            return Ok(None);
        };
        let listener = match Listener::bind(&address) {
            Ok(listener) => listener,
            Err(error) if is_required => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, "there is no operator's listener: see --admin-listen");
                return Ok(None);
            }
        };
        // In the clear on this machine: whoever asks there need not trust a certificate.
        let certificate = self.certificate.as_ref().filter(|_| !address.is_local());
        let admin = admin(
            &self.settings,
            &self.handler,
            &self.connections,
            self.shares.connections,
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
                "the operator's token passes the network in the clear: see --tls-cert-file"
            );
        }
        tracing::info!(address = %listener.address(), "the operator's listener");
        Ok(Some((listener, acceptor)))
    }

    /// Reads certificate, keys and the log's filter anew. What cannot be used stays as it
    /// was.
    fn reload(&self) {
        systemd::reloading();
        let again = |what: &str, outcome: Result<(), ServeError>| match outcome {
            Ok(()) => tracing::info!(what, "read anew"),
            Err(error) => tracing::error!(what, %error, "cannot be read anew, and stays as it was"),
        };
        if let Some(certificate) = &self.certificate {
            again(
                "certificate",
                certificate.reload().map_err(ServeError::from),
            );
        }
        again("keys", self.reload_keys());
        again("log", self.reload_log());
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

    /// The filter alone can be another one in the file; the rest takes a new start.
    fn reload_log(&self) -> Result<(), ServeError> {
        let settings = self.given.settings()?;
        self.log.set_filter(settings.log.as_deref())?;
        let same_log = Settings {
            log: self.settings.log.clone(),
            ..settings
        };
        if same_log != self.settings {
            tracing::warn!("settings have changed that take a new start");
        }
        Ok(())
    }

    /// Says where the server listens, and with --dev how to try it.
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
            let key = std::fs::read(path).map_err(system("cannot read the key of --dev"))?;
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
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(system("cannot write to standard output"))
    }
}
