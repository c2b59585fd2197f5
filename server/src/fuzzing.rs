//! Access to server internals for fuzzing: serves a connection over any stream, verifies a token as
//! of any time, and reads a line of an import. Requires the feature `fuzzing`. Not part of the
//! public API.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::api::Handler;
use crate::auth::Authenticator;
use crate::auth::setup::{IdentityError, authenticator, local_keys};
use crate::http::Clock;
use crate::net::{ConnectionServer, ConnectionState};
use crate::serve::{ServeError, connection_server, handler};
use crate::settings::Settings;
use crate::store::{BlockingStore, Engine, Prepared, Store};
use crate::transfer::NdjsonReader;

/// The key files that the server verifies tokens with.
#[derive(Debug, Default)]
pub struct KeyFiles<'a> {
    /// The secret for HS256 tokens.
    pub secret: Option<&'a Path>,
    /// Public keys, one PEM file each.
    pub public_keys: Vec<PathBuf>,
    /// A JSON Web Key Set (RFC 7517).
    pub jwks: Option<&'a Path>,
}

impl KeyFiles<'_> {
    fn settings(&self) -> Settings {
        Settings {
            jwt_hs256_secret_file: self.secret.map(Path::to_owned),
            jwt_public_key_file: Some(self.public_keys.clone()),
            jwks_file: self.jwks.map(Path::to_owned),
            ..Settings::default()
        }
    }
}

/// An API server without a listener. The caller supplies the connections.
pub struct InMemoryServer {
    connections: ConnectionServer<Handler>,
    /// This sender is kept only because dropping it shuts down all connections.
    _stop: watch::Sender<()>,
    stopping: watch::Receiver<()>,
}

impl InMemoryServer {
    /// Creates a server with the default settings and the given keys. `engine` enforces the
    /// document limits. A request whose Content-Length is larger than `max_body_bytes` is rejected
    /// before its body is read.
    ///
    /// # Errors
    /// The error as text if a key file cannot be read or is not valid.
    pub fn new(engine: Engine, keys: &KeyFiles<'_>, max_body_bytes: u64) -> Result<Self, String> {
        Self::with_clock(engine, keys, max_body_bytes, SystemTime::now)
    }

    /// Creates a server like [`Self::new`] that reads the current time from `now`. The clock of
    /// `engine` determines the times of writes.
    ///
    /// # Errors
    /// The error as text if a key file cannot be read or is not valid.
    pub fn with_clock(
        engine: Engine,
        keys: &KeyFiles<'_>,
        max_body_bytes: u64,
        now: fn() -> SystemTime,
    ) -> Result<Self, String> {
        let settings = Settings {
            max_body_bytes: Some(max_body_bytes),
            ..keys.settings()
        };
        let build = || {
            let keys = local_keys(&settings)?;
            let mut handler = handler(&settings, Store::new(engine), keys)?;
            handler.clock = Clock::new(now);
            Ok(Arc::new(handler))
        };
        let handler = build().map_err(|error: ServeError| error.to_string())?;
        let (stop, stopping) = watch::channel(());
        Ok(Self {
            connections: connection_server(&settings, handler),
            _stop: stop,
            stopping,
        })
    }

    /// Serves one connection, and returns when the connection has ended.
    pub async fn serve_connection<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) {
        let state = ConnectionState::new(Instant::now());
        let stopping = self.stopping.clone();
        self.connections.run(stream, &state, stopping).await;
    }
}

/// Verifies tokens.
pub struct Verifier(Authenticator);

impl Verifier {
    /// Creates a verifier with the default settings and the given keys. If an issuer is given,
    /// every token must have this issuer. If an audience is given, every token must contain this
    /// audience.
    ///
    /// # Errors
    /// The error as text if a key file cannot be read or is not valid.
    pub fn new(
        keys: &KeyFiles<'_>,
        issuer: Option<&str>,
        audience: Option<&str>,
    ) -> Result<Self, String> {
        let settings = Settings {
            jwt_issuer: issuer.map(str::to_owned),
            jwt_audience: audience.map(str::to_owned),
            // The token cache is off, so that each call verifies the token again.
            token_cache_entries: Some(0),
            ..keys.settings()
        };
        let build = || authenticator(&settings, local_keys(&settings)?);
        Ok(Self(
            build().map_err(|error: IdentityError| error.to_string())?,
        ))
    }

    /// Verifies a token as of the time `now` (seconds since 1970), and returns its user and client.
    ///
    /// # Errors
    /// The reason why the token is not accepted.
    pub fn verify(&self, token: &[u8], now: f64) -> Result<(String, String), &'static str> {
        let claims = self.0.verify(token, now)?;
        Ok((claims.user.to_string(), claims.client.to_string()))
    }
}

/// Reads the first line of an import through a buffer of `buffer_bytes`, and returns its user,
/// client and document. Returns `None` if there is no line, or if the line is not valid.
pub fn read_line(
    engine: &Engine,
    text: &[u8],
    buffer_bytes: usize,
) -> Option<(String, String, Prepared)> {
    let mut from = BufReader::with_capacity(buffer_bytes, text);
    let line = NdjsonReader::new(&mut from)
        .next_line(&BlockingStore::new(engine.clone()))
        .ok()
        .flatten()?;
    Some((line.user, line.client, line.document))
}
