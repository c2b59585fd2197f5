//! Every setting of `serve`, declared once: clap reads the flags and the environment
//! into [`Settings`], and TOML reads the configuration file into it.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use serde::{Deserialize, Serialize};

use crate::settings::address::{Address, MaybeAddress};
use crate::settings::log_format::Format;
use crate::settings::span::Span;

const DEFAULT_MAX_CONNECTIONS: usize = 1024;

/// Every setting of `serve`, each given or not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Settings {
    /// The directory that holds the documents [default: prefd-data]
    #[arg(long, value_name = "DIR", env = "PREFD_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Where to listen: an address and a port (with port 0 the system picks one), or
    /// unix:PATH. Not looked at where systemd hands a socket over [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", env = "PREFD_LISTEN")]
    pub(crate) listen: Option<Address>,

    /// A PEM file with the certificate to show, and behind it those that vouch for it: with
    /// it, connections are TLS
    #[arg(long, value_name = "FILE", env = "PREFD_TLS_CERT_FILE")]
    pub(crate) tls_cert_file: Option<PathBuf>,

    /// A PEM file with the private key of the certificate
    #[arg(long, value_name = "FILE", env = "PREFD_TLS_KEY_FILE")]
    pub(crate) tls_key_file: Option<PathBuf>,

    /// Where the operator's listener is, with metrics, health, backup and erase: an address,
    /// unix:PATH or off. Where the default is taken, prefd goes on without, unless there is
    /// an --admin-token-file [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", env = "PREFD_ADMIN_LISTEN")]
    pub(crate) admin_listen: Option<MaybeAddress>,

    /// A file with the token that the operator's listener takes; off this machine it must
    /// have one
    #[arg(long, value_name = "FILE", env = "PREFD_ADMIN_TOKEN_FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,

    /// An origin whose pages may ask, such as `https://app.example`, or * for all of them; can
    /// be repeated [default: none]
    #[arg(
        long,
        value_name = "ORIGIN",
        value_delimiter = ',',
        env = "PREFD_CORS_ORIGIN"
    )]
    pub(crate) cors_origin: Option<Vec<String>>,

    /// A header that such a page may set besides those that the API has; can be repeated
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        env = "PREFD_CORS_HEADER"
    )]
    pub(crate) cors_header: Option<Vec<String>>,

    /// For a first try: makes a signing key, and prints requests that work. Loopback
    /// only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = BoolishValueParser::new(), value_name = "BOOL", env = "PREFD_DEV")]
    pub(crate) dev: Option<bool>,

    /// A file whose bytes, 32 at least, are the secret of HS256 tokens (a final line break is
    /// not a part of it)
    #[arg(long, value_name = "FILE", env = "PREFD_JWT_HS256_SECRET_FILE")]
    pub(crate) jwt_hs256_secret_file: Option<PathBuf>,

    /// A PEM public key: RSA (RS256), P-256 (ES256), P-384 (ES384) or Ed25519 (EdDSA);
    /// can be repeated
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        env = "PREFD_JWT_PUBLIC_KEY_FILE"
    )]
    pub(crate) jwt_public_key_file: Option<Vec<PathBuf>>,

    /// A file with a JSON Web Key Set
    #[arg(long, value_name = "FILE", env = "PREFD_JWKS_FILE")]
    pub(crate) jwks_file: Option<PathBuf>,

    /// An OAuth or OpenID Connect issuer whose tokens are taken: its keys are found by its
    /// metadata, fetched, and fetched again in the background; can be repeated
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        env = "PREFD_OIDC_ISSUER"
    )]
    pub(crate) oidc_issuer: Option<Vec<String>>,

    /// Where a JSON Web Key Set is fetched, of a provider without metadata; can be repeated
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        env = "PREFD_JWKS_URL"
    )]
    pub(crate) jwks_url: Option<Vec<String>>,

    /// The time after which keys are fetched again [default: 5m]
    #[arg(long, value_name = "TIME", env = "PREFD_JWKS_REFRESH")]
    pub(crate) jwks_refresh: Option<Span>,

    /// Where to ask about tokens that are no JWTs (RFC 7662) [default: where the metadata of
    /// the one --oidc-issuer says, given credentials]
    #[arg(long, value_name = "URL", env = "PREFD_INTROSPECTION_URL")]
    pub(crate) introspection_url: Option<String>,

    /// A file with one line, CLIENT_ID:CLIENT_SECRET, to ask with
    #[arg(
        long,
        value_name = "FILE",
        env = "PREFD_INTROSPECTION_CREDENTIALS_FILE"
    )]
    pub(crate) introspection_credentials_file: Option<PathBuf>,

    /// How long an answer about a token is believed: a token that is revoked works for so
    /// long [default: 30s]
    #[arg(long, value_name = "TIME", env = "PREFD_INTROSPECTION_TTL")]
    pub(crate) introspection_ttl: Option<Span>,

    /// How long a good answer is believed while the provider cannot be reached, until the
    /// token expires at most [default: 1h]
    #[arg(long, value_name = "TIME", env = "PREFD_INTROSPECTION_MAX_STALE")]
    pub(crate) introspection_max_stale: Option<Span>,

    /// The issuer that a token must name that is signed by a key of a file or of --jwks-url
    #[arg(long, value_name = "URL", env = "PREFD_JWT_ISSUER")]
    pub(crate) jwt_issuer: Option<String>,

    /// The audience that a token must name
    #[arg(long, value_name = "AUD", env = "PREFD_JWT_AUDIENCE")]
    pub(crate) jwt_audience: Option<String>,

    /// Whether an audience must be configured [default: true with --oidc-issuer, --jwks-url
    /// or --introspection-url, unless --dev]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = BoolishValueParser::new(), value_name = "BOOL",
          env = "PREFD_REQUIRE_AUDIENCE")]
    pub(crate) require_audience: Option<bool>,

    /// The type that a JWT's header must name, such as at+jwt (RFC 9068)
    #[arg(long, value_name = "TYP", env = "PREFD_JWT_TYP")]
    pub(crate) jwt_typ: Option<String>,

    /// The claim that names the user [default: sub; in an answer about a token `user_id`,
    /// or else sub]
    #[arg(long, value_name = "CLAIM", env = "PREFD_JWT_USER_CLAIM")]
    pub(crate) jwt_user_claim: Option<String>,

    /// The claims that name the client, the first that is there counts; can be
    /// repeated [default: `client_id`, azp]
    #[arg(
        long,
        value_name = "CLAIM",
        value_delimiter = ',',
        env = "PREFD_JWT_CLIENT_CLAIM"
    )]
    pub(crate) jwt_client_claim: Option<Vec<String>>,

    /// The claims that hold the scopes, the first that is there counts; can be
    /// repeated [default: scope, scp]
    #[arg(
        long,
        value_name = "CLAIM",
        value_delimiter = ',',
        env = "PREFD_JWT_SCOPE_CLAIM"
    )]
    pub(crate) jwt_scope_claim: Option<Vec<String>>,

    /// The claim that a token must have for its user to have a linked identity
    #[arg(long, value_name = "NAME", env = "PREFD_LINKED_IDENTITY_CLAIM")]
    pub(crate) linked_identity_claim: Option<String>,

    /// A client that there is: with this, any other is not found; can be repeated
    #[arg(
        long,
        value_name = "CLIENT",
        value_delimiter = ',',
        env = "PREFD_KNOWN_CLIENT"
    )]
    pub(crate) known_client: Option<Vec<String>>,

    /// The realm in WWW-Authenticate [default: prefd]
    #[arg(long, value_name = "REALM", env = "PREFD_REALM")]
    pub(crate) realm: Option<String>,

    /// A version to serve; can be repeated [default: 2025-1, 2024-2]
    #[arg(
        long,
        value_name = "VERSION",
        value_delimiter = ',',
        env = "PREFD_API_VERSION"
    )]
    pub(crate) api_version: Option<Vec<String>>,

    /// Keys in a document [default: 10]
    #[arg(long, value_name = "N", env = "PREFD_MAX_KEYS")]
    pub(crate) max_keys: Option<u32>,

    /// UTF-8 bytes of a decoded key [default: 128]
    #[arg(long, value_name = "N", env = "PREFD_MAX_KEY_BYTES")]
    pub(crate) max_key_bytes: Option<u32>,

    /// Bytes of a value's JSON text [default: 10485760]
    #[arg(long, value_name = "N", env = "PREFD_MAX_VALUE_BYTES")]
    pub(crate) max_value_bytes: Option<u64>,

    /// Bytes of a request body [default: keys × (value + 8 × key) + 1 MiB]
    #[arg(long, value_name = "N", env = "PREFD_MAX_BODY_BYTES")]
    pub(crate) max_body_bytes: Option<u64>,

    /// Threads that serve connections [default: one for each core]
    #[arg(long, value_name = "N", env = "PREFD_WORKERS")]
    pub(crate) workers: Option<usize>,

    /// Connections at a time; for further ones those that keep the server waiting are
    /// closed. Fewer, where the limit on open files (ulimit -n) does not suffice
    /// [default: 1024]
    #[arg(long, value_name = "N", env = "PREFD_MAX_CONNECTIONS")]
    pub(crate) max_connections: Option<usize>,

    /// Time for a request's head, and for a connection to be idle [default: 30s]
    #[arg(long, value_name = "TIME", env = "PREFD_HEAD_TIMEOUT")]
    pub(crate) head_timeout: Option<Span>,

    /// Time that a request's body may stall [default: 30s]
    #[arg(long, value_name = "TIME", env = "PREFD_BODY_TIMEOUT")]
    pub(crate) body_timeout: Option<Span>,

    /// Time that a client may take no byte of its answer [default: 30s]
    #[arg(long, value_name = "TIME", env = "PREFD_WRITE_TIMEOUT")]
    pub(crate) write_timeout: Option<Span>,

    /// Time that what is in flight has when the server is told to stop [default: 30s]
    #[arg(long, value_name = "TIME", env = "PREFD_DRAIN_TIMEOUT")]
    pub(crate) drain_timeout: Option<Span>,

    /// Memory for bodies that are being received [default: 67108864]
    #[arg(long, value_name = "BYTES", env = "PREFD_BODY_BUDGET_BYTES")]
    pub(crate) body_budget_bytes: Option<u64>,

    /// Time that a request waits for a part of that memory [default: 10s]
    #[arg(long, value_name = "TIME", env = "PREFD_BODY_BUDGET_WAIT")]
    pub(crate) body_budget_wait: Option<Span>,

    /// Memory for documents that were read lately [default: 33554432]
    #[arg(long, value_name = "BYTES", env = "PREFD_DOCUMENT_CACHE_BYTES")]
    pub(crate) document_cache_bytes: Option<u64>,

    /// The length at which a file of the log is ended and the next one begun, from 65536
    /// to 2147483648 [default: 67108864]
    #[arg(long, value_name = "BYTES", env = "PREFD_SEGMENT_BYTES")]
    pub(crate) segment_bytes: Option<u64>,

    /// Verified tokens that are remembered; with 0 each is verified each time that it comes
    /// [default: 10000]
    #[arg(long, value_name = "N", env = "PREFD_TOKEN_CACHE_ENTRIES")]
    pub(crate) token_cache_entries: Option<usize>,

    /// What is logged: error, warn, info (a line for each request), debug, trace, or a
    /// filter such as warn,prefd::exchange=info [default: info]
    #[arg(long, value_name = "FILTER", env = "PREFD_LOG")]
    pub(crate) log: Option<String>,

    /// What a line of the log looks like [default: text]
    #[arg(long, value_enum, value_name = "FORMAT", env = "PREFD_LOG_FORMAT")]
    pub(crate) log_format: Option<Format>,
}

impl Settings {
    /// Whether this is a first try (`--dev`).
    pub(crate) fn is_dev(&self) -> bool {
        self.dev.unwrap_or(false)
    }

    /// Connections at a time, as far as the limit on open files allows.
    pub(crate) fn connections(&self) -> usize {
        self.max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS)
    }
}
