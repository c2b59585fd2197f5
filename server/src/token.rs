//! `prefd token`: makes a token with a local HS256 secret, for tests and scripts.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use crate::dev;
use crate::settings::Span;

/// What the token is to say.
#[derive(Debug, clap::Args)]
pub(crate) struct TokenOptions {
    /// The data directory of a server that was started with --dev: its key signs
    #[arg(
        long,
        value_name = "DIR",
        env = "PREFD_DATA_DIR",
        required_unless_present = "jwt_hs256_secret_file"
    )]
    data_dir: Option<PathBuf>,
    /// The file with the secret that the server was given; preferred to --data-dir
    #[arg(long, value_name = "FILE", env = "PREFD_JWT_HS256_SECRET_FILE")]
    jwt_hs256_secret_file: Option<PathBuf>,
    /// The token's subject
    #[arg(long, value_name = "USER")]
    user: String,
    /// The token's client
    #[arg(long, value_name = "CLIENT")]
    client: String,
    /// The token's scopes, with spaces between them
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
    /// How long it is valid [default: 1h]
    #[arg(long, value_name = "TIME")]
    ttl: Option<Span>,
    /// The issuer that it names
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
    /// The audience that it is meant for
    #[arg(long, value_name = "AUD")]
    audience: Option<String>,
}

impl TokenOptions {
    /// Not by the secret that the environment names.
    pub(crate) fn by_key_of_data_dir(&mut self) {
        self.jwt_hs256_secret_file = None;
    }
}

pub(crate) const DEFAULT_TTL: Duration = Duration::from_secs(3600);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot sign the token: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
    #[error("cannot print the token: {0}")]
    Print(#[from] std::io::Error),
    #[error("--ttl is beyond what a clock can show")]
    TooLong,
}

impl TokenError {
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::TooLong)
    }
}

/// The claims of a token of ours.
#[derive(Debug, Default, Serialize)]
pub(crate) struct NewClaims<'a> {
    pub(crate) sub: &'a str,
    pub(crate) client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aud: Option<&'a str>,
}

#[derive(Serialize)]
struct Timed<'a> {
    #[serde(flatten)]
    claims: &'a NewClaims<'a>,
    iat: u64,
    exp: u64,
}

/// Signs a token that is valid from now on.
pub(crate) fn sign(
    secret: &[u8],
    claims: &NewClaims<'_>,
    ttl: Duration,
) -> Result<String, TokenError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let timed = Timed {
        claims,
        iat: now,
        exp: now.checked_add(ttl.as_secs()).ok_or(TokenError::TooLong)?,
    };
    let key = EncodingKey::from_secret(secret);
    Ok(encode(&Header::new(Algorithm::HS256), &timed, &key)?)
}

/// Prints the token.
pub(crate) fn run(options: &TokenOptions) -> Result<(), TokenError> {
    let path = match (&options.jwt_hs256_secret_file, &options.data_dir) {
        (Some(file), _) => file.clone(),
        (None, Some(dir)) => dev::key_path(dir),
        (None, None) => return Ok(()),
    };
    let secret = std::fs::read(&path).map_err(|source| TokenError::Read { path, source })?;
    let claims = NewClaims {
        sub: &options.user,
        client_id: &options.client,
        scope: options.scope.as_deref(),
        iss: options.issuer.as_deref(),
        aud: options.audience.as_deref(),
    };
    let ttl = options.ttl.map_or(DEFAULT_TTL, |ttl| ttl.0);
    let token = sign(crate::auth::keys::secret_of(&secret), &claims, ttl)?;
    writeln!(std::io::stdout(), "{token}")?;
    Ok(())
}
