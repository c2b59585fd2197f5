//! Keys of an identity provider, which it publishes at a URL: fetched in the background,
//! kept whatever happens to the provider, and asked for again where a token names a key
//! that is not known.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::auth::keys::{Distrust, KeyFault, KeySet, Signed, Token};
use crate::auth::outgoing::{Endpoint, EndpointError, Outgoing, OutgoingError};

/// Between two times that tokens have keys fetched, at least: anybody can send a token
/// that names a key which does not exist.
const ASK_PAUSE: Duration = Duration::from_secs(60);
/// The pause after the first failure to fetch; it doubles with each further one.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(60);
/// How long a request waits for keys.
const RENEW_TIMEOUT: Duration = Duration::from_secs(15);

/// Where a provider's keys are.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Where its metadata says; this is what the metadata must name as the issuer.
    Issuer(String),
    KeySet(Endpoint),
}

/// Why there are no newer keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FetchError {
    #[error("{from}: {source}")]
    Outgoing { from: String, source: OutgoingError },
    #[error("{from}: not a provider's metadata: {source}")]
    Metadata {
        from: String,
        source: serde_json::Error,
    },
    #[error("{from}: the metadata is of the issuer {found:?}, and not of {expected:?}")]
    OtherIssuer {
        from: String,
        found: String,
        expected: String,
    },
    #[error("{url:?}: {source}")]
    Endpoint { url: String, source: EndpointError },
    #[error("{from}: {fault}")]
    Keys { from: String, fault: KeyFault },
}

/// What a provider says of itself (RFC 8414 section 2; OpenID Connect Discovery 1.0
/// section 3).
#[derive(Debug, Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
    introspection_endpoint: Option<String>,
}

/// What is known of a provider.
#[derive(Clone, Default)]
struct Known {
    /// `None` where it was never reached.
    keys: Option<Arc<KeySet>>,
    introspection: Option<Arc<str>>,
    /// Fetches that have ended, well or not.
    fetches: u64,
    is_fetching: bool,
    /// The last fetch went well.
    is_up_to_date: bool,
}

/// What a fetch brings.
struct Fetched {
    keys: KeySet,
    /// As the metadata have it: most have no use for it, and one that cannot be used must
    /// not take the keys down.
    introspection: Option<Arc<str>>,
}

pub(crate) struct Provider {
    source: Source,
    /// Whom its tokens must name.
    issuer: Option<Arc<str>>,
    outgoing: Outgoing,
    /// Between two fetches that go well.
    refresh: Duration,
    known: watch::Sender<Known>,
    /// When a token last had keys fetched.
    asked: Mutex<Option<Instant>>,
    wake: Notify,
    /// Grows where a key is withdrawn: what it has signed is to be judged anew.
    generation: Arc<AtomicU64>,
}

impl Provider {
    /// For [`Source::KeySet`], `issuer` is whom the tokens must name, where anybody.
    pub(crate) fn new(
        source: Source,
        issuer: Option<Arc<str>>,
        outgoing: Outgoing,
        refresh: Duration,
        generation: Arc<AtomicU64>,
    ) -> Self {
        let issuer = match &source {
            Source::Issuer(issuer) => Some(issuer.as_str().into()),
            Source::KeySet(_) => issuer,
        };
        Self {
            source,
            issuer,
            outgoing,
            refresh,
            known: watch::Sender::default(),
            asked: Mutex::default(),
            wake: Notify::new(),
            generation,
        }
    }

    /// Fetches keys now and again, for as long as it is polled.
    pub(crate) async fn run(&self) {
        let mut failures: u32 = 0;
        loop {
            self.known.send_modify(|known| known.is_fetching = true);
            let fetched = self.fetch().await;
            let is_up_to_date = fetched.is_ok();
            let pause = match fetched {
                Ok(fetched) => {
                    failures = 0;
                    self.learn(fetched);
                    self.refresh
                }
                Err(error) => {
                    tracing::warn!(%error, "keys of an identity provider cannot be fetched");
                    let pause = RETRY_PAUSE.saturating_mul(1 << failures.min(6));
                    failures = failures.saturating_add(1);
                    pause.min(MAX_RETRY_PAUSE)
                }
            };
            self.known.send_modify(|known| {
                known.is_fetching = false;
                known.is_up_to_date = is_up_to_date;
                known.fetches += 1;
            });
            let _ = tokio::time::timeout(pause, self.wake.notified()).await;
        }
    }

    /// Takes newer keys over; a key that is none any more takes its tokens with it.
    fn learn(&self, fetched: Fetched) {
        let before = self.known.borrow().keys.clone().unwrap_or_default();
        let after = Arc::new(fetched.keys);
        if !after.is_within(&before) {
            let keys = after.len();
            tracing::info!(from = %self.name(), keys, "an identity provider has new keys");
        }
        let withdraws = !before.is_within(&after);
        self.known.send_modify(|known| {
            known.keys = Some(after);
            known.introspection = fetched.introspection;
        });
        // Behind the keys: what was judged by the old ones was begun before, and is
        // remembered as of then.
        if withdraws {
            tracing::info!(from = %self.name(), "an identity provider has withdrawn a key");
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    async fn fetch(&self) -> Result<Fetched, FetchError> {
        let (url, introspection) = match &self.source {
            Source::KeySet(url) => (url.clone(), None),
            Source::Issuer(issuer) => self.discover(issuer).await?,
        };
        let text = self.get(&url).await?;
        let (keys, unfit) =
            KeySet::of_jwks(self.issuer.clone(), &text).map_err(|fault| FetchError::Keys {
                from: url.to_string(),
                fault,
            })?;
        for fault in unfit {
            tracing::warn!(from = %url, %fault, "keys of an identity provider are passed over");
        }
        Ok(Fetched {
            keys,
            introspection,
        })
    }

    /// Where an issuer's keys are, and where it looks at tokens. OpenID Connect has the
    /// place of the metadata behind the issuer's path, RFC 8414 before it.
    async fn discover(&self, issuer: &str) -> Result<(Endpoint, Option<Arc<str>>), FetchError> {
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        let openid = endpoint(&format!("{base}/.well-known/openid-configuration"))?;
        let (from, text) = match self.get(&openid).await {
            Err(FetchError::Outgoing {
                source: OutgoingError::Status(StatusCode::NOT_FOUND),
                ..
            }) => {
                let oauth = endpoint(&rfc8414_url(base))?;
                let text = self.get(&oauth).await?;
                (oauth, text)
            }
            outcome => (openid, outcome?),
        };
        let metadata: Metadata =
            serde_json::from_slice(&text).map_err(|source| FetchError::Metadata {
                from: from.to_string(),
                source,
            })?;
        // Section 3.3 of RFC 8414: else one issuer could speak for another.
        if metadata.issuer != issuer {
            return Err(FetchError::OtherIssuer {
                from: from.to_string(),
                found: metadata.issuer,
                expected: issuer.to_owned(),
            });
        }
        let introspection = metadata.introspection_endpoint.map(Arc::from);
        Ok((endpoint(&metadata.jwks_uri)?, introspection))
    }

    async fn get(&self, from: &Endpoint) -> Result<bytes::Bytes, FetchError> {
        let answer = self.outgoing.get(from).await;
        answer.map_err(|source| FetchError::Outgoing {
            from: from.to_string(),
            source,
        })
    }

    /// Whether it was reached once.
    pub(crate) fn is_known(&self) -> bool {
        self.known.borrow().keys.is_some()
    }

    /// Whether the last fetch went well.
    pub(crate) fn is_up(&self) -> bool {
        self.known.borrow().is_up_to_date
    }

    /// Fetches that have ended, well or not.
    pub(crate) fn fetches(&self) -> u64 {
        self.known.borrow().fetches
    }

    /// What the log and metrics call it.
    pub(crate) fn name(&self) -> String {
        match &self.source {
            Source::Issuer(issuer) => issuer.clone(),
            Source::KeySet(url) => url.to_string(),
        }
    }

    /// Where it looks at tokens, as its metadata says.
    pub(crate) fn introspection(&self) -> Option<Result<Endpoint, FetchError>> {
        let url = self.known.borrow().introspection.clone()?;
        Some(endpoint(&url))
    }

    /// The claims of a token that one of its keys has signed.
    pub(crate) fn verify(&self, token: &Token<'_>) -> Result<Signed, Distrust> {
        let keys = self.known.borrow().keys.clone();
        keys.map_or(Err(Distrust::NoKey), |keys| keys.verify(token))
    }

    /// Whether a key that has signed the token may be its, and is not known yet.
    pub(crate) fn may_have_key_of(&self, token: &Token<'_>, claimed_issuer: Option<&str>) -> bool {
        let is_its = self
            .issuer
            .as_deref()
            .is_none_or(|issuer| claimed_issuer == Some(issuer));
        let known = self.known.borrow();
        let has_key = match (&known.keys, token.key_id()) {
            (Some(keys), Some(id)) => keys.has(id),
            _ => false,
        };
        is_its && !has_key
    }

    /// Has newer keys fetched, and waits for that together with everybody else who does;
    /// not where a token had it done less than a minute ago. Whether the keys that are
    /// known now are those that the provider has.
    pub(crate) async fn renew(&self) -> bool {
        let mut known = self.known.subscribe();
        if let Some(fetches) = self.ask() {
            let renewed = known.wait_for(|known| known.fetches > fetches);
            // However that ends: what is known tells.
            let _ = tokio::time::timeout(RENEW_TIMEOUT, renewed).await;
        }
        let known = known.borrow();
        known.is_up_to_date && !known.is_fetching
    }

    /// Fetches that had ended when the one was begun that is under way now; `None` where
    /// none is, since it is too early for another one.
    fn ask(&self) -> Option<u64> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (is_fetching, fetches) = {
            let known = self.known.borrow();
            (known.is_fetching, known.fetches)
        };
        if !is_fetching {
            if asked.is_some_and(|at| at.elapsed() < ASK_PAUSE) {
                return None;
            }
            *asked = Some(Instant::now());
            self.known.send_modify(|known| known.is_fetching = true);
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

/// Where RFC 8414 section 3.1 has the metadata of an issuer: before its path.
fn rfc8414_url(issuer: &str) -> String {
    let host_at = issuer.find("://").map_or(0, |at| at + "://".len());
    let path_at = issuer
        .get(host_at..)
        .and_then(|rest| rest.find('/'))
        .map_or(issuer.len(), |at| host_at + at);
    let (host, path) = issuer.split_at(path_at);
    format!("{host}/.well-known/oauth-authorization-server{path}")
}
