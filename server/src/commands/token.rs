//! `prefd token`: prints a token signed with a local HS256 secret, for tests and scripts.

use std::path::PathBuf;

use crate::auth::{DEFAULT_TTL, NewClaims, dev, secret_of, sign};
use crate::commands::console;
use crate::commands::error::CommandError;
use crate::io_error::io_error;
use crate::settings::HumanDuration;
use crate::small_file;
use crate::store::Name;

/// Options of `prefd token`.
#[derive(Debug, clap::Args)]
pub(super) struct TokenOptions {
    /// Sign with the key that prefd serve --dev created in this data directory
    #[arg(
        long,
        value_name = "DIR",
        env = "PREFD_DATA_DIR",
        help_heading = SIGNING_KEY,
        required_unless_present = "jwt_hs256_secret_file"
    )]
    data_dir: Option<PathBuf>,
    /// Sign with the secret in this file, which must be the secret of the server. If a data
    /// directory is also set, the secret file is used, except if the data directory is set with a
    /// flag and the secret file with an environment variable
    #[arg(
        long,
        value_name = "FILE",
        env = "PREFD_JWT_HS256_SECRET_FILE",
        help_heading = SIGNING_KEY
    )]
    jwt_hs256_secret_file: Option<PathBuf>,
    /// User id (claim `sub`)
    #[arg(long, value_name = "USER", value_parser = Name::new, help_heading = CLAIMS)]
    user: Name,
    /// Client id (claim `client_id`)
    #[arg(long, value_name = "CLIENT", value_parser = Name::new, help_heading = CLAIMS)]
    client: Name,
    /// Scopes, separated by spaces (claim `scope`)
    #[arg(long, value_name = "SCOPES", help_heading = CLAIMS)]
    scope: Option<String>,
    /// Time until the token expires [default: 1h]
    #[arg(long, value_name = "TIME", help_heading = CLAIMS)]
    ttl: Option<HumanDuration>,
    /// Issuer (claim `iss`)
    #[arg(long, value_name = "URL", help_heading = CLAIMS)]
    issuer: Option<String>,
    /// Audience (claim `aud`)
    #[arg(long, value_name = "AUD", help_heading = CLAIMS)]
    audience: Option<String>,
}

const SIGNING_KEY: &str = "Signing key";
const CLAIMS: &str = "Claims";

impl TokenOptions {
    /// Ignores the secret file, so that the token is signed with the key in the data directory.
    pub(super) fn ignore_secret_file(&mut self) {
        self.jwt_hs256_secret_file = None;
    }
}

/// Prints the token.
pub(super) fn run(options: &TokenOptions) -> Result<(), CommandError> {
    let secret = match (&options.jwt_hs256_secret_file, &options.data_dir) {
        (Some(file), _) => small_file::read(file).map_err(io_error("read", file))?,
        (None, Some(data_dir)) => {
            let path = dev::key_path(data_dir);
            small_file::read(&path).map_err(|source| CommandError::DevKey { path, source })?
        }
        // clap ensures that at least one of the two options is set.
        (None, None) => return Ok(()),
    };
    let claims = NewClaims {
        sub: options.user.as_str(),
        client_id: options.client.as_str(),
        scope: options.scope.as_deref(),
        iss: options.issuer.as_deref(),
        aud: options.audience.as_deref(),
    };
    let ttl = options.ttl.map_or(DEFAULT_TTL, |ttl| ttl.0);
    let token = sign(secret_of(&secret), &claims, ttl)?;
    console::print(&format!("{token}\n"))
}
