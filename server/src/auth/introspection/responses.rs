//! The cached introspection responses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::auth::claims::Claims;
use crate::auth::token_cache::TokenCache;

/// How much longer than `ttl` a cached response about an active token is used while prefd renews
/// it: about as long as a renewal can last.
const RENEWAL_WINDOW: Duration = Duration::from_secs(10);

/// How long introspection responses are cached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CachePolicy {
    pub(crate) ttl: Duration,
    /// How long a response about an active token is used while the provider cannot be reached.
    /// `ttl` and `max_stale` are both measured from the start of the introspection request.
    pub(crate) max_stale: Duration,
}

/// What a response about an active token may be used for, by its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    Fresh,
    /// The response is used while prefd renews it in the background.
    Renewable,
    /// The response is used only if the provider cannot be asked.
    Stale,
    TooOld,
}

impl CachePolicy {
    pub(super) fn freshness(&self, age: Duration) -> Freshness {
        // A busy token is renewed in the second half of `ttl`, so that its response usually does
        // not become older than `ttl`.
        if age < self.ttl / 2 {
            Freshness::Fresh
        } else if age < self.renewable() {
            Freshness::Renewable
        } else if age < self.max_stale {
            Freshness::Stale
        } else {
            Freshness::TooOld
        }
    }

    /// The age up to which a response is used without waiting for the provider.
    fn renewable(&self) -> Duration {
        let window = self.ttl.saturating_add(RENEWAL_WINDOW);
        window.min(self.max_stale).max(self.ttl)
    }
}

/// The cached response about an active token.
#[derive(Clone)]
pub(super) struct ActiveToken {
    pub(super) claims: Arc<Claims>,
    asked_at: Instant,
    /// Whether a task renews this response.
    is_renewing: Arc<AtomicBool>,
}

impl ActiveToken {
    /// Returns true if the caller is the first one to renew this response. The caller must call
    /// [`Self::end_renewal`] if the renewal fails.
    pub(super) fn begin_renewal(&self) -> bool {
        !self.is_renewing.swap(true, Ordering::AcqRel)
    }

    /// Allows another attempt to renew this response.
    pub(super) fn end_renewal(&self) {
        self.is_renewing.store(false, Ordering::Release);
    }
}

/// The responses about active tokens and about refused tokens.
pub(super) struct Responses {
    policy: CachePolicy,
    active: TokenCache<ActiveToken>,
    /// The times at which the provider was asked about refused tokens.
    refused: TokenCache<Instant>,
}

impl Responses {
    /// Creates two caches, each for about `entries` tokens.
    pub(super) fn new(policy: CachePolicy, entries: usize) -> Self {
        Self {
            policy,
            active: TokenCache::new(entries),
            refused: TokenCache::new(entries),
        }
    }

    /// The cached response about an active token, unless it is too old for any use.
    pub(super) fn active(&self, token: &[u8]) -> Option<(ActiveToken, Freshness)> {
        let active = self.active.get(token)?;
        match self.policy.freshness(active.asked_at.elapsed()) {
            Freshness::TooOld => None,
            freshness => Some((active, freshness)),
        }
    }

    /// Whether the provider has refused the token within `ttl`.
    pub(super) fn is_refused(&self, token: &[u8]) -> bool {
        let asked_at = self.refused.get(token);
        asked_at.is_some_and(|asked_at| asked_at.elapsed() < self.policy.ttl)
    }

    pub(super) fn insert_active(&self, token: &[u8], claims: &Arc<Claims>, asked_at: Instant) {
        let active = ActiveToken {
            claims: Arc::clone(claims),
            asked_at,
            is_renewing: Arc::default(),
        };
        self.active.insert(token, active, claims.weight());
    }

    pub(super) fn insert_refused(&self, token: &[u8], asked_at: Instant) {
        self.active.remove(token);
        self.refused.insert(token, asked_at, size_of::<Instant>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_is_renewed_before_it_is_older_than_the_ttl() {
        let policy = CachePolicy {
            ttl: Duration::from_secs(30),
            max_stale: Duration::from_secs(3600),
        };
        for (seconds, expected) in [
            (0, Freshness::Fresh),
            (14, Freshness::Fresh),
            (15, Freshness::Renewable),
            (39, Freshness::Renewable),
            (40, Freshness::Stale),
            (3599, Freshness::Stale),
            (3600, Freshness::TooOld),
        ] {
            let found = policy.freshness(Duration::from_secs(seconds));
            assert_eq!(found, expected, "{seconds} s");
        }
    }

    #[test]
    fn short_max_stale_shortens_the_renewal_window() {
        let seconds = Duration::from_secs;
        let freshness = |ttl, max_stale, age| {
            let policy = CachePolicy { ttl, max_stale };
            policy.freshness(age)
        };
        let at = |age| freshness(seconds(30), seconds(30), age);
        assert_eq!(at(seconds(29)), Freshness::Renewable);
        assert_eq!(at(seconds(30)), Freshness::TooOld);
        // A response is used for its `ttl`, even if `max_stale` is shorter.
        let at = |age| freshness(seconds(30), seconds(1), age);
        assert_eq!(at(seconds(29)), Freshness::Renewable);
        assert_eq!(at(seconds(30)), Freshness::TooOld);
    }
}
