//! The URLs of identity providers in the settings.

use crate::auth::http_client::{Endpoint, EndpointError, PlainHttp};
use crate::auth::key_source::ProviderUrl;
use crate::settings::Settings;

/// Why a URL of an identity provider cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProviderUrlError {
    #[error("{setting} {url:?}: {source}")]
    Endpoint {
        setting: &'static str,
        url: String,
        source: EndpointError,
    },
    #[error("--oidc-issuer {0:?}: an issuer must not have a query (RFC 8414 section 2)")]
    IssuerQuery(String),
    #[error(
        "--oidc-jwks-url {0:?}: expected ISSUER=URL with an ISSUER that is set with --oidc-issuer. \
         If exactly one --oidc-issuer is set, URL is enough"
    )]
    NoIssuer(String),
    #[error("--oidc-jwks-url is set more than once for the issuer {0:?}")]
    SecondKeySet(String),
}

/// The hosts to which the settings allow requests over plain HTTP.
pub(super) fn plain_http(settings: &Settings) -> PlainHttp {
    if settings.allow_http_issuer.unwrap_or(false) {
        PlainHttp::AllHosts
    } else {
        PlainHttp::ThisMachine
    }
}

fn endpoint(
    settings: &Settings,
    setting: &'static str,
    url: &str,
) -> Result<Endpoint, ProviderUrlError> {
    Endpoint::parse(url, plain_http(settings)).map_err(|source| ProviderUrlError::Endpoint {
        setting,
        url: url.to_owned(),
        source,
    })
}

/// The URL of `--introspection-url`.
pub(super) fn introspection_url(settings: &Settings) -> Result<Option<Endpoint>, ProviderUrlError> {
    let url = settings.introspection_url.as_deref();
    url.map(|url| endpoint(settings, "--introspection-url", url))
        .transpose()
}

pub(super) fn issuers(settings: &Settings) -> impl Iterator<Item = &str> {
    settings.oidc_issuer.iter().flatten().map(String::as_str)
}

fn key_urls(settings: &Settings) -> impl Iterator<Item = &str> {
    settings.jwks_url.iter().flatten().map(String::as_str)
}

/// Whether the settings contain a key-set URL without an issuer.
pub(super) fn has_key_url(settings: &Settings) -> bool {
    key_urls(settings).next().is_some()
}

/// Number of identity providers whose keys are fetched.
pub(super) fn providers(settings: &Settings) -> usize {
    issuers(settings).count() + key_urls(settings).count()
}

/// The URLs of all providers: first those of `--oidc-issuer`, then those of `--jwks-url`.
pub(super) fn provider_urls(settings: &Settings) -> Result<Vec<ProviderUrl>, ProviderUrlError> {
    let mut urls: Vec<_> = issuers(settings)
        .map(|issuer| ProviderUrl::Issuer(issuer.to_owned()))
        .collect();
    for setting in settings.oidc_jwks_url.iter().flatten() {
        let (issuer, keys) = split_key_set(settings, setting)
            .ok_or_else(|| ProviderUrlError::NoIssuer(setting.clone()))?;
        let keys = endpoint(settings, "--oidc-jwks-url", keys)?;
        let of_issuer =
            |url: &&mut ProviderUrl| matches!(url, ProviderUrl::Issuer(name) if name == issuer);
        let url = urls
            .iter_mut()
            .find(of_issuer)
            .ok_or_else(|| ProviderUrlError::SecondKeySet(issuer.to_owned()))?;
        *url = ProviderUrl::IssuerKeySet {
            issuer: issuer.to_owned(),
            keys,
        };
    }
    for url in &urls {
        // prefd sends no request to an issuer whose keys have a URL of their own.
        if let ProviderUrl::Issuer(issuer) = url {
            endpoint(settings, "--oidc-issuer", issuer)?;
            if issuer.contains('?') {
                return Err(ProviderUrlError::IssuerQuery(issuer.clone()));
            }
        }
    }
    for url in key_urls(settings) {
        urls.push(ProviderUrl::KeySet(endpoint(settings, "--jwks-url", url)?));
    }
    Ok(urls)
}

/// Splits the value of `--oidc-jwks-url` into an issuer and the URL of the issuer's keys.
fn split_key_set<'a>(settings: &'a Settings, value: &'a str) -> Option<(&'a str, &'a str)> {
    let named = issuers(settings).filter_map(|issuer| {
        let url = value.strip_prefix(issuer)?.strip_prefix('=')?;
        Some((issuer, url))
    });
    // An issuer can be a prefix of another one.
    if let Some(named) = named.max_by_key(|(issuer, _)| issuer.len()) {
        return Some(named);
    }
    let mut all = issuers(settings);
    match (all.next(), all.next()) {
        (Some(issuer), None) => Some((issuer, value)),
        _ => None,
    }
}

/// Logs a warning for each URL to which prefd sends requests across the network without TLS.
pub(super) fn warn_about_plain_http(settings: &Settings) -> Result<(), ProviderUrlError> {
    let mut endpoints: Vec<Endpoint> = introspection_url(settings)?.into_iter().collect();
    for url in provider_urls(settings)? {
        match url {
            ProviderUrl::Issuer(issuer) => {
                endpoints.push(endpoint(settings, "--oidc-issuer", &issuer)?);
            }
            ProviderUrl::KeySet(keys) | ProviderUrl::IssuerKeySet { keys, .. } => {
                endpoints.push(keys);
            }
        }
    }
    for url in endpoints.iter().filter(|endpoint| endpoint.is_exposed()) {
        tracing::warn!(
            %url,
            "identity provider is reached over plain HTTP (--allow-http-issuer): anyone who can \
             change this traffic can issue tokens for any user"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(issuers: &[&str], key_sets: &[&str]) -> Settings {
        let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        Settings {
            oidc_issuer: Some(owned(issuers)),
            oidc_jwks_url: Some(owned(key_sets)),
            ..Settings::default()
        }
    }

    /// The issuer and the URL of the keys of each provider. The URL is empty if it comes from the
    /// issuer's metadata.
    fn read(issuers: &[&str], key_sets: &[&str]) -> Result<Vec<(String, String)>, String> {
        let urls =
            provider_urls(&settings(issuers, key_sets)).map_err(|error| error.to_string())?;
        let pair = |url| match url {
            ProviderUrl::Issuer(issuer) => (issuer, String::new()),
            ProviderUrl::IssuerKeySet { issuer, keys } => (issuer, keys.to_string()),
            ProviderUrl::KeySet(keys) => (String::new(), keys.to_string()),
        };
        Ok(urls.into_iter().map(pair).collect())
    }

    #[test]
    fn key_set_url_belongs_to_the_issuer_that_it_names() {
        let pair = |issuer: &str, keys: &str| (issuer.to_owned(), keys.to_owned());
        let (one, two) = ("https://id.example/a", "https://id.example/a=b");
        let keys = "https://internal.example/keys?x=y";
        assert_eq!(read(&[one], &[keys]), Ok(vec![pair(one, keys)]));
        let of_one = format!("{one}={keys}");
        assert_eq!(read(&[one], &[&of_one]), Ok(vec![pair(one, keys)]));
        assert_eq!(
            read(&[one, two], &[&of_one]),
            Ok(vec![pair(one, keys), pair(two, "")])
        );
        let of_two = format!("{two}={keys}");
        assert_eq!(
            read(&[one, two], &[&of_two]),
            Ok(vec![pair(one, ""), pair(two, keys)])
        );
        // prefd sends no request to an issuer whose keys have a URL of their own.
        let public = "http://id.example";
        assert_eq!(read(&[public], &[keys]), Ok(vec![pair(public, keys)]));
        for (issuers, key_sets, word) in [
            (&[one, two][..], &[keys][..], "ISSUER=URL"),
            (&[], &[keys], "ISSUER=URL"),
            (&[one], &[keys, keys], "more than once"),
            (
                &[one],
                &["http://internal.example/keys"],
                "--allow-http-issuer",
            ),
            (&["http://id.example"], &[], "--allow-http-issuer"),
        ] {
            let error = read(issuers, key_sets).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
