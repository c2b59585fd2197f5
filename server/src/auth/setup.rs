//! Whom the server believes: from the settings to an authenticator.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::auth::authenticator::{Authenticator, Trust};
use crate::auth::introspection::{
    Belief, Credentials, CredentialsError, Introspection, MAX_QUESTIONS, Place,
};
use crate::auth::keys::{KeyError, KeySet};
use crate::auth::outgoing::{Endpoint, EndpointError, Outgoing};
use crate::auth::provider::{Provider, Source};
use crate::auth::rules::{ClaimNames, Rules};
use crate::settings::{Settings, span};

const DEFAULT_REALM: &str = "prefd";
const DEFAULT_TOKEN_CACHE_ENTRIES: usize = 10_000;
/// Of the places so many may be taken by requests that wait for a provider: the others are
/// for tokens that are known.
const WAITING_PART: usize = 2;
const DEFAULT_JWKS_REFRESH: Duration = Duration::from_secs(5 * 60);
const DEFAULT_INTROSPECTION_TTL: Duration = Duration::from_secs(30);
const DEFAULT_INTROSPECTION_MAX_STALE: Duration = Duration::from_secs(60 * 60);

/// Why nobody can be believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IdentityError {
    #[error(
        "no way to verify tokens: set --oidc-issuer, --jwks-url, --jwt-hs256-secret-file, \
         --jwt-public-key-file, --jwks-file or --introspection-url, or try it out with --dev"
    )]
    NoKeys,
    #[error(
        "--jwt-audience is not set, so tokens that an issuer made for other services would be \
         believed: set it, or say --require-audience=false"
    )]
    NoAudience,
    #[error("{flag} {url:?}: {source}")]
    Endpoint {
        flag: &'static str,
        url: String,
        source: EndpointError,
    },
    #[error("--oidc-issuer {0:?}: an issuer has no query (RFC 8414 section 2)")]
    IssuerQuery(String),
    #[error("{0} needs --introspection-credentials-file")]
    NoCredentials(&'static str),
    #[error(
        "--introspection-credentials-file says how to ask about tokens, and not whom: set \
         --introspection-url, or exactly one --oidc-issuer"
    )]
    NoIntrospectionPlace,
    #[error("--realm cannot stand in a header")]
    Realm,
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("cannot prepare for TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl IdentityError {
    /// Whether it was asked for in a way that cannot work.
    pub(crate) fn is_usage(&self) -> bool {
        !matches!(self, Self::Keys(_) | Self::Credentials(_) | Self::Tls(_))
    }
}

/// Judges what needs no file, and says what an operator should know.
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
    // A provider makes tokens for many services; a local key is this one's own, as a rule.
    let requires_audience = settings.require_audience.unwrap_or(is_remote && !is_dev);
    if settings.jwt_audience.is_none() {
        if requires_audience {
            return Err(IdentityError::NoAudience);
        }
        if !is_dev {
            tracing::warn!(
                "--jwt-audience is not set: a token that its issuer made for another service is \
                 believed, too"
            );
        }
    }
    let sources = issuers(settings).count()
        + key_urls(settings).count()
        + usize::from(has_local)
        + usize::from(settings.introspection_url.is_some());
    if sources > 1 && !is_dev {
        tracing::warn!(
            "tokens of several issuers are believed: a user of one is the user of the same name \
             of another, with the same documents"
        );
    }
    let needs_issuer = has_local || key_urls(settings).next().is_some();
    if settings.jwt_issuer.is_none() && needs_issuer && !is_dev {
        tracing::warn!("--jwt-issuer is not set: a token may name any issuer, or none");
    }
    introspection_place(settings).map(|_| ())
}

fn issuers(settings: &Settings) -> impl Iterator<Item = &str> {
    settings.oidc_issuer.iter().flatten().map(String::as_str)
}

fn key_urls(settings: &Settings) -> impl Iterator<Item = &str> {
    settings.jwks_url.iter().flatten().map(String::as_str)
}

fn endpoint(flag: &'static str, url: &str) -> Result<Endpoint, IdentityError> {
    url.parse().map_err(|source| IdentityError::Endpoint {
        flag,
        url: url.to_owned(),
        source,
    })
}

fn introspection_url(settings: &Settings) -> Result<Option<Endpoint>, IdentityError> {
    let url = settings.introspection_url.as_deref();
    url.map(|url| endpoint("--introspection-url", url))
        .transpose()
}

/// Who is asked about tokens that only their issuer can read.
enum Asked<'a> {
    Nobody,
    At(Endpoint, &'a Path),
    /// The one issuer.
    Issuer(&'a Path),
}

fn introspection_place(settings: &Settings) -> Result<Asked<'_>, IdentityError> {
    let credentials = settings.introspection_credentials_file.as_deref();
    match (introspection_url(settings)?, credentials) {
        (None, None) => Ok(Asked::Nobody),
        (Some(_), None) => Err(IdentityError::NoCredentials("--introspection-url")),
        (Some(url), Some(file)) => Ok(Asked::At(url, file)),
        (None, Some(file)) if issuers(settings).count() == 1 => Ok(Asked::Issuer(file)),
        (None, Some(_)) => Err(IdentityError::NoIntrospectionPlace),
    }
}

/// File descriptors that asking may take.
pub(crate) fn descriptors(settings: &Settings) -> u64 {
    let providers = issuers(settings).chain(key_urls(settings)).count();
    let asks = settings.introspection_credentials_file.is_some();
    providers as u64 + if asks { MAX_QUESTIONS as u64 } else { 0 }
}

/// The keys in files.
pub(crate) fn local_keys(settings: &Settings) -> Result<KeySet, IdentityError> {
    let mut keys = KeySet::of(settings.jwt_issuer.as_deref().map(Arc::from));
    if let Some(file) = &settings.jwt_hs256_secret_file {
        keys.add_secret_file(file)?;
    }
    for file in settings.jwt_public_key_file.iter().flatten() {
        keys.add_public_key_file(file)?;
    }
    if let Some(file) = &settings.jwks_file {
        keys.add_jwks_file(file)?;
    }
    Ok(keys)
}

/// Reads every file anew that says whom to believe. Where one of them cannot be used,
/// nothing changes.
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

/// With these keys from files, and whoever else the settings name.
pub(crate) fn authenticator(
    settings: &Settings,
    local: KeySet,
) -> Result<Authenticator, IdentityError> {
    let default = ClaimNames::default();
    let rules = Rules {
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
    let trust = trust(settings, local, entries)?;
    let places = settings.connections();
    let max_waiting = (places / WAITING_PART).clamp(1, Semaphore::MAX_PERMITS);
    Authenticator::new(trust, rules, realm, entries, max_waiting).ok_or(IdentityError::Realm)
}

fn trust(settings: &Settings, local: KeySet, entries: usize) -> Result<Trust, IdentityError> {
    let mut trust = Trust {
        local,
        ..Trust::default()
    };
    let place = introspection_place(settings)?;
    let issuer: Option<Arc<str>> = settings.jwt_issuer.as_deref().map(Arc::from);
    let sources = issuers(settings)
        .map(|issuer| Ok(Source::Issuer(issuer.to_owned())))
        .chain(key_urls(settings).map(|url| Ok(Source::KeySet(endpoint("--jwks-url", url)?))))
        .collect::<Result<Vec<_>, IdentityError>>()?;
    if sources.is_empty() && matches!(place, Asked::Nobody) {
        return Ok(trust);
    }
    let outgoing = Outgoing::new()?;
    let refresh = span(settings.jwks_refresh, DEFAULT_JWKS_REFRESH);
    for source in sources {
        trust.providers.push(Arc::new(Provider::new(
            source,
            issuer.clone(),
            outgoing.clone(),
            refresh,
            Arc::<AtomicU64>::clone(&trust.generation),
        )));
    }
    let (place, issuer, file) = match place {
        Asked::Nobody => return Ok(trust),
        Asked::At(url, file) => (Place::At(url), issuer, file),
        Asked::Issuer(file) => {
            // The issuers come first.
            let provider = trust.providers.first().map(Arc::clone);
            let provider = provider.ok_or(IdentityError::NoIntrospectionPlace)?;
            let issuer = issuers(settings).next().map(Arc::from);
            (Place::Of(provider), issuer, file)
        }
    };
    let belief = Belief {
        fresh: span(settings.introspection_ttl, DEFAULT_INTROSPECTION_TTL),
        stale: span(
            settings.introspection_max_stale,
            DEFAULT_INTROSPECTION_MAX_STALE,
        ),
    };
    let credentials = Credentials::read(file)?;
    trust.introspection = Some(Introspection::new(
        place,
        issuer,
        credentials,
        outgoing,
        belief,
        entries,
    ));
    Ok(trust)
}
