//! What the fuzzers reach inside for: a connection over any stream, the judgement of a
//! token at any time, and a line of an import. Only with the feature `fuzzing`; not a part of the API.

use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::api::Handler;
use crate::auth::Authenticator;
use crate::auth::setup::{IdentityError, authenticator, local_keys};
use crate::net::{ConnectionServer, ConnectionState};
use crate::serve::{ServeError, connection_server, handler};
use crate::settings::Settings;
use crate::store::{Bulk, Engine, Prepared, Store};
use crate::transfer::Lines;

/// The keys of an operator.
#[derive(Debug, Default)]
pub struct KeyFiles<'a> {
    /// The secret of HS256 tokens.
    pub secret: Option<&'a Path>,
    /// PEM public keys.
    pub public_keys: Vec<PathBuf>,
    /// A JSON Web Key Set.
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

/// A server without a listener.
pub struct Server {
    connections: ConnectionServer<Handler>,
    /// Held, since its end tells connections to stop.
    _stop: watch::Sender<()>,
    stopping: watch::Receiver<()>,
}

impl Server {
    /// With the default settings but for the keys. `engine` has the document limits;
    /// a body is limited by `max_body_bytes` already by its Content-Length.
    ///
    /// # Errors
    /// Where the keys cannot be read.
    pub fn new(engine: Engine, keys: &KeyFiles<'_>, max_body_bytes: u64) -> Result<Self, String> {
        let settings = Settings {
            max_body_bytes: Some(max_body_bytes),
            ..keys.settings()
        };
        let build = || {
            let keys = local_keys(&settings)?;
            Ok(Arc::new(handler(&settings, Store::of(engine), keys)?))
        };
        let handler = build().map_err(|error: ServeError| error.to_string())?;
        let (stop, stopping) = watch::channel(());
        Ok(Self {
            connections: connection_server(&settings, handler),
            _stop: stop,
            stopping,
        })
    }

    /// Serves one connection to its end.
    pub async fn carry<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) {
        let state = ConnectionState::new(Instant::now());
        let stopping = self.stopping.clone();
        self.connections.run(stream, &state, stopping).await;
    }
}

/// Judges tokens.
pub struct Verifier(Authenticator);

impl Verifier {
    /// With the default settings but for the keys, and what a token must name.
    ///
    /// # Errors
    /// Where the keys cannot be read.
    pub fn new(
        keys: &KeyFiles<'_>,
        issuer: Option<&str>,
        audience: Option<&str>,
    ) -> Result<Self, String> {
        let settings = Settings {
            jwt_issuer: issuer.map(str::to_owned),
            jwt_audience: audience.map(str::to_owned),
            // What was judged once would be believed unjudged the next time.
            token_cache_entries: Some(0),
            ..keys.settings()
        };
        let build = || authenticator(&settings, local_keys(&settings)?);
        Ok(Self(
            build().map_err(|error: IdentityError| error.to_string())?,
        ))
    }

    /// User and client of a token that is valid at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, token: &[u8], now: f64) -> Result<(String, String), &'static str> {
        let claims = self.0.verify(token, now)?;
        Ok((claims.user.clone(), claims.client.clone()))
    }
}

/// User, client and document of the first line, read through a buffer of so many bytes;
/// `None` where there is none that is right.
pub fn read_line(
    engine: &Engine,
    text: &[u8],
    buffer_bytes: usize,
) -> Option<(String, String, Prepared)> {
    let mut from = BufReader::with_capacity(buffer_bytes, text);
    let line = Lines::new(&mut from)
        .next(&Bulk::of(engine.clone()))
        .ok()
        .flatten()?;
    Some((line.user, line.client, line.document))
}
