//! `prefd token`: makes a token with a local HS256 secret, for tests and scripts.

use std::io::Write;
use std::path::PathBuf;

use crate::auth::{DEFAULT_TTL, NewClaims, SignError, dev, secret_of, sign};
use crate::settings::HumanDuration;

/// What the token is to say.
#[derive(Debug, clap::Args)]
pub(super) struct TokenOptions {
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
    ttl: Option<HumanDuration>,
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

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum TokenError {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("cannot print the token: {0}")]
    Print(#[from] std::io::Error),
}

impl TokenError {
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::Sign(SignError::TooLong))
    }
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
    let token = sign(secret_of(&secret), &claims, ttl)?;
    writeln!(std::io::stdout(), "{token}")?;
    Ok(())
}
