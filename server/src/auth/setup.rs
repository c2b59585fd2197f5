//! Builds the authenticator from the settings.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::auth::authenticator::{Authenticator, KeySources};
use crate::auth::http_client::{Endpoint, EndpointError, HttpClient};
use crate::auth::introspection::{
    CachePolicy, Credentials, CredentialsError, Introspection, IntrospectionEndpoint, MAX_REQUESTS,
};
use crate::auth::keys::{KeyError, KeySet};
use crate::auth::provider::{Provider, ProviderUrl};
use crate::auth::rules::{ClaimNames, TokenRules};
use crate::settings::{Settings, duration_or};

const DEFAULT_REALM: &str = "prefd";
const DEFAULT_TOKEN_CACHE_ENTRIES: usize = 10_000;
/// At most `max_connections / WAITING_DIVISOR` requests may wait for a provider at the same time.
/// The other connections stay free for tokens that prefd can verify without a provider.
const WAITING_DIVISOR: usize = 2;
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
    #[error("{setting} {url:?}: {source}")]
    Endpoint {
        setting: &'static str,
        url: String,
        source: EndpointError,
    },
    #[error("--oidc-issuer {0:?}: an issuer must not have a query (RFC 8414 section 2)")]
    IssuerQuery(String),
    #[error("{0} requires --introspection-credentials-file")]
    NoCredentials(&'static str),
    #[error(
        "--introspection-credentials-file requires --introspection-url or exactly one \
         --oidc-issuer"
    )]
    NoIntrospectionEndpoint,
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
    let is_remote = issuers(settings).next().is_some()
        || key_urls(settings).next().is_some()
        || introspection_url(settings)?.is_some();
    for issuer in issuers(settings) {
        endpoint("--oidc-issuer", issuer)?;
        if issuer.contains('?') {
            return Err(IdentityError::IssuerQuery(issuer.to_owned()));
        }
    }
    for url in key_urls(settings) {
        endpoint("--jwks-url", url)?;
    }
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
    let sources = issuers(settings).count()
        + key_urls(settings).count()
        + usize::from(has_local)
        + usize::from(settings.introspection_url.is_some());
    if sources > 1 && !is_dev {
        tracing::warn!(
            "tokens of several issuers are accepted: two users with the same id share their \
             documents, even if their tokens come from different issuers"
        );
    }
    let needs_issuer = has_local || key_urls(settings).next().is_some();
    if settings.jwt_issuer.is_none() && needs_issuer && !is_dev {
        tracing::warn!(
            "--jwt-issuer is not set: the iss claim is not checked in tokens that are verified with \
             a key file or --jwks-url"
        );
    }
    introspection_config(settings).map(|_| ())
}

fn issuers(settings: &Settings) -> impl Iterator<Item = &str> {
    settings.oidc_issuer.iter().flatten().map(String::as_str)
}

fn key_urls(settings: &Settings) -> impl Iterator<Item = &str> {
    settings.jwks_url.iter().flatten().map(String::as_str)
}

fn endpoint(setting: &'static str, url: &str) -> Result<Endpoint, IdentityError> {
    url.parse().map_err(|source| IdentityError::Endpoint {
        setting,
        url: url.to_owned(),
        source,
    })
}

fn introspection_url(settings: &Settings) -> Result<Option<Endpoint>, IdentityError> {
    let url = settings.introspection_url.as_deref();
    url.map(|url| endpoint("--introspection-url", url))
        .transpose()
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
    match (introspection_url(settings)?, credentials) {
        (None, None) => Ok(IntrospectionConfig::Off),
        (Some(_), None) => Err(IdentityError::NoCredentials("--introspection-url")),
        (Some(url), Some(file)) => Ok(IntrospectionConfig::Url(url, file)),
        (None, Some(file)) if issuers(settings).count() == 1 => {
            Ok(IntrospectionConfig::Issuer(file))
        }
        (None, Some(_)) => Err(IdentityError::NoIntrospectionEndpoint),
    }
}

/// Maximum number of file descriptors that prefd's requests to providers use at the same time.
pub(crate) fn descriptors(settings: &Settings) -> u64 {
    let providers = issuers(settings).chain(key_urls(settings)).count();
    let introspects = settings.introspection_credentials_file.is_some();
    providers as u64 + if introspects { MAX_REQUESTS as u64 } else { 0 }
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
    let rules = TokenRules {
        audience: settings.jwt_audience.clone(),
        typ: settings.jwt_typ.clone(),
        names: ClaimNames {
            user: settings.jwt_user_claim.clone(),
            client: settings.jwt_client_claim.clone().unwrap_or(default.client),
            scope: settings.jwt_scope_claim.clone().unwrap_or(default.scope),
        },
        linked_identity_claim: settings.linked_identity_claim.clone(),
    };
    let realm = settings.realm.as_deref().unwrap_or(DEFAULT_REALM);
    let entries = settings
        .token_cache_entries
        .unwrap_or(DEFAULT_TOKEN_CACHE_ENTRIES);
    let sources = key_sources(settings, local, entries)?;
    let max_waiting = (settings.connections() / WAITING_DIVISOR).clamp(1, Semaphore::MAX_PERMITS);
    Authenticator::new(sources, rules, realm, entries, max_waiting).ok_or(IdentityError::Realm)
}

fn key_sources(
    settings: &Settings,
    local: KeySet,
    entries: usize,
) -> Result<KeySources, IdentityError> {
    let mut sources = KeySources {
        local,
        ..KeySources::default()
    };
    let introspection = introspection_config(settings)?;
    let issuer: Option<Arc<str>> = settings.jwt_issuer.as_deref().map(Arc::from);
    let urls = issuers(settings)
        .map(|issuer| Ok(ProviderUrl::Issuer(issuer.to_owned())))
        .chain(key_urls(settings).map(|url| Ok(ProviderUrl::KeySet(endpoint("--jwks-url", url)?))))
        .collect::<Result<Vec<_>, IdentityError>>()?;
    if urls.is_empty() && matches!(introspection, IntrospectionConfig::Off) {
        return Ok(sources);
    }
    let http_client = HttpClient::new()?;
    let refresh_interval = duration_or(settings.jwks_refresh, DEFAULT_JWKS_REFRESH);
    for url in urls {
        sources.providers.push(Arc::new(Provider::new(
            url,
            issuer.clone(),
            http_client.clone(),
            refresh_interval,
            Arc::<AtomicU64>::clone(&sources.generation),
        )));
    }
    let (endpoint, issuer, file) = match introspection {
        IntrospectionConfig::Off => return Ok(sources),
        IntrospectionConfig::Url(url, file) => {
            (IntrospectionEndpoint::Configured(url), issuer, file)
        }
        IntrospectionConfig::Issuer(file) => {
            // The provider of `--oidc-issuer` is the first provider in the list.
            let provider = sources.providers.first().map(Arc::clone);
            let provider = provider.ok_or(IdentityError::NoIntrospectionEndpoint)?;
            let issuer = issuers(settings).next().map(Arc::from);
            (IntrospectionEndpoint::Discovered(provider), issuer, file)
        }
    };
    let cache_policy = CachePolicy {
        ttl: duration_or(settings.introspection_ttl, DEFAULT_INTROSPECTION_TTL),
        max_stale: duration_or(
            settings.introspection_max_stale,
            DEFAULT_INTROSPECTION_MAX_STALE,
        ),
    };
    let credentials = Credentials::read(file)?;
    sources.introspection = Some(Introspection::new(
        endpoint,
        issuer,
        credentials,
        http_client,
        cache_policy,
        entries,
    ));
    Ok(sources)
}
