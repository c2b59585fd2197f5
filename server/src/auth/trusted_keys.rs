//! The keys that can verify tokens: keys from files, and keys of identity providers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::auth::claims::{Claims, VerifiedToken};
use crate::auth::keys::{Attempts, KeySet, SignedClaims, Token, UnverifiedClaims, VerifyError};
use crate::auth::provider::{Provider, Refresh};
use crate::auth::rules::{Denial, TokenRules};

/// All keys that can verify tokens.
pub(crate) struct TrustedKeys {
    /// The keys from files.
    local: RwLock<Arc<KeySet>>,
    providers: Vec<Arc<Provider>>,
    /// The key generation, which is incremented when a key is withdrawn. A cached verification is
    /// used only if its key generation is the current one.
    generation: Arc<AtomicU64>,
    /// Limits the number of requests that wait for newer keys at the same time. Without this limit,
    /// anybody could occupy all connections by sending tokens that name unknown keys, because each
    /// of these requests waits for a provider.
    waiting: Semaphore,
}

impl TrustedKeys {
    /// The providers must share `generation`. At most `max_waiting` requests wait for newer keys at
    /// the same time.
    pub(crate) fn new(
        local: KeySet,
        providers: Vec<Arc<Provider>>,
        generation: Arc<AtomicU64>,
        max_waiting: usize,
    ) -> Self {
        Self {
            local: RwLock::new(Arc::new(local)),
            providers,
            generation,
            waiting: Semaphore::new(max_waiting),
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Verifies a token with the known keys, and if these have not signed the token, with newer
    /// keys of the providers. This function may wait for a provider.
    pub(super) async fn verify(
        &self,
        token: &Token<'_>,
        rules: &TokenRules,
        now: f64,
    ) -> Result<VerifiedToken, Denial> {
        let unverified = token.unverified_claims();
        match self.verify_with_known_keys(token, &unverified, rules) {
            Err(error) if error.may_be_fixed_by_newer_keys() => {
                self.verify_with_newer_keys(token, &unverified, rules, error, now)
                    .await
            }
            verified => Ok(verified.map_err(VerifyError::reason)?),
        }
    }

    /// Verifies a token with the known keys.
    pub(super) fn verify_with_known_keys(
        &self,
        token: &Token<'_>,
        unverified: &UnverifiedClaims,
        rules: &TokenRules,
    ) -> Result<VerifiedToken, VerifyError> {
        // The generation is read before the keys. If a key is withdrawn after the generation is
        // read, the result has the old generation, so it is never served from the cache.
        let generation = self.generation();
        let signed = self.verify_signature(token, unverified)?;
        let claims = Claims::from_jwt(&signed.claims, rules);
        Ok(VerifiedToken {
            claims: Arc::new(claims.map_err(VerifyError::Rejected)?),
            generation,
        })
    }

    /// Verifies the signature with the keys from files and the keys of each provider. Two providers
    /// can publish the same key. If a key has signed the token but the token names a different
    /// issuer, the remaining keys are tried too.
    ///
    /// The number of tried keys is limited, so the keys of the issuer that the token names are
    /// tried first.
    fn verify_signature(
        &self,
        token: &Token<'_>,
        unverified: &UnverifiedClaims,
    ) -> Result<SignedClaims, VerifyError> {
        let published = self.providers.iter().filter_map(|provider| provider.keys());
        let (likely, others): (Vec<_>, Vec<_>) = std::iter::once(self.local_keys())
            .chain(published)
            .partition(|keys| keys.may_sign_for(unverified.issuer()));
        let mut attempts = Attempts::default();
        let mut outcome = Err(VerifyError::NoKey);
        for keys in likely.iter().chain(&others) {
            let verified = keys.verify(token, &mut attempts);
            outcome = match (outcome, verified.and_then(SignedClaims::check_issuer)) {
                (_, Ok(signed)) => return Ok(signed),
                (Err(VerifyError::NoKey), error) => error,
                (earlier, _) => earlier,
            };
        }
        outcome
    }

    /// Fetches the keys of each provider that may have signed the token with an unknown key, and
    /// verifies the token again. `error` is the result of the known keys.
    ///
    /// A token is rejected only after a fetch that began later than its request. Otherwise a key
    /// that was published in the meantime would be unknown, and its tokens would be rejected.
    async fn verify_with_newer_keys(
        &self,
        token: &Token<'_>,
        unverified: &UnverifiedClaims,
        rules: &TokenRules,
        mut error: VerifyError,
        now: f64,
    ) -> Result<VerifiedToken, Denial> {
        let mut unavailable = None;
        for provider in &self.providers {
            if !token.has_asymmetric_algorithm()
                || !provider.may_have_newer_key(token, unverified, now)
            {
                continue;
            }
            let _permit = self.acquire_wait_permit()?;
            let mut refresh = provider.refresh().await;
            error = match self.verify_with_known_keys(token, unverified, rules) {
                Err(error) if error.may_be_fixed_by_newer_keys() => error,
                verified => return Ok(verified.map_err(VerifyError::reason)?),
            };
            if refresh == Refresh::Joined {
                // A fetch that is joined now has begun after the request was received.
                refresh = provider.refresh().await;
                error = match self.verify_with_known_keys(token, unverified, rules) {
                    Err(error) if error.may_be_fixed_by_newer_keys() => error,
                    verified => return Ok(verified.map_err(VerifyError::reason)?),
                };
            }
            match refresh {
                Refresh::Fetched | Refresh::Joined => {}
                Refresh::Failed => unavailable = Some(Denial::Unavailable),
                Refresh::NotAllowed(wait) => {
                    unavailable = Some(Denial::KeyFetchNotAllowed(wait));
                }
            }
        }
        Err(unavailable.unwrap_or(Denial::Invalid(error.reason())))
    }

    /// Returns a permit that allows a request to wait for a provider. The request must keep the
    /// permit while it waits.
    fn acquire_wait_permit(&self) -> Result<SemaphorePermit<'_>, Denial> {
        self.waiting.try_acquire().map_err(|_| Denial::Unavailable)
    }

    fn local_keys(&self) -> Arc<KeySet> {
        let keys = self.local.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keys)
    }

    /// Whether any key or any provider of keys is configured.
    pub(super) fn has_keys(&self) -> bool {
        !self.providers.is_empty() || !self.local_keys().is_empty()
    }

    /// Replaces all keys from files. If the replacement withdraws a key, cached verifications
    /// become invalid.
    pub(super) fn replace_local_keys(&self, keys: KeySet) {
        let keys = Arc::new(keys);
        let mut local = self.local.write().unwrap_or_else(PoisonError::into_inner);
        let withdraws = !local.is_subset_of(&keys);
        *local = keys;
        drop(local);
        // The generation is incremented only after the keys are replaced, and a verification reads
        // the generation before it reads the keys. A verification with the old keys therefore
        // always has an old generation.
        if withdraws {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether the keys of every provider have been fetched at least once.
    pub(super) fn has_keys_of_all_providers(&self) -> bool {
        self.providers.iter().all(|provider| provider.has_keys())
    }

    /// The providers. The keys of a provider are fetched only while its
    /// [`Provider::run`] is polled.
    pub(super) fn providers(&self) -> &[Arc<Provider>] {
        &self.providers
    }
}
