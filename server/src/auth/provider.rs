//! The keys that an identity provider publishes at a URL.
//!
//! The keys are fetched in the background at regular intervals. If the provider cannot be reached,
//! the known keys stay valid. A token that no known key has signed can trigger an early fetch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::auth::http_client::{Endpoint, EndpointError, HttpClient, HttpClientError};
use crate::auth::keys::{KeyFault, KeySet, SignedClaims, Token, VerifyError};

/// Minimum time between two fetches that tokens trigger. Without this limit, anybody could flood
/// the provider with fetches by sending tokens with invented key ids.
const TOKEN_FETCH_INTERVAL: Duration = Duration::from_mins(1);
/// Pause after the first failed fetch. The pause doubles with each further failure, up to
/// `MAX_RETRY_PAUSE`.
const FIRST_RETRY_PAUSE: Duration = Duration::from_secs(1);
const MAX_RETRY_PAUSE: Duration = Duration::from_mins(1);
/// Maximum time that a request waits for newer keys of one provider.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(15);

/// The configured URL of a provider.
#[derive(Debug, Clone)]
pub(crate) enum ProviderUrl {
    /// The URL of an issuer. The issuer's metadata contains the URL of the keys, and must name this
    /// issuer.
    Issuer(String),
    /// The URL of a JSON Web Key Set.
    KeySet(Endpoint),
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

/// The results of the fetches so far.
struct ProviderState {
    /// `None` before the first successful fetch.
    keys: Option<Arc<KeySet>>,
    introspection_url: Option<Arc<str>>,
    /// Number of completed fetches, including failed ones.
    fetches: u64,
    /// Whether a fetch is running or was requested. The value is initially true, because
    /// [`Provider::run`] begins with a fetch. A token that arrives before the first fetch waits for
    /// that fetch, and triggers no other fetch.
    is_fetching: bool,
    /// Whether the last completed fetch succeeded.
    is_up_to_date: bool,
}

impl Default for ProviderState {
    fn default() -> Self {
        Self {
            keys: None,
            introspection_url: None,
            fetches: 0,
            is_fetching: true,
            is_up_to_date: false,
        }
    }
}

/// The result of one successful fetch.
struct FetchedKeys {
    keys: KeySet,
    /// The URL of the introspection endpoint in the metadata. The URL is not validated here,
    /// because an invalid introspection URL must not prevent the use of the keys.
    introspection_url: Option<Arc<str>>,
}

/// An identity provider, whose keys [`Self::run`] fetches.
pub(crate) struct Provider {
    url: ProviderUrl,
    /// The value that the `iss` claim of the provider's tokens must have. `None` if `iss` is not
    /// checked.
    issuer: Option<Arc<str>>,
    http_client: HttpClient,
    /// Pause after a successful fetch.
    refresh_interval: Duration,
    state: watch::Sender<ProviderState>,
    /// When a token last triggered a fetch.
    token_fetch: Mutex<Option<Instant>>,
    /// Wakes [`Self::run`] so that it fetches before the end of its pause.
    wake: Notify,
    /// The key generation, which is incremented when a key is withdrawn. Cached verifications of an
    /// older key generation are not used.
    generation: Arc<AtomicU64>,
}

impl Provider {
    /// With [`ProviderUrl::KeySet`], `issuer` is the value that the `iss` claim must have. With
    /// [`ProviderUrl::Issuer`], `issuer` is ignored, because the URL names the issuer.
    pub(crate) fn new(
        url: ProviderUrl,
        issuer: Option<Arc<str>>,
        http_client: HttpClient,
        refresh_interval: Duration,
        generation: Arc<AtomicU64>,
    ) -> Self {
        let issuer = match &url {
            ProviderUrl::Issuer(issuer) => Some(issuer.as_str().into()),
            ProviderUrl::KeySet(_) => issuer,
        };
        Self {
            url,
            issuer,
            http_client,
            refresh_interval,
            state: watch::Sender::default(),
            token_fetch: Mutex::default(),
            wake: Notify::new(),
            generation,
        }
    }

    /// Fetches the keys repeatedly, for as long as this future is polled.
    pub(crate) async fn run(&self) {
        let mut failures: u32 = 0;
        loop {
            self.state.send_modify(|state| state.is_fetching = true);
            let pause = match self.fetch().await {
                Ok(fetched) => {
                    failures = 0;
                    self.finish_fetch(Some(fetched));
                    self.refresh_interval
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot fetch the keys of an identity provider");
                    let pause = FIRST_RETRY_PAUSE.saturating_mul(1 << failures.min(6));
                    failures = failures.saturating_add(1);
                    self.finish_fetch(None);
                    pause.min(MAX_RETRY_PAUSE)
                }
            };
            let _ = tokio::time::timeout(pause, self.wake.notified()).await;
        }
    }

    /// Records the end of a fetch. `fetched` is `None` if the fetch failed. A failed fetch changes
    /// no keys. If the fetch withdraws a key, cached verifications become invalid.
    fn finish_fetch(&self, fetched: Option<FetchedKeys>) {
        let before = self.state.borrow().keys.clone().unwrap_or_default();
        let is_up_to_date = fetched.is_some();
        let mut withdraws = false;
        // The keys and `is_fetching` are changed in one step. If they were changed separately, a
        // token that arrives between the two changes would wait for this fetch instead of
        // triggering the next one.
        self.state.send_modify(|state| {
            if let Some(fetched) = fetched {
                withdraws = !before.is_subset_of(&fetched.keys);
                state.keys = Some(Arc::new(fetched.keys));
                state.introspection_url = fetched.introspection_url;
            }
            state.is_fetching = false;
            state.is_up_to_date = is_up_to_date;
            state.fetches += 1;
        });
        let after = self.state.borrow().keys.clone().unwrap_or_default();
        if !after.is_subset_of(&before) {
            let keys = after.len();
            tracing::info!(provider = %self.name(), keys, "identity provider has new keys");
        }
        // The generation is incremented only after the keys are replaced, and a verification reads
        // the generation before it reads the keys. A verification with the old keys therefore
        // always has an old generation.
        if withdraws {
            tracing::info!(provider = %self.name(), "identity provider has withdrawn a key");
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    async fn fetch(&self) -> Result<FetchedKeys, FetchError> {
        let (url, introspection_url) = match &self.url {
            ProviderUrl::KeySet(url) => (url.clone(), None),
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
        let openid = endpoint(&format!("{base}/.well-known/openid-configuration"))?;
        let (from, text) = match self.get(&openid).await {
            Err(FetchError::Request {
                source: HttpClientError::Status(StatusCode::NOT_FOUND),
                ..
            }) => {
                let oauth = endpoint(&rfc8414_url(base))?;
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
        Ok((endpoint(&metadata.jwks_uri)?, introspection_url))
    }

    async fn get(&self, from: &Endpoint) -> Result<bytes::Bytes, FetchError> {
        let body = self.http_client.get(from).await;
        body.map_err(|source| FetchError::Request {
            from: from.to_string(),
            source,
        })
    }

    /// Whether a fetch has ever succeeded.
    pub(crate) fn has_keys(&self) -> bool {
        self.state.borrow().keys.is_some()
    }

    /// Whether the last fetch succeeded.
    pub(crate) fn is_up(&self) -> bool {
        self.state.borrow().is_up_to_date
    }

    /// Number of completed fetches, including failed ones.
    pub(crate) fn fetches(&self) -> u64 {
        self.state.borrow().fetches
    }

    /// The configured URL, which identifies the provider in the log and in metrics.
    pub(crate) fn name(&self) -> String {
        match &self.url {
            ProviderUrl::Issuer(issuer) => issuer.clone(),
            ProviderUrl::KeySet(url) => url.to_string(),
        }
    }

    /// The introspection endpoint from the provider's metadata. `None` if the metadata was
    /// not fetched yet, or names no endpoint.
    pub(crate) fn introspection_endpoint(&self) -> Option<Result<Endpoint, FetchError>> {
        let url = self.state.borrow().introspection_url.clone()?;
        Some(endpoint(&url))
    }

    /// Verifies a token with the known keys.
    pub(crate) fn verify(&self, token: &Token<'_>) -> Result<SignedClaims, VerifyError> {
        let keys = self.state.borrow().keys.clone();
        keys.map_or(Err(VerifyError::NoKey), |keys| keys.verify(token))
    }

    /// Whether this provider may have signed the token with a key that is not known yet.
    pub(crate) fn may_have_unknown_key(
        &self,
        token: &Token<'_>,
        claimed_issuer: Option<&str>,
    ) -> bool {
        let issuer_matches = self
            .issuer
            .as_deref()
            .is_none_or(|issuer| claimed_issuer == Some(issuer));
        let state = self.state.borrow();
        let has_key = match (&state.keys, token.key_id()) {
            (Some(keys), Some(id)) => keys.has_key_id(id),
            _ => false,
        };
        issuer_matches && !has_key
    }

    /// Triggers a fetch, and waits until the fetch ends or [`REFRESH_TIMEOUT`] has passed.
    /// Concurrent callers share one fetch. No fetch is triggered if a token triggered a fetch less
    /// than [`TOKEN_FETCH_INTERVAL`] ago.
    ///
    /// Returns true if the last fetch succeeded and no fetch is running.
    pub(crate) async fn refresh(&self) -> bool {
        let mut state = self.state.subscribe();
        if let Some(fetches) = self.request_fetch() {
            let done = state.wait_for(|state| state.fetches > fetches);
            // A timeout is not handled here, because the state shows whether the fetch succeeded,
            // failed or is still running.
            let _ = tokio::time::timeout(REFRESH_TIMEOUT, done).await;
        }
        let state = state.borrow();
        state.is_up_to_date && !state.is_fetching
    }

    /// Wakes [`Self::run`] if no fetch is running. Returns the number of fetches that have
    /// completed so far, or `None` if it is too early for another fetch.
    fn request_fetch(&self) -> Option<u64> {
        let mut last = self
            .token_fetch
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (is_fetching, fetches) = {
            let state = self.state.borrow();
            (state.is_fetching, state.fetches)
        };
        if !is_fetching {
            if last.is_some_and(|at| at.elapsed() < TOKEN_FETCH_INTERVAL) {
                return None;
            }
            *last = Some(Instant::now());
            self.state.send_modify(|state| state.is_fetching = true);
            self.wake.notify_one();
        }
        Some(fetches)
    }
}

fn endpoint(url: &str) -> Result<Endpoint, FetchError> {
    url.parse().map_err(|source| FetchError::Endpoint {
        url: url.to_owned(),
        source,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A server can receive a request before it has started to fetch keys. If the token of an early
    /// request counted as the trigger of the first fetch, tokens could not trigger another fetch in
    /// the next minute. A key that the provider publishes in that minute would stay unknown until
    /// the minute is over.
    #[test]
    fn token_before_the_first_fetch_does_not_delay_the_next_fetch() {
        let url = endpoint("http://127.0.0.1:1/keys").unwrap();
        let provider = Provider::new(
            ProviderUrl::KeySet(url),
            None,
            HttpClient::new().unwrap(),
            Duration::from_hours(1),
            Arc::default(),
        );
        assert_eq!(provider.request_fetch(), Some(0), "before the first fetch");
        provider.finish_fetch(None);
        assert_eq!(provider.request_fetch(), Some(1), "after the first fetch");
        provider.finish_fetch(None);
        assert_eq!(provider.request_fetch(), None, "within the same minute");
    }
}
