//! With token introspection (RFC 7662), prefd asks the provider whether a token is active. JWTs are
//! introspected only if no keys are configured.
//!
//! Responses about active and inactive tokens are cached for a short time. If the provider cannot
//! be reached, a cached response about an active token is used for longer. At any time, at most one
//! introspection request is in progress for each token, and at most [`MAX_REQUESTS`] in total.

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as Lock, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::auth::claims::Claims;
use crate::auth::http_client::{Endpoint, HttpClient, HttpClientError};
use crate::auth::provider::{FetchError, Provider};
use crate::auth::rules::{Denial, TokenRules};
use crate::auth::token_cache::TokenCache;
use crate::counters::Counter;

/// Maximum number of concurrent introspection requests.
pub(super) const MAX_REQUESTS: usize = 64;
/// Timeout of one introspection request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum total time that a client's request waits for the lock of its token and for the
/// introspection response. `WAIT_TIMEOUT` is longer than `REQUEST_TIMEOUT`, so that the timeout of
/// an introspection request is recorded. For `RETRY_PAUSE` after a recorded timeout, prefd sends no
/// introspection requests.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed connection or a timeout, prefd sends the provider no introspection request for
/// this long. Without this pause, each client request would wait for another timeout.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The characters that must be escaped in a form (`application/x-www-form-urlencoded`).
const FORM_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'*');

/// Where introspection requests are sent.
pub(crate) enum IntrospectionEndpoint {
    /// Introspection requests are sent to a configured URL.
    Configured(Endpoint),
    /// Introspection requests are sent to the URL in this provider's metadata.
    Discovered(Arc<Provider>),
}

/// Why credentials could not be read from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CredentialsError {
    #[error("--introspection-credentials-file: cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "--introspection-credentials-file {}: expected one line CLIENT_ID:CLIENT_SECRET",
        path.display()
    )]
    Format { path: PathBuf },
}

/// The value of the `Authorization` header with which prefd authenticates to the provider.
#[derive(Clone)]
pub(crate) struct Credentials(HeaderValue);

impl Credentials {
    /// Reads the credentials from a file with one line, `CLIENT_ID:CLIENT_SECRET`. Blocks.
    pub(crate) fn read(path: &Path) -> Result<Self, CredentialsError> {
        let text = std::fs::read_to_string(path).map_err(|source| CredentialsError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(text.trim_end()).ok_or_else(|| CredentialsError::Format {
            path: path.to_owned(),
        })
    }

    fn parse(line: &str) -> Option<Self> {
        let (id, secret) = line.split_once(':')?;
        if id.is_empty() || secret.is_empty() || line.contains(['\n', '\r']) {
            return None;
        }
        // The client id and the secret are form-encoded before they are joined (RFC 6749 section
        // 2.3.1).
        let pair = format!("{}:{}", form_encode(id), form_encode(secret));
        let value = format!("Basic {}", BASE64.encode(pair));
        let mut header = HeaderValue::try_from(value).ok()?;
        header.set_sensitive(true);
        Some(Self(header))
    }
}

fn form_encode(text: &str) -> String {
    utf8_percent_encode(text, FORM_ESCAPES).to_string()
}

/// How long introspection responses are cached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CachePolicy {
    pub(crate) ttl: Duration,
    /// How long a response about an active token is used while the provider cannot be reached.
    /// `ttl` and `max_stale` are both measured from the start of the introspection request.
    pub(crate) max_stale: Duration,
}

/// Why prefd could not get a valid introspection response.
#[derive(Debug, thiserror::Error)]
enum IntrospectionError {
    #[error(
        "the introspection endpoint is unknown: the metadata of the identity provider was not \
         fetched yet, or does not name the endpoint. Set --introspection-url"
    )]
    UnknownEndpoint,
    #[error(transparent)]
    Endpoint(#[from] FetchError),
    #[error(transparent)]
    Request(#[from] HttpClientError),
    #[error("the introspection response is not a JSON object: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("the introspection response has no boolean member `active`")]
    MissingActive,
}

/// The cached introspection response about an active token.
#[derive(Clone)]
struct ActiveToken {
    claims: Arc<Claims>,
    asked_at: Instant,
}

/// Asks a provider whether tokens are active.
pub(crate) struct Introspection {
    endpoint: IntrospectionEndpoint,
    /// The value that `iss` must have in a response that contains `iss`.
    issuer: Option<Arc<str>>,
    credentials: Lock<Credentials>,
    http_client: HttpClient,
    cache_policy: CachePolicy,
    /// Active and inactive tokens have separate caches, so that a client that sends many
    /// invalid tokens cannot evict the valid ones.
    active: TokenCache<ActiveToken>,
    /// For each token that is inactive or was rejected, the time at which the provider was asked.
    inactive: TokenCache<Instant>,
    /// A request holds one of these locks while it asks the provider. All requests with the same
    /// token use the same lock, so only one of them asks the provider at a time.
    request_locks: [Mutex<()>; MAX_REQUESTS],
    /// The time at which an introspection request last failed with a timeout or a connection error.
    failed_at: Lock<Option<Instant>>,
    requests: Counter,
    failed_requests: Counter,
}

impl Introspection {
    /// Creates a cache for active tokens and a cache for inactive tokens, each for about `entries`
    /// tokens.
    pub(crate) fn new(
        endpoint: IntrospectionEndpoint,
        issuer: Option<Arc<str>>,
        credentials: Credentials,
        http_client: HttpClient,
        cache_policy: CachePolicy,
        entries: usize,
    ) -> Self {
        Self {
            endpoint,
            issuer,
            credentials: Lock::new(credentials),
            http_client,
            cache_policy,
            active: TokenCache::new(entries),
            inactive: TokenCache::new(entries),
            request_locks: [const { Mutex::const_new(()) }; MAX_REQUESTS],
            failed_at: Lock::default(),
            requests: Counter::default(),
            failed_requests: Counter::default(),
        }
    }

    /// Returns the claims of a token if the token is active and valid at `now`, in seconds since
    /// 1970. The provider is asked only if no response for the token is cached.
    pub(crate) async fn claims(
        &self,
        token: &[u8],
        rules: &TokenRules,
        now: f64,
    ) -> Result<Arc<Claims>, Denial> {
        let text = well_formed(token).ok_or(Denial::Invalid("The token is malformed."))?;
        let asked = tokio::time::timeout(WAIT_TIMEOUT, async {
            let _lock = self.request_lock(token).lock().await;
            // While this request waited for the lock, another request may have cached a response.
            match self.cached(token, now) {
                Some(cached) => cached,
                None => self.ask(text, rules, now).await,
            }
        });
        asked.await.unwrap_or_else(|_| self.stale(token, now))
    }

    fn request_lock(&self, token: &[u8]) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        hasher.write(token);
        let index = hasher.finish() % (MAX_REQUESTS as u64);
        let [first, ..] = &self.request_locks;
        let index = usize::try_from(index).unwrap_or_default();
        self.request_locks.get(index).unwrap_or(first)
    }

    /// The cached result for a token, if it is younger than `ttl`.
    pub(crate) fn cached(&self, token: &[u8], now: f64) -> Option<Result<Arc<Claims>, Denial>> {
        let ttl = self.cache_policy.ttl;
        if let Some(active) = self.active.get(token)
            && active.asked_at.elapsed() < ttl
        {
            return Some(valid_at(&active.claims, now));
        }
        let asked_at = self.inactive.get(token)?;
        (asked_at.elapsed() < ttl).then_some(Err(INACTIVE))
    }

    /// The cached claims of a token, if they are younger than `max_stale`. A request uses these
    /// claims if prefd cannot get a response from the provider.
    fn stale(&self, token: &[u8], now: f64) -> Result<Arc<Claims>, Denial> {
        match self.active.get(token) {
            Some(active) if active.asked_at.elapsed() < self.cache_policy.max_stale => {
                valid_at(&active.claims, now)
            }
            _ => Err(Denial::Unavailable),
        }
    }

    /// Asks the provider about a token and caches the result.
    async fn ask(&self, token: &str, rules: &TokenRules, now: f64) -> Result<Arc<Claims>, Denial> {
        if self.failed_recently() {
            return self.stale(token.as_bytes(), now);
        }
        let asked_at = Instant::now();
        self.requests.add_one();
        let response = match self.request(token).await {
            Ok(response) => response,
            Err(error) => {
                self.failed_requests.add_one();
                tracing::warn!(%error, "token introspection failed");
                if let IntrospectionError::Request(
                    HttpClientError::Connection(_) | HttpClientError::Timeout(_),
                ) = error
                {
                    *self.failed_at() = Some(Instant::now());
                }
                return self.stale(token.as_bytes(), now);
            }
        };
        let token = token.as_bytes();
        let claims = match response {
            None => Err(INACTIVE),
            Some(members) => Claims::from_introspection(&members, self.issuer.as_deref(), rules)
                .map_err(Denial::Invalid),
        };
        match claims {
            Ok(claims) => {
                let claims = Arc::new(claims);
                let weight = claims.weight();
                let active = ActiveToken {
                    claims: Arc::clone(&claims),
                    asked_at,
                };
                self.active.insert(token, active, weight);
                valid_at(&claims, now)
            }
            Err(denial) => {
                self.active.remove(token);
                self.inactive.insert(token, asked_at, size_of::<Instant>());
                Err(denial)
            }
        }
    }

    /// Number of introspection requests, including failed ones.
    pub(crate) fn requests(&self) -> &Counter {
        &self.requests
    }

    pub(crate) fn failed_requests(&self) -> &Counter {
        &self.failed_requests
    }

    /// Uses these credentials for all further introspection requests.
    pub(crate) fn replace_credentials(&self, credentials: Credentials) {
        *self.credentials() = credentials;
    }

    fn credentials(&self) -> MutexGuard<'_, Credentials> {
        self.credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn failed_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn failed_recently(&self) -> bool {
        self.failed_at()
            .is_some_and(|at| at.elapsed() < RETRY_PAUSE)
    }

    /// Sends one introspection request. Returns the members of the response, or `None` if the
    /// provider reports the token as inactive.
    async fn request(&self, token: &str) -> Result<Option<Map<String, Value>>, IntrospectionError> {
        let endpoint = match &self.endpoint {
            IntrospectionEndpoint::Configured(endpoint) => endpoint.clone(),
            IntrospectionEndpoint::Discovered(provider) => {
                if provider.introspection_endpoint().is_none() {
                    provider.refresh().await;
                }
                provider
                    .introspection_endpoint()
                    .ok_or(IntrospectionError::UnknownEndpoint)??
            }
        };
        let form = format!("token={}&token_type_hint=access_token", form_encode(token));
        let Credentials(authorization) = self.credentials().clone();
        let text = self
            .http_client
            .post(&endpoint, authorization, form, REQUEST_TIMEOUT)
            .await?;
        let members: Map<String, Value> = serde_json::from_slice(&text)?;
        match members.get("active") {
            Some(Value::Bool(true)) => Ok(Some(members)),
            Some(Value::Bool(false)) => Ok(None),
            _ => Err(IntrospectionError::MissingActive),
        }
    }
}

const INACTIVE: Denial = Denial::Invalid("The token is not active.");

/// Returns the claims if they are valid at `now`, in seconds since 1970.
fn valid_at(claims: &Arc<Claims>, now: f64) -> Result<Arc<Claims>, Denial> {
    claims.check_time(now)?;
    Ok(Arc::clone(claims))
}

/// The token as text, if it has the syntax of a bearer token (`b64token` in RFC 6750 section 2.1).
/// A token with any other syntax is rejected without asking the provider.
fn well_formed(token: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(token).ok()?;
    let body = text.trim_end_matches('=');
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
    (!body.is_empty() && body.bytes().all(is_allowed)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_form_encoded_before_base64() {
        let header = |line: &str| Credentials::parse(line).map(|Credentials(value)| value);
        // The credentials and the header are the example in RFC 6749 section 2.3.1.
        assert_eq!(
            header("s6BhdRkqt3:gX1fBat3bV").unwrap(),
            "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW"
        );
        let escaped = header("a b:c:d/é").unwrap();
        assert_eq!(
            escaped,
            format!("Basic {}", BASE64.encode("a%20b:c%3Ad%2F%C3%A9"))
        );
        for bad in ["", "id", "id:", ":secret", "id:a\nb"] {
            assert!(header(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_well_formed_tokens_are_introspected() {
        for good in ["abc", "a-._~+/Z9", "YQ==", "a.b.c"] {
            assert_eq!(well_formed(good.as_bytes()), Some(good));
        }
        for bad in ["", "=", "a b", "a=b", "a\"", "é", "a&b"] {
            assert_eq!(well_formed(bad.as_bytes()), None, "{bad}");
        }
    }
}
