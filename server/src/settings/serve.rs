//! All settings of `prefd serve`. Each setting is declared once: clap reads the flags and the
//! environment into [`Settings`], and the TOML parser reads the configuration file into the same
//! type.
//!
//! The doc comment of a field is its help text. A default in `[default: …]` is only text for users.
//! The code that uses a setting contains the actual default.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use serde::{Deserialize, Serialize};

use crate::settings::address::{Address, MaybeAddress};
use crate::settings::human_duration::HumanDuration;
use crate::settings::log_format::LogFormat;

const DEFAULT_MAX_CONNECTIONS: usize = 1024;

// Headings of the options in `prefd serve --help`.
const STORAGE: &str = "Storage";
const LISTENING: &str = "Listening";
const TLS: &str = "TLS";
const ADMIN: &str = "Admin listener";
const WEB_PAGES: &str = "Web pages (CORS)";
const TOKENS: &str = "Tokens";
const IDENTITY_PROVIDERS: &str = "Identity providers";
const API: &str = "API";
const LIMITS: &str = "Limits";
const TIMEOUTS: &str = "Timeouts";
const MEMORY: &str = "Memory";
const LOGGING: &str = "Logging";

/// All settings of `prefd serve`. A setting that is not set is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Settings {
    /// Directory for the documents, created if it does not exist [default: prefd-data]
    #[arg(long, value_name = "DIR", help_heading = STORAGE, env = "PREFD_DATA_DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Size of a log segment in bytes, from 65536 to 2147483648. A segment that has reached this
    /// size is sealed, and further writes go to a new segment [default: 67108864]
    #[arg(long, value_name = "BYTES", help_heading = STORAGE, env = "PREFD_SEGMENT_BYTES")]
    pub(crate) segment_bytes: Option<u64>,

    /// Address of the API listener: IP:PORT or unix:PATH. With port 0, the system picks a free
    /// port. If systemd passes a socket, prefd uses that socket and ignores this setting [default:
    /// 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", help_heading = LISTENING, env = "PREFD_LISTEN")]
    pub(crate) listen: Option<Address>,

    /// Number of threads that serve connections, from 1 to 1024 [default: one per core]
    #[arg(long, value_name = "N", help_heading = LISTENING, env = "PREFD_WORKERS")]
    pub(crate) workers: Option<usize>,

    /// File with the PEM certificate chain of the server, leaf first. With --tls-key-file, enables
    /// TLS
    #[arg(long, value_name = "FILE", help_heading = TLS, env = "PREFD_TLS_CERT_FILE")]
    pub(crate) tls_cert_file: Option<PathBuf>,

    /// File with the PEM private key for the certificate in --tls-cert-file
    #[arg(long, value_name = "FILE", help_heading = TLS, env = "PREFD_TLS_KEY_FILE")]
    pub(crate) tls_key_file: Option<PathBuf>,

    /// Address of the admin listener: IP:PORT, unix:PATH or off. The admin listener serves health
    /// checks, metrics, backups, exports, imports and erasures. If another program uses the default
    /// address, prefd starts without an admin listener, or exits if --admin-token-file is set
    /// [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", help_heading = ADMIN, env = "PREFD_ADMIN_LISTEN")]
    pub(crate) admin_listen: Option<MaybeAddress>,

    /// File with the admin token: one line of at least 16 printable ASCII characters without
    /// spaces. Required if the admin listener is reachable from other machines. If the token is
    /// set, every admin request except a health check must contain it
    #[arg(long, value_name = "FILE", help_heading = ADMIN, env = "PREFD_ADMIN_TOKEN_FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,

    /// Allow web pages of this origin, such as `https://app.example`, to use the API. The value *
    /// allows all origins (repeatable)
    #[arg(
        long,
        value_name = "ORIGIN",
        value_delimiter = ',',
        help_heading = WEB_PAGES,
        env = "PREFD_CORS_ORIGIN"
    )]
    pub(crate) cors_origin: Option<Vec<String>>,

    /// Allow web pages from the --cors-origin origins to send this request header, in addition to
    /// Authorization, Content-Type and the conditional headers (repeatable)
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = WEB_PAGES,
        env = "PREFD_CORS_HEADER"
    )]
    pub(crate) cors_header: Option<Vec<String>>,

    /// Development mode: create a signing key in the data directory and print example requests.
    /// Allowed only if --listen is a loopback address or a Unix socket
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL",
        help_heading = TOKENS,
        env = "PREFD_DEV"
    )]
    pub(crate) dev: Option<bool>,

    /// File with the secret to verify HS256 tokens with: at least 32 bytes. A line break at the end
    /// of the file is not part of the secret
    #[arg(long, value_name = "FILE", help_heading = TOKENS, env = "PREFD_JWT_HS256_SECRET_FILE")]
    pub(crate) jwt_hs256_secret_file: Option<PathBuf>,

    /// File with a PEM public key to verify tokens with: RSA (RS256), P-256 (ES256), P-384 (ES384)
    /// or Ed25519 (EdDSA) (repeatable)
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        help_heading = TOKENS,
        env = "PREFD_JWT_PUBLIC_KEY_FILE"
    )]
    pub(crate) jwt_public_key_file: Option<Vec<PathBuf>>,

    /// File with a JSON Web Key Set (RFC 7517) to verify tokens with
    #[arg(long, value_name = "FILE", help_heading = TOKENS, env = "PREFD_JWKS_FILE")]
    pub(crate) jwks_file: Option<PathBuf>,

    /// Value that the `iss` claim must have in tokens verified with --jwks-url, a key file or a
    /// secret file. A response from --introspection-url may omit `iss`, but if `iss` is present, it
    /// must have this value
    #[arg(long, value_name = "URL", help_heading = TOKENS, env = "PREFD_JWT_ISSUER")]
    pub(crate) jwt_issuer: Option<String>,

    /// Audience that the `aud` claim of every token must contain
    #[arg(long, value_name = "AUD", help_heading = TOKENS, env = "PREFD_JWT_AUDIENCE")]
    pub(crate) jwt_audience: Option<String>,

    /// Refuse to start if --jwt-audience is not set [default: false with --dev and for servers
    /// that use only local key files, otherwise true]
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL",
        help_heading = TOKENS,
        env = "PREFD_REQUIRE_AUDIENCE"
    )]
    pub(crate) require_audience: Option<bool>,

    /// Required `typ` in the header of a JWT, such as at+jwt (RFC 9068). Tokens that are verified
    /// by introspection may have any `typ`
    #[arg(long, value_name = "TYP", help_heading = TOKENS, env = "PREFD_JWT_TYP")]
    pub(crate) jwt_typ: Option<String>,

    /// Name of the claim that contains the user id [default: sub in a JWT; in an introspection
    /// response, `user_id` or, if that is missing, sub]
    #[arg(long, value_name = "CLAIM", help_heading = TOKENS, env = "PREFD_JWT_USER_CLAIM")]
    pub(crate) jwt_user_claim: Option<String>,

    /// Name of a claim that may contain the client id. If several names are set, the first of these
    /// claims that a token contains is used (repeatable) [default: `client_id`, azp]
    #[arg(
        long,
        value_name = "CLAIM",
        value_delimiter = ',',
        help_heading = TOKENS,
        env = "PREFD_JWT_CLIENT_CLAIM"
    )]
    pub(crate) jwt_client_claim: Option<Vec<String>>,

    /// Name of a claim that may contain the scopes. If several names are set, the first of these
    /// claims that a token contains is used (repeatable) [default: scope, scp]
    #[arg(
        long,
        value_name = "CLAIM",
        value_delimiter = ',',
        help_heading = TOKENS,
        env = "PREFD_JWT_SCOPE_CLAIM"
    )]
    pub(crate) jwt_scope_claim: Option<Vec<String>>,

    /// Also require a scope for the namespace of the token's own client: `user:preferences:read`
    /// for reads, `user:preferences:write` for changes. Otherwise a token needs scopes only for the
    /// namespaces of other clients [default: false]
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL",
        help_heading = TOKENS,
        env = "PREFD_OWN_SCOPE"
    )]
    pub(crate) own_scope: Option<bool>,

    /// Maximum length of a token in bytes, up to 65536. A longer token gets 401 [default: 16384]
    #[arg(long, value_name = "N", help_heading = TOKENS, env = "PREFD_MAX_TOKEN_BYTES")]
    pub(crate) max_token_bytes: Option<usize>,

    /// Name of a claim that shows that the user has a linked identity. If this claim is missing,
    /// null, false or empty, the request gets 401
    #[arg(long, value_name = "NAME", help_heading = TOKENS, env = "PREFD_LINKED_IDENTITY_CLAIM")]
    pub(crate) linked_identity_claim: Option<String>,

    /// Realm in the WWW-Authenticate header [default: prefd]
    #[arg(long, value_name = "REALM", help_heading = TOKENS, env = "PREFD_REALM")]
    pub(crate) realm: Option<String>,

    /// OAuth or OpenID Connect issuer whose tokens are accepted, exactly as in the `iss` claim of
    /// these tokens. prefd finds the issuer's keys through the issuer's metadata, and fetches the
    /// keys at the interval --jwks-refresh (repeatable)
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        help_heading = IDENTITY_PROVIDERS,
        env = "PREFD_OIDC_ISSUER"
    )]
    pub(crate) oidc_issuer: Option<Vec<String>>,

    /// URL of the keys of an --oidc-issuer, if prefd cannot reach the issuer at its own URL. The
    /// value is ISSUER=URL, or only URL if exactly one --oidc-issuer is set. prefd then does not
    /// use the issuer's metadata (repeatable)
    #[arg(
        long,
        value_name = "ISSUER=URL",
        value_delimiter = ',',
        help_heading = IDENTITY_PROVIDERS,
        env = "PREFD_OIDC_JWKS_URL"
    )]
    pub(crate) oidc_jwks_url: Option<Vec<String>>,

    /// URL of the JSON Web Key Set of an identity provider that has no metadata (repeatable)
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        help_heading = IDENTITY_PROVIDERS,
        env = "PREFD_JWKS_URL"
    )]
    pub(crate) jwks_url: Option<Vec<String>>,

    /// Allow http:// URLs of identity providers on other machines. Anyone who can change this
    /// traffic can issue tokens for any user, and anyone who can read this traffic can read
    /// introspected tokens. Only for networks that you trust, such as a private network of
    /// containers [default: false]
    #[arg(
        long,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        value_name = "BOOL",
        help_heading = IDENTITY_PROVIDERS,
        env = "PREFD_ALLOW_HTTP_ISSUER"
    )]
    pub(crate) allow_http_issuer: Option<bool>,

    /// Interval at which the keys of identity providers are fetched [default: 5m]
    #[arg(
        long,
        value_name = "TIME",
        help_heading = IDENTITY_PROVIDERS,
        env = "PREFD_JWKS_REFRESH"
    )]
    pub(crate) jwks_refresh: Option<HumanDuration>,

    /// URL of the introspection endpoint (RFC 7662). Requires --introspection-credentials-file.
    /// prefd introspects tokens that are not JWTs and, if no source of keys is set, also JWTs
    /// [default: the endpoint in the metadata of the issuer, if exactly one --oidc-issuer and the
    /// credentials are set]
    #[arg(
        long,
        value_name = "URL",
        help_heading = IDENTITY_PROVIDERS,
        env = "PREFD_INTROSPECTION_URL"
    )]
    pub(crate) introspection_url: Option<String>,

    /// File with the credentials for introspection requests: one line, CLIENT_ID:CLIENT_SECRET
    #[arg(
        long,
        value_name = "FILE",
        help_heading = IDENTITY_PROVIDERS,
        env = "PREFD_INTROSPECTION_CREDENTIALS_FILE"
    )]
    pub(crate) introspection_credentials_file: Option<PathBuf>,

    /// Time to cache an introspection response. prefd renews the response of a busy token earlier,
    /// in the background. While introspection requests succeed, a revoked token is accepted for at
    /// most this time plus 10 seconds [default: 30s]
    #[arg(
        long,
        value_name = "TIME",
        help_heading = IDENTITY_PROVIDERS,
        env = "PREFD_INTROSPECTION_TTL"
    )]
    pub(crate) introspection_ttl: Option<HumanDuration>,

    /// Maximum age of a cached introspection response that is used while introspection requests
    /// fail or wait. An expired token is refused even if its response is cached [default: 1h]
    #[arg(
        long,
        value_name = "TIME",
        help_heading = IDENTITY_PROVIDERS,
        env = "PREFD_INTROSPECTION_MAX_STALE"
    )]
    pub(crate) introspection_max_stale: Option<HumanDuration>,

    /// Id of a client whose documents are served. If at least one id is set, requests for the
    /// documents of all other clients get 404 (repeatable)
    #[arg(
        long,
        value_name = "CLIENT",
        value_delimiter = ',',
        help_heading = API,
        env = "PREFD_KNOWN_CLIENT"
    )]
    pub(crate) known_client: Option<Vec<String>>,

    /// API version that is accepted in the path of a request. All versions give access to the same
    /// documents (repeatable) [default: 2025-1, 2024-4, 2024-3, 2024-2, 2024-1, 2021-2, 2020-4]
    #[arg(
        long,
        value_name = "VERSION",
        value_delimiter = ',',
        help_heading = API,
        env = "PREFD_API_VERSION"
    )]
    pub(crate) api_version: Option<Vec<String>>,

    /// Maximum number of open connections to the API listener. If a client connects when the
    /// maximum is reached, prefd closes connections that are idle or whose clients are slow. A low
    /// limit on open files (ulimit -n) reduces the maximum [default: 1024]
    #[arg(long, value_name = "N", help_heading = LIMITS, env = "PREFD_MAX_CONNECTIONS")]
    pub(crate) max_connections: Option<usize>,

    /// Maximum number of top-level keys in a document [default: 10]
    #[arg(long, value_name = "N", help_heading = LIMITS, env = "PREFD_MAX_KEYS")]
    pub(crate) max_keys: Option<u32>,

    /// Maximum length of a key in bytes of UTF-8, after JSON escapes are decoded [default: 128]
    #[arg(long, value_name = "N", help_heading = LIMITS, env = "PREFD_MAX_KEY_BYTES")]
    pub(crate) max_key_bytes: Option<u32>,

    /// Maximum length of the JSON text of one value, in bytes [default: 10485760]
    #[arg(long, value_name = "N", help_heading = LIMITS, env = "PREFD_MAX_VALUE_BYTES")]
    pub(crate) max_value_bytes: Option<u64>,

    /// Maximum length of a request body, in bytes [default: max-keys × (max-value-bytes + 8 ×
    /// max-key-bytes) + 1 MiB]
    #[arg(long, value_name = "N", help_heading = LIMITS, env = "PREFD_MAX_BODY_BYTES")]
    pub(crate) max_body_bytes: Option<u64>,

    /// Maximum disk space for documents that are being received, in bytes. Must be at least
    /// max-body-bytes. Documents of up to 256 KiB need no disk space before they are complete. If
    /// the space is used up, prefd ends uploads with 503: first the newest upload of a user who has
    /// several uploads and uses more than a quarter of it, otherwise the newest upload [default: 16 ×
    /// max-body-bytes]
    #[arg(
        long,
        value_name = "BYTES",
        help_heading = LIMITS,
        env = "PREFD_MAX_UNFINISHED_UPLOAD_BYTES"
    )]
    pub(crate) max_unfinished_upload_bytes: Option<u64>,

    /// Timeout for a TLS handshake, for a request head, and for an idle connection [default:
    /// 30s]
    #[arg(long, value_name = "TIME", help_heading = TIMEOUTS, env = "PREFD_HEAD_TIMEOUT")]
    pub(crate) head_timeout: Option<HumanDuration>,

    /// Maximum time to wait for the next bytes of a request body [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = TIMEOUTS, env = "PREFD_BODY_TIMEOUT")]
    pub(crate) body_timeout: Option<HumanDuration>,

    /// Maximum time to wait until the client accepts the next bytes of a response [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = TIMEOUTS, env = "PREFD_WRITE_TIMEOUT")]
    pub(crate) write_timeout: Option<HumanDuration>,

    /// Maximum time that a stopping server waits for in-flight requests to finish [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = TIMEOUTS, env = "PREFD_DRAIN_TIMEOUT")]
    pub(crate) drain_timeout: Option<HumanDuration>,

    /// Maximum time that a request waits for memory from the budget set by --body-budget-bytes.
    /// After this time, the request gets 503 [default: 10s]
    #[arg(long, value_name = "TIME", help_heading = TIMEOUTS, env = "PREFD_BODY_BUDGET_WAIT")]
    pub(crate) body_budget_wait: Option<HumanDuration>,

    /// Maximum memory for request bodies that are being received, in bytes. Bodies of up to 16 KiB
    /// do not count [default: 67108864]
    #[arg(long, value_name = "BYTES", help_heading = MEMORY, env = "PREFD_BODY_BUDGET_BYTES")]
    pub(crate) body_budget_bytes: Option<u64>,

    /// Maximum memory for the cache of recently used documents, in bytes [default: 33554432]
    #[arg(long, value_name = "BYTES", help_heading = MEMORY, env = "PREFD_DOCUMENT_CACHE_BYTES")]
    pub(crate) document_cache_bytes: Option<u64>,

    /// Maximum number of verified tokens in the cache. A token with many scopes counts as several.
    /// With 0, nothing is cached, and the token of every request is verified [default: 10000]
    #[arg(long, value_name = "N", help_heading = MEMORY, env = "PREFD_TOKEN_CACHE_ENTRIES")]
    pub(crate) token_cache_entries: Option<usize>,

    /// Log level: error, warn, info, debug or trace. At info, debug and trace, each request is
    /// logged. A filter is also accepted: warn,prefd::exchange=info logs each request, and
    /// otherwise only warnings and errors [default: info]
    #[arg(long, value_name = "FILTER", help_heading = LOGGING, env = "PREFD_LOG")]
    pub(crate) log: Option<String>,

    /// Format of log lines [default: text]
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        help_heading = LOGGING,
        env = "PREFD_LOG_FORMAT"
    )]
    pub(crate) log_format: Option<LogFormat>,
}

impl Settings {
    /// Returns true in development mode (`--dev`).
    pub(crate) fn is_dev(&self) -> bool {
        self.dev.unwrap_or(false)
    }

    /// Returns the maximum number of open connections, before the limit on open files is
    /// applied.
    pub(crate) fn connections(&self) -> usize {
        self.max_connections.unwrap_or(DEFAULT_MAX_CONNECTIONS)
    }
}
