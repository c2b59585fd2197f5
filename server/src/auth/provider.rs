//! The keys that an identity provider publishes at a URL.
//!
//! The keys are fetched in the background at regular intervals. If the provider cannot be reached,
//! the known keys stay valid. A token that no known key has signed can trigger an early fetch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::auth::fetch_allowance::FetchAllowance;
use crate::auth::http_client::Endpoint;
use crate::auth::key_source::{FetchError, FetchedKeys, KeySource};
use crate::auth::keys::{KeySet, Token, UnverifiedClaims};

/// Pause after the first failed fetch. The pause doubles with each further failure, up to
/// `MAX_RETRY_PAUSE`.
const FIRST_RETRY_PAUSE: Duration = Duration::from_secs(1);
const MAX_RETRY_PAUSE: Duration = Duration::from_mins(1);
/// Maximum time that a request waits for newer keys of one provider.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(15);

/// The results of the fetches so far.
struct ProviderState {
    /// `None` before the first successful fetch.
    keys: Option<Arc<KeySet>>,
    introspection_url: Option<Arc<str>>,
    /// When the last successful fetch began.
    fetched_at: Option<SystemTime>,
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
            fetched_at: None,
            fetches: 0,
            is_fetching: true,
            is_up_to_date: false,
        }
    }
}

/// The result of [`Provider::refresh`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refresh {
    /// A fetch that this call triggered has succeeded.
    Fetched,
    /// A fetch that was already running has succeeded. If the provider has published a key after
    /// that fetch began, the key is still unknown.
    Joined,
    /// The fetch failed or has not ended in time.
    Failed,
    /// Tokens have triggered too many fetches. After this time, the next fetch is allowed.
    NotAllowed(Duration),
}

/// An identity provider, whose keys [`Self::run`] fetches.
pub(crate) struct Provider {
    source: KeySource,
    /// Pause after a successful fetch.
    refresh_interval: Duration,
    state: watch::Sender<ProviderState>,
    /// The fetches that tokens can trigger.
    allowance: FetchAllowance,
    /// Wakes [`Self::run`] so that it fetches before the end of its pause.
    wake: Notify,
    /// The key generation, which is incremented when a key is withdrawn. Cached verifications of an
    /// older key generation are not used.
    generation: Arc<AtomicU64>,
}

impl Provider {
    pub(crate) fn new(
        source: KeySource,
        refresh_interval: Duration,
        generation: Arc<AtomicU64>,
    ) -> Self {
        Self {
            source,
            refresh_interval,
            state: watch::Sender::default(),
            allowance: FetchAllowance::default(),
            wake: Notify::new(),
            generation,
        }
    }

    /// Fetches the keys repeatedly, for as long as this future is polled.
    pub(crate) async fn run(&self) {
        let mut failures: u32 = 0;
        loop {
            self.state.send_modify(|state| state.is_fetching = true);
            let pause = match self.source.fetch().await {
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
                state.fetched_at = Some(fetched.began_at);
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
        self.source.name()
    }

    /// The introspection endpoint from the provider's metadata. `None` if the metadata was
    /// not fetched yet, or names no endpoint.
    pub(crate) fn introspection_endpoint(&self) -> Option<Result<Endpoint, FetchError>> {
        let url = self.state.borrow().introspection_url.clone()?;
        Some(self.source.endpoint(&url))
    }

    /// The known keys. `None` if no fetch has succeeded yet.
    pub(crate) fn keys(&self) -> Option<Arc<KeySet>> {
        self.state.borrow().keys.clone()
    }

    /// Whether this provider may have signed the token with a key that is not known yet: the token
    /// names an unknown key, or the token was issued after the known keys were fetched. The latter
    /// matters because some providers give a new key the id of an old one.
    pub(crate) fn may_have_newer_key(
        &self,
        token: &Token<'_>,
        claims: &UnverifiedClaims,
        now: f64,
    ) -> bool {
        let issuer = self.source.issuer();
        if issuer.is_some_and(|issuer| claims.issuer() != Some(issuer)) {
            return false;
        }
        let state = self.state.borrow();
        let knows_id = match (&state.keys, token.key_id()) {
            (Some(keys), Some(id)) => keys.has_key_id(id),
            _ => false,
        };
        !knows_id || claims.may_be_issued_since(state.fetched_at, now)
    }

    /// Triggers a fetch, and waits until the fetch ends or [`REFRESH_TIMEOUT`] has passed.
    /// Concurrent callers share one fetch.
    pub(crate) async fn refresh(&self) -> Refresh {
        let mut state = self.state.subscribe();
        let requested = match self.request_fetch() {
            Ok(requested) => requested,
            Err(wait) => return Refresh::NotAllowed(wait),
        };
        let done = state.wait_for(|state| state.fetches > requested.completed);
        // A timeout is not handled here, because the state shows whether the fetch has ended.
        let _ = tokio::time::timeout(REFRESH_TIMEOUT, done).await;
        let state = state.borrow();
        let has_succeeded = state.fetches > requested.completed && state.is_up_to_date;
        match (has_succeeded, requested.is_new) {
            (false, _) => Refresh::Failed,
            (true, true) => Refresh::Fetched,
            (true, false) => Refresh::Joined,
        }
    }

    /// Wakes [`Self::run`] if no fetch is running. If it is too early for another fetch, returns
    /// the time after which the next one is allowed.
    fn request_fetch(&self) -> Result<RequestedFetch, Duration> {
        let mut requested = Err(Duration::ZERO);
        // The allowance is used while the state is locked, so that concurrent callers use it once.
        self.state.send_if_modified(|state| {
            let is_new = !state.is_fetching;
            let allowed = if is_new {
                self.allowance.use_one(Instant::now())
            } else {
                Ok(())
            };
            requested = allowed.map(|()| RequestedFetch {
                completed: state.fetches,
                is_new,
            });
            state.is_fetching |= requested.is_ok();
            is_new && requested.is_ok()
        });
        if matches!(requested, Ok(RequestedFetch { is_new: true, .. })) {
            self.wake.notify_one();
        }
        requested
    }
}

/// A fetch that was requested and may have begun.
#[derive(Debug, PartialEq, Eq)]
struct RequestedFetch {
    /// Number of fetches that had completed when this fetch was requested.
    completed: u64,
    /// False if the fetch was running or requested before.
    is_new: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::http_client::{HttpClient, PlainHttp};
    use crate::auth::key_source::ProviderUrl;

    /// A server can receive a request before it has started to fetch keys. The tokens of early
    /// requests and of requests that share a fetch must not use up the allowance.
    #[test]
    fn only_a_token_that_triggers_a_fetch_uses_the_allowance() {
        let plain_http = PlainHttp::ThisMachine;
        let url = Endpoint::parse("http://127.0.0.1:1/keys", plain_http).unwrap();
        let client = HttpClient::new().unwrap();
        let provider = Provider::new(
            KeySource::new(ProviderUrl::KeySet(url), None, plain_http, client),
            Duration::from_hours(1),
            Arc::default(),
        );
        let requested = |completed, is_new| Ok(RequestedFetch { completed, is_new });
        assert_eq!(provider.request_fetch(), requested(0, false));
        provider.finish_fetch(None);
        // The complete allowance is left.
        let mut completed = 1;
        while provider.request_fetch() == requested(completed, true) {
            assert_eq!(provider.request_fetch(), requested(completed, false));
            provider.finish_fetch(None);
            completed += 1;
        }
        assert!(completed > 2 && provider.request_fetch().is_err());
    }
}
