//! Builds the authenticator from the settings.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::auth::authenticator::Authenticator;
use crate::auth::http_client::{Endpoint, HttpClient};
use crate::auth::introspection::{
    CachePolicy, Credentials, CredentialsError, IntrospectionClient, IntrospectionEndpoint,
    Introspector, MAX_REQUESTS,
};
use crate::auth::key_source::KeySource;
use crate::auth::keys::{KeyError, KeySet};
use crate::auth::provider::Provider;
use crate::auth::provider_urls::{
    ProviderUrlError, has_key_url, introspection_url, issuers, plain_http, provider_urls,
    providers, warn_about_plain_http,
};
use crate::auth::rules::{ClaimNames, DEFAULT_MAX_TOKEN_BYTES, TokenRules};
use crate::auth::trusted_keys::TrustedKeys;
use crate::settings::{Settings, duration_or};

/// Maximum of `--max-token-bytes`. The server refuses longer request heads than 80 KiB, and a head
/// contains a request line and further headers in addition to the token.
const MAX_TOKEN_BYTES: usize = 64 * 1024;
const DEFAULT_REALM: &str = "prefd";
const DEFAULT_TOKEN_CACHE_ENTRIES: usize = 10_000;
/// At most `max_connections / WAITING_DIVISOR` requests may wait for newer keys at the same time,
/// as many for the introspection of unknown tokens, and as many for the introspection of known
/// tokens. The other connections stay free for tokens that prefd can verify without a provider.
const WAITING_DIVISOR: usize = 4;
const DEFAULT_JWKS_REFRESH: Duration = Duration::from_mins(5);
const DEFAULT_INTROSPECTION_TTL: Duration = Duration::from_secs(30);
const DEFAULT_INTROSPECTION_MAX_STALE: Duration = Duration::from_hours(1);

/// Why tokens cannot be verified with these settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IdentityError {
    #[error(
        "no way to verify tokens is configured: set --oidc-issuer, --jwks-url, \
         --jwt-hs256-secret-file, --jwt-public-key-file, --jwks-file or --introspection-url; \
         for a first try, use --dev"
    )]
    NoKeys,
    #[error(
        "--jwt-audience is not set, so tokens that were issued for other services would be \
         accepted: set --jwt-audience, or accept such tokens with --require-audience=false"
    )]
    NoAudience,
    #[error(transparent)]
    Url(#[from] ProviderUrlError),
    #[error("{0} requires --introspection-credentials-file")]
    NoCredentials(&'static str),
    #[error(
        "--introspection-credentials-file requires --introspection-url, or exactly one \
         --oidc-issuer without --oidc-jwks-url"
    )]
    NoIntrospectionEndpoint,
    #[error(
        "--max-token-bytes must be between 1 and {MAX_TOKEN_BYTES}: a request head of more than \
         80 KiB is refused"
    )]
    MaxTokenBytes,
    #[error("--realm contains a character that is not allowed in an HTTP header")]
    Realm,
    #[error("{setting}: {source}")]
    Keys {
        setting: &'static str,
        source: KeyError,
    },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl IdentityError {
    /// Adds the name of the setting to an error about a key file.
    pub(crate) fn keys(setting: &'static str) -> impl FnOnce(KeyError) -> Self {
        move |source| Self::Keys { setting, source }
    }

    /// Whether the cause is a wrong setting, rather than a file or the operating system.
    pub(crate) fn is_usage(&self) -> bool {
        !matches!(
            self,
            Self::Keys { .. } | Self::Credentials(_) | Self::Tls(_)
        )
    }
}

/// Checks the settings without reading files, and logs a warning for each insecure setting.
pub(crate) fn check(settings: &Settings) -> Result<(), IdentityError> {
    let is_dev = settings.is_dev();
    let is_remote = providers(settings) > 0 || introspection_url(settings)?.is_some();
    if !(1..=MAX_TOKEN_BYTES).contains(&settings.max_token_bytes.unwrap_or(1)) {
        return Err(IdentityError::MaxTokenBytes);
    }
    provider_urls(settings)?;
    warn_about_plain_http(settings)?;
    let has_local = settings.jwt_hs256_secret_file.is_some()
        || settings.jwt_public_key_file.is_some()
        || settings.jwks_file.is_some();
    let has_introspection = settings.introspection_credentials_file.is_some();
    if !has_local && !is_remote && !is_dev && !has_introspection {
        return Err(IdentityError::NoKeys);
    }
    // By default, an audience is required if a provider is configured and `--dev` is not set,
    // because a provider issues tokens for many services. A local key is usually used only for
    // prefd.
    let requires_audience = settings.require_audience.unwrap_or(is_remote && !is_dev);
    if settings.jwt_audience.is_none() {
        if requires_audience {
            return Err(IdentityError::NoAudience);
        }
        if !is_dev {
            tracing::warn!(
                "--jwt-audience is not set: tokens that were issued for other services are accepted"
            );
        }
    }
    let sources = providers(settings)
        + local_issuers(settings)
        + usize::from(settings.introspection_url.is_some());
    if sources > 1 && !is_dev {
        tracing::warn!(
            "tokens of several issuers are accepted: two users with the same id share their \
             documents, even if their tokens come from different issuers"
        );
    }
    let needs_issuer = has_local || has_key_url(settings);
    if settings.jwt_issuer.is_none() && needs_issuer && !is_dev {
        tracing::warn!(
            "--jwt-issuer is not set: the iss claim is not checked in tokens that are verified with \
             --jwks-url, a key file or a secret file"
        );
    }
    introspection_config(settings).map(|_| ())
}

/// Number of issuers whose keys may be in files. Without `--jwt-issuer`, each file can have the key
/// of another issuer.
fn local_issuers(settings: &Settings) -> usize {
    let files = usize::from(settings.jwt_hs256_secret_file.is_some())
        + settings.jwt_public_key_file.iter().flatten().count()
        + usize::from(settings.jwks_file.is_some());
    if settings.jwt_issuer.is_some() {
        files.min(1)
    } else {
        files
    }
}

/// How token introspection is configured. The `Path` is the path of the credentials file.
enum IntrospectionConfig<'a> {
    Off,
    Url(Endpoint, &'a Path),
    /// The endpoint comes from the metadata of the only `--oidc-issuer`.
    Issuer(&'a Path),
}

fn introspection_config(settings: &Settings) -> Result<IntrospectionConfig<'_>, IdentityError> {
    let credentials = settings.introspection_credentials_file.as_deref();
    // The metadata of an issuer whose keys have a URL of their own is not fetched.
    let has_own_key_set = settings.oidc_jwks_url.iter().flatten().next().is_some();
    match (introspection_url(settings)?, credentials) {
        (None, None) => Ok(IntrospectionConfig::Off),
        (Some(_), None) => Err(IdentityError::NoCredentials("--introspection-url")),
        (Some(url), Some(file)) => Ok(IntrospectionConfig::Url(url, file)),
        (None, Some(file)) if issuers(settings).count() == 1 && !has_own_key_set => {
            Ok(IntrospectionConfig::Issuer(file))
        }
        (None, Some(_)) => Err(IdentityError::NoIntrospectionEndpoint),
    }
}

/// Maximum number of file descriptors that prefd's requests to providers use at the same time.
pub(crate) fn descriptors(settings: &Settings) -> u64 {
    let introspects = settings.introspection_credentials_file.is_some();
    providers(settings) as u64 + if introspects { MAX_REQUESTS as u64 } else { 0 }
}

/// Reads the keys from the configured files. Blocks.
pub(crate) fn local_keys(settings: &Settings) -> Result<KeySet, IdentityError> {
    let mut keys = KeySet::for_issuer(settings.jwt_issuer.as_deref().map(Arc::from));
    if let Some(file) = &settings.jwt_hs256_secret_file {
        keys.add_secret_file(file)
            .map_err(IdentityError::keys("--jwt-hs256-secret-file"))?;
    }
    for file in settings.jwt_public_key_file.iter().flatten() {
        keys.add_public_key_file(file)
            .map_err(IdentityError::keys("--jwt-public-key-file"))?;
    }
    if let Some(file) = &settings.jwks_file {
        keys.add_jwks_file(file)
            .map_err(IdentityError::keys("--jwks-file"))?;
    }
    if let Some(algorithm) = keys.crowded_algorithm() {
        tracing::warn!(
            ?algorithm,
            "more than 4 keys for one algorithm in --jwt-public-key-file and --jwks-file: a token \
             that does not name its key with kid is checked with only 4 of them"
        );
    }
    Ok(keys)
}

/// Reads the credentials file again, and replaces the introspection credentials and the keys from
/// files. If the credentials file cannot be used, neither the credentials nor the keys are
/// replaced. Blocks.
pub(crate) fn reload(
    settings: &Settings,
    authenticator: &Authenticator,
    local: KeySet,
) -> Result<(), IdentityError> {
    if let (Some(introspection), Some(file)) = (
        authenticator.introspection(),
        &settings.introspection_credentials_file,
    ) {
        introspection.replace_credentials(Credentials::read(file)?);
    }
    authenticator.replace_local_keys(local);
    Ok(())
}

/// Builds the authenticator from the keys that [`local_keys`] returns and from the configured
/// providers. Blocks while it reads files, but does not connect to the providers.
pub(crate) fn authenticator(
    settings: &Settings,
    local: KeySet,
) -> Result<Authenticator, IdentityError> {
    let default = ClaimNames::default();
    let rules = Arc::new(TokenRules {
        max_token_bytes: settings.max_token_bytes.unwrap_or(DEFAULT_MAX_TOKEN_BYTES),
        needs_own_scope: settings.own_scope.unwrap_or(false),
        audience: settings.jwt_audience.clone(),
        typ: settings.jwt_typ.clone(),
        names: ClaimNames {
            user: settings.jwt_user_claim.clone(),
            client: settings.jwt_client_claim.clone().unwrap_or(default.client),
            scope: settings.jwt_scope_claim.clone().unwrap_or(default.scope),
        },
        linked_identity_claim: settings.linked_identity_claim.clone(),
    });
    let realm = settings.realm.as_deref().unwrap_or(DEFAULT_REALM);
    let entries = settings
        .token_cache_entries
        .unwrap_or(DEFAULT_TOKEN_CACHE_ENTRIES);
    let max_waiting = (settings.connections() / WAITING_DIVISOR).clamp(1, Semaphore::MAX_PERMITS);
    let urls = provider_urls(settings)?;
    let introspection = introspection_config(settings)?;
    let is_remote = !urls.is_empty() || !matches!(introspection, IntrospectionConfig::Off);
    let http_client = is_remote.then(HttpClient::new).transpose()?;
    let generation = Arc::<AtomicU64>::default();
    let mut providers = Vec::new();
    let mut introspector = None;
    if let Some(http_client) = http_client {
        let refresh_interval = duration_or(settings.jwks_refresh, DEFAULT_JWKS_REFRESH);
        for url in urls {
            let issuer = settings.jwt_issuer.as_deref().map(Arc::from);
            let source = KeySource::new(url, issuer, plain_http(settings), http_client.clone());
            let provider = Provider::new(source, refresh_interval, Arc::clone(&generation));
            providers.push(Arc::new(provider));
        }
        let client = introspection_client(settings, introspection, &providers, http_client)?;
        introspector = client.map(|(client, issuer)| {
            let policy = cache_policy(settings);
            let rules = Arc::clone(&rules);
            Arc::new(Introspector::new(
                client,
                issuer,
                rules,
                policy,
                entries,
                max_waiting,
            ))
        });
    }
    let keys = TrustedKeys::new(local, providers, generation, max_waiting);
    Authenticator::new(keys, introspector, rules, realm, entries).ok_or(IdentityError::Realm)
}

fn cache_policy(settings: &Settings) -> CachePolicy {
    CachePolicy {
        ttl: duration_or(settings.introspection_ttl, DEFAULT_INTROSPECTION_TTL),
        max_stale: duration_or(
            settings.introspection_max_stale,
            DEFAULT_INTROSPECTION_MAX_STALE,
        ),
    }
}

/// Returns the introspection client, and the value that `iss` must have in a response. Returns
/// `None` if introspection is off. Blocks.
#[allow(
    clippy::type_complexity,
    reason = "a pair, which the only caller takes apart"
)]
fn introspection_client(
    settings: &Settings,
    config: IntrospectionConfig<'_>,
    providers: &[Arc<Provider>],
    http_client: HttpClient,
) -> Result<Option<(IntrospectionClient, Option<Arc<str>>)>, IdentityError> {
    let (endpoint, issuer, file) = match config {
        IntrospectionConfig::Off => return Ok(None),
        IntrospectionConfig::Url(url, file) => (
            IntrospectionEndpoint::Configured(url),
            settings.jwt_issuer.as_deref(),
            file,
        ),
        IntrospectionConfig::Issuer(file) => {
            // The provider of `--oidc-issuer` is the first provider in the list.
            let provider = providers.first().map(Arc::clone);
            let provider = provider.ok_or(IdentityError::NoIntrospectionEndpoint)?;
            let endpoint = IntrospectionEndpoint::Discovered(provider);
            (endpoint, issuers(settings).next(), file)
        }
    };
    let client = IntrospectionClient::new(endpoint, Credentials::read(file)?, http_client);
    Ok(Some((client, issuer.map(Arc::from))))
}
