//! Where the keys of an identity provider come from, and how they are fetched.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::StatusCode;
use serde::Deserialize;

use crate::auth::http_client::{Endpoint, EndpointError, HttpClient, HttpClientError, PlainHttp};
use crate::auth::keys::{KeyFault, KeySet};

/// The configured URL of a provider.
#[derive(Debug, Clone)]
pub(crate) enum ProviderUrl {
    /// The URL of an issuer. The issuer's metadata contains the URL of the keys, and must name this
    /// issuer.
    Issuer(String),
    /// The URL of a JSON Web Key Set.
    KeySet(Endpoint),
    /// An issuer whose keys are at a configured URL. The issuer's metadata is not used.
    IssuerKeySet { issuer: String, keys: Endpoint },
}

/// Why fetching the keys failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FetchError {
    #[error("{from}: {source}")]
    Request {
        from: String,
        source: HttpClientError,
    },
    #[error("{from}: the provider metadata is not valid: {source}")]
    Metadata {
        from: String,
        source: serde_json::Error,
    },
    #[error("{from}: expected the metadata of the issuer {expected:?}, found {found:?}")]
    IssuerMismatch {
        from: String,
        found: String,
        expected: String,
    },
    #[error("{url:?}: {source}")]
    Endpoint { url: String, source: EndpointError },
    #[error("{from}: {fault}")]
    Keys { from: String, fault: KeyFault },
}

/// The members of a provider's metadata that prefd uses (RFC 8414 section 2; OpenID
/// Connect Discovery 1.0 section 3).
#[derive(Debug, Deserialize)]
struct ProviderMetadata {
    issuer: String,
    jwks_uri: String,
    introspection_endpoint: Option<String>,
}

/// The result of one successful fetch.
pub(super) struct FetchedKeys {
    pub(super) began_at: SystemTime,
    pub(super) keys: KeySet,
    /// The URL of the introspection endpoint in the metadata. The URL is not validated here,
    /// because an invalid introspection URL must not prevent the use of the keys.
    pub(super) introspection_url: Option<Arc<str>>,
}

/// Fetches the keys of one provider.
pub(crate) struct KeySource {
    url: ProviderUrl,
    /// The value that the `iss` claim of the provider's tokens must have. `None` if `iss` is not
    /// checked.
    issuer: Option<Arc<str>>,
    /// The hosts to which the URLs in the metadata may lead without TLS.
    plain_http: PlainHttp,
    http_client: HttpClient,
}

impl KeySource {
    /// With [`ProviderUrl::KeySet`], `issuer` is the value that the `iss` claim must have.
    /// Otherwise `issuer` is ignored, because `url` names the issuer.
    pub(crate) fn new(
        url: ProviderUrl,
        issuer: Option<Arc<str>>,
        plain_http: PlainHttp,
        http_client: HttpClient,
    ) -> Self {
        let issuer = match &url {
            ProviderUrl::Issuer(issuer) | ProviderUrl::IssuerKeySet { issuer, .. } => {
                Some(issuer.as_str().into())
            }
            ProviderUrl::KeySet(_) => issuer,
        };
        Self {
            url,
            issuer,
            plain_http,
            http_client,
        }
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// The configured URL, which identifies the provider in the log and in metrics.
    pub(super) fn name(&self) -> String {
        match &self.url {
            ProviderUrl::Issuer(issuer) | ProviderUrl::IssuerKeySet { issuer, .. } => {
                issuer.clone()
            }
            ProviderUrl::KeySet(url) => url.to_string(),
        }
    }

    pub(super) async fn fetch(&self) -> Result<FetchedKeys, FetchError> {
        let began_at = SystemTime::now();
        let (url, introspection_url) = match &self.url {
            ProviderUrl::KeySet(url) | ProviderUrl::IssuerKeySet { keys: url, .. } => {
                (url.clone(), None)
            }
            ProviderUrl::Issuer(issuer) => self.discover(issuer).await?,
        };
        let text = self.get(&url).await?;
        let (keys, faults) =
            KeySet::from_provider_jwks(self.issuer.clone(), &text).map_err(|fault| {
                FetchError::Keys {
                    from: url.to_string(),
                    fault,
                }
            })?;
        for fault in faults {
            tracing::warn!(%url, %fault, "problem in the key set of an identity provider");
        }
        Ok(FetchedKeys {
            began_at,
            keys,
            introspection_url,
        })
    }

    /// Reads the URLs of the keys and of the introspection endpoint from an issuer's
    /// metadata.
    ///
    /// In OpenID Connect, the metadata URL has the well-known path after the issuer's path. In RFC
    /// 8414, the well-known path comes before the issuer's path. The URL of RFC 8414 is tried if
    /// the URL of OpenID Connect returns 404.
    async fn discover(&self, issuer: &str) -> Result<(Endpoint, Option<Arc<str>>), FetchError> {
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        let openid = self.endpoint(&format!("{base}/.well-known/openid-configuration"))?;
        let (from, text) = match self.get(&openid).await {
            Err(FetchError::Request {
                source: HttpClientError::Status(StatusCode::NOT_FOUND),
                ..
            }) => {
                let oauth = self.endpoint(&rfc8414_url(base))?;
                let text = self.get(&oauth).await?;
                (oauth, text)
            }
            outcome => (openid, outcome?),
        };
        let metadata: ProviderMetadata =
            serde_json::from_slice(&text).map_err(|source| FetchError::Metadata {
                from: from.to_string(),
                source,
            })?;
        // If the issuer in the metadata were not checked, one issuer could impersonate another (RFC
        // 8414 section 3.3).
        if metadata.issuer != issuer {
            return Err(FetchError::IssuerMismatch {
                from: from.to_string(),
                found: metadata.issuer,
                expected: issuer.to_owned(),
            });
        }
        let introspection_url = metadata.introspection_endpoint.map(Arc::from);
        Ok((self.endpoint(&metadata.jwks_uri)?, introspection_url))
    }

    pub(super) fn endpoint(&self, url: &str) -> Result<Endpoint, FetchError> {
        Endpoint::parse(url, self.plain_http).map_err(|source| FetchError::Endpoint {
            url: url.to_owned(),
            source,
        })
    }

    async fn get(&self, from: &Endpoint) -> Result<bytes::Bytes, FetchError> {
        let body = self.http_client.get(from).await;
        body.map_err(|source| FetchError::Request {
            from: from.to_string(),
            source,
        })
    }
}

/// The metadata URL of an issuer, with the well-known path before the issuer's path (RFC
/// 8414 section 3.1).
fn rfc8414_url(issuer: &str) -> String {
    let host_at = issuer.find("://").map_or(0, |at| at + "://".len());
    let path_at = issuer
        .get(host_at..)
        .and_then(|rest| rest.find('/'))
        .map_or(issuer.len(), |at| host_at + at);
    let (host, path) = issuer.split_at(path_at);
    format!("{host}/.well-known/oauth-authorization-server{path}")
}
