//! Verifies the token of a request, and returns the token's claims.
//!
//! The cheapest source is tried first: the last token of the connection, then the token cache, then
//! the known keys. A request waits for newer keys from a provider only if the known keys cannot
//! verify its token. If the token requires introspection, the request waits for the provider unless
//! a cached response exists.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::HeaderMap;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::auth::challenge::Challenges;
use crate::auth::claims::{Claims, UNTRUSTED_ISSUER, VerifiedToken};
use crate::auth::introspection::Introspection;
use crate::auth::keys::{KeySet, SignedClaims, Token, VerifyError};
use crate::auth::last_token::LastToken;
use crate::auth::provider::Provider;
use crate::auth::rules::{Denial, TokenRules};
use crate::auth::token_cache::TokenCache;
use crate::counters::Counter;
use crate::http::ApiError;

/// Maximum length of a token in bytes. Identity providers usually issue much shorter tokens.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
const TOO_LONG: &str = "The token is longer than 8 KiB.";
const WRONG_TYPE: &str = "The token's typ is not the required one.";

/// The keys and providers that can verify tokens.
#[derive(Default)]
pub(crate) struct KeySources {
    /// The keys from files.
    pub(crate) local: KeySet,
    pub(crate) providers: Vec<Arc<Provider>>,
    /// The key generation, which is incremented when a key is withdrawn. A cached verification is
    /// used only if its key generation is the current one.
    pub(crate) generation: Arc<AtomicU64>,
    pub(crate) introspection: Option<Introspection>,
}

/// Verifies the bearer token of each request.
pub(crate) struct Authenticator {
    local: RwLock<Arc<KeySet>>,
    providers: Vec<Arc<Provider>>,
    /// See [`KeySources::generation`].
    generation: Arc<AtomicU64>,
    introspection: Option<Introspection>,
    rules: TokenRules,
    cache: TokenCache<VerifiedToken>,
    /// False if the operator has turned the token cache off. If the token cache is off, connections
    /// do not cache their last token either.
    is_caching: bool,
    challenges: Challenges,
    counters: TokenCounters,
    /// Limits the number of requests that wait for a provider at the same time. Without this limit,
    /// anybody could occupy all connections by sending tokens that name unknown keys, because each
    /// of these requests waits for a provider.
    waiting: Semaphore,
}

/// Counts how tokens were checked.
#[derive(Default)]
pub(crate) struct TokenCounters {
    /// Number of token checks whose result was found in a cache.
    pub(crate) cached: Counter,
    /// Number of token checks without a cached result. Rejected tokens are counted too.
    pub(crate) verified: Counter,
}

impl Authenticator {
    /// At most `max_waiting` requests wait for a provider at the same time. Returns `None` if the
    /// realm contains characters that are not allowed in a header.
    pub(crate) fn new(
        sources: KeySources,
        rules: TokenRules,
        realm: &str,
        cache_entries: usize,
        max_waiting: usize,
    ) -> Option<Self> {
        Some(Self {
            local: RwLock::new(Arc::new(sources.local)),
            providers: sources.providers,
            generation: sources.generation,
            introspection: sources.introspection,
            rules,
            cache: TokenCache::new(cache_entries),
            is_caching: cache_entries > 0,
            counters: TokenCounters::default(),
            challenges: Challenges::new(realm)?,
            waiting: Semaphore::new(max_waiting),
        })
    }

    /// Returns the claims of the request's token if the token is valid at `now`. `last` caches the
    /// connection's last token that was verified with a key.
    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        last: &LastToken,
        now: SystemTime,
    ) -> Result<Arc<Claims>, Box<ApiError>> {
        let token = self.challenges.token(headers)?;
        let now = unix_seconds(now);
        let claims = if let Some(cached) = self.cached(token, last, now) {
            self.counters.cached.add_one();
            cached
        } else {
            self.counters.verified.add_one();
            // The future of `verify_or_introspect` is boxed, so that it does not enlarge the future
            // of every request.
            Box::pin(self.verify_or_introspect(token, last, now)).await
        };
        let claims = claims.map_err(|denial| self.challenges.denied(denial))?;
        if !claims.has_linked_identity {
            return Err(self.challenges.not_linked());
        }
        Ok(claims)
    }

    /// The error response for a token without the required `scope`.
    pub(crate) fn insufficient(&self, scope: &str) -> Box<ApiError> {
        self.challenges.insufficient(scope)
    }

    /// Returns the result for a token if the result is cached.
    fn cached(
        &self,
        token: &[u8],
        last: &LastToken,
        now: f64,
    ) -> Option<Result<Arc<Claims>, Denial>> {
        if let Some(claims) = self.cached_claims(token, last) {
            let checked = claims.check_time(now).map_err(Denial::Invalid);
            return Some(checked.map(|()| claims));
        }
        self.introspection_for(token)?.cached(token, now)
    }

    /// Returns the introspection client if the token must be introspected. Returns `None` if
    /// introspection is off, or if the token is a JWT and keys are configured.
    fn introspection_for(&self, token: &[u8]) -> Option<&Introspection> {
        let is_for_keys = || self.has_keys() && Token::is_jwt(token);
        self.introspection.as_ref().filter(|_| !is_for_keys())
    }

    /// The cached claims of a token, unless a key was withdrawn since the token was verified. The
    /// caller must check whether the token has expired.
    fn cached_claims(&self, token: &[u8], last: &LastToken) -> Option<Arc<Claims>> {
        let generation = self.generation.load(Ordering::Acquire);
        let is_current = |verified: &VerifiedToken| verified.generation == generation;
        if let Some(verified) = last.get(token).filter(is_current) {
            return Some(verified.claims);
        }
        let verified = self.cache.get(token).filter(is_current)?;
        self.set_last(last, token, &verified);
        Some(verified.claims)
    }

    fn set_last(&self, last: &LastToken, token: &[u8], verified: &VerifiedToken) {
        if self.is_caching {
            last.set(token, verified);
        }
    }

    /// Verifies a token with keys or by introspection, and caches the claims of a valid token. This
    /// function may wait for a provider.
    async fn verify_or_introspect(
        &self,
        text: &[u8],
        last: &LastToken,
        now: f64,
    ) -> Result<Arc<Claims>, Denial> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TOO_LONG.into());
        }
        if let Some(introspection) = self.introspection_for(text) {
            let _permit = self.acquire_wait_permit()?;
            return introspection.claims(text, &self.rules, now).await;
        }
        let token = self.parse(text)?;
        let verified = match self.verify_with_known_keys(&token) {
            Err(VerifyError::NoKey | VerifyError::IssuerMismatch) => {
                self.verify_with_newer_keys(&token).await?
            }
            Err(VerifyError::Rejected(reason)) => return Err(reason.into()),
            Ok(verified) => verified,
        };
        verified.claims.check_time(now)?;
        let weight = verified.claims.weight();
        self.cache.insert(text, verified.clone(), weight);
        self.set_last(last, text, &verified);
        Ok(verified.claims)
    }

    /// Returns the claims of a token if the token is signed by a known key and valid at `now`.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn verify(&self, text: &[u8], now: f64) -> Result<Arc<Claims>, &'static str> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TOO_LONG);
        }
        let verified = self.verify_with_known_keys(&self.parse(text)?);
        let claims = verified.map_err(reason)?.claims;
        claims.check_time(now)?;
        Ok(claims)
    }

    fn parse<'a>(&self, text: &'a [u8]) -> Result<Token<'a>, &'static str> {
        let token = Token::parse(text)?;
        match &self.rules.typ {
            Some(typ) if !token.is_of_type(typ) => Err(WRONG_TYPE),
            _ => Ok(token),
        }
    }

    fn verify_with_known_keys(&self, token: &Token<'_>) -> Result<VerifiedToken, VerifyError> {
        // The generation is read before the keys. If a key is withdrawn after the generation is
        // read, the result has the old generation, so it is never served from the cache.
        let generation = self.generation.load(Ordering::Acquire);
        let claims = Claims::from_jwt(&self.verify_signature(token)?.claims, &self.rules);
        Ok(VerifiedToken {
            claims: Arc::new(claims.map_err(VerifyError::Rejected)?),
            generation,
        })
    }

    /// Verifies the signature with the keys from files, and then with the keys of each provider.
    /// Two providers can publish the same key. If a key has signed the token but the token names a
    /// different issuer, the keys of the remaining providers are tried too.
    fn verify_signature(&self, token: &Token<'_>) -> Result<SignedClaims, VerifyError> {
        let mut outcome = self
            .local_keys()
            .verify(token)
            .and_then(SignedClaims::check_issuer);
        for provider in &self.providers {
            let verify = || provider.verify(token).and_then(SignedClaims::check_issuer);
            outcome = match outcome {
                Ok(signed) => return Ok(signed),
                Err(VerifyError::NoKey) => verify(),
                Err(earlier) => verify().map_err(|_| earlier),
            };
        }
        outcome
    }

    /// Refreshes the keys of each provider that may have signed the token with an unknown key, and
    /// verifies the token again.
    async fn verify_with_newer_keys(&self, token: &Token<'_>) -> Result<VerifiedToken, Denial> {
        let claimed_issuer = token.claimed_issuer();
        let mut is_up_to_date = true;
        for provider in &self.providers {
            if token.has_asymmetric_algorithm()
                && provider.may_have_unknown_key(token, claimed_issuer.as_deref())
            {
                let _permit = self.acquire_wait_permit()?;
                is_up_to_date &= provider.refresh().await;
            }
        }
        self.verify_with_known_keys(token)
            .map_err(|error| match error {
                VerifyError::NoKey | VerifyError::IssuerMismatch if !is_up_to_date => {
                    Denial::Unavailable
                }
                error => Denial::Invalid(reason(error)),
            })
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
    fn has_keys(&self) -> bool {
        !self.providers.is_empty() || !self.local_keys().is_empty()
    }

    /// Replaces all keys from files. If the replacement withdraws a key, cached verifications
    /// become invalid.
    pub(crate) fn replace_local_keys(&self, keys: KeySet) {
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
    pub(crate) fn has_keys_of_all_providers(&self) -> bool {
        self.providers.iter().all(|provider| provider.has_keys())
    }

    pub(crate) fn counters(&self) -> &TokenCounters {
        &self.counters
    }

    pub(crate) fn introspection(&self) -> Option<&Introspection> {
        self.introspection.as_ref()
    }

    /// The configured providers. The keys of a provider are fetched only while its
    /// [`Provider::run`] is polled.
    pub(crate) fn providers(&self) -> &[Arc<Provider>] {
        &self.providers
    }
}

fn reason(error: VerifyError) -> &'static str {
    match error {
        VerifyError::NoKey => "The token is not signed by a trusted key.",
        VerifyError::IssuerMismatch => UNTRUSTED_ISSUER,
        VerifyError::Rejected(reason) => reason,
    }
}

/// Seconds since 1970.
fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::header::{AUTHORIZATION, HeaderValue};
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;
    use crate::http::Code;

    /// An expiry time in seconds since 1970. The signature library compares `exp` with the system
    /// clock, so the tokens in the tests must expire in the future.
    const IN_THE_FUTURE: u64 = 4_000_000_000;

    const SECRET: [u8; 32] = [b's'; 32];

    fn authenticator(entries: usize) -> Authenticator {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), SECRET).unwrap();
        let mut sources = KeySources::default();
        sources.local.add_secret_file(file.path()).unwrap();
        Authenticator::new(sources, TokenRules::default(), "prefd", entries, 1).unwrap()
    }

    fn token(user: &str, expires: u64) -> String {
        let claims = json!({"sub": user, "client_id": "c", "exp": expires});
        let key = EncodingKey::from_secret(&SECRET);
        encode(&Header::default(), &claims, &key).unwrap()
    }

    #[tokio::test]
    async fn connection_caches_its_token_only_with_the_token_cache_on() {
        for entries in [0, 10] {
            let (last, token) = (LastToken::default(), token("u", IN_THE_FUTURE));
            let authenticator = authenticator(entries);
            let claims = authenticator
                .verify_or_introspect(token.as_bytes(), &last, 0.0)
                .await
                .unwrap();
            let expected = (entries > 0).then_some(claims);
            let last = last.get(token.as_bytes());
            assert_eq!(last.map(|last| last.claims), expected);
        }
    }

    #[tokio::test]
    async fn cached_token_expires_while_its_connection_is_open() {
        let authenticator = authenticator(10);
        let last = LastToken::default();
        let authenticate = async |user: &str, expires: u64, now: u64| {
            let token = token(user, expires);
            let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
            let headers = [(AUTHORIZATION, value)].into_iter().collect();
            let now = UNIX_EPOCH + Duration::from_secs(now);
            let claims = authenticator.authenticate(&headers, &last, now).await;
            claims
                .map(|claims| claims.user.to_string())
                .map_err(|refusal| refusal.code())
        };
        let expires = IN_THE_FUTURE;
        assert_eq!(
            authenticate("u", expires, expires - 100).await,
            Ok("u".to_owned())
        );
        assert_eq!(
            authenticate("u", expires, expires + 29).await,
            Ok("u".to_owned())
        );
        assert_eq!(
            authenticate("u", expires, expires + 30).await,
            Err(Code::InvalidToken)
        );
        // A rejected token does not replace the cached valid token.
        assert_eq!(
            authenticate("v", expires - 200, expires).await,
            Err(Code::InvalidToken)
        );
        assert_eq!(
            authenticate("u", expires, expires).await,
            Ok("u".to_owned())
        );
        assert_eq!(
            authenticate("v", expires, expires).await,
            Ok("v".to_owned())
        );
        assert_eq!(
            authenticate("u", expires, expires).await,
            Ok("u".to_owned())
        );
    }

    #[tokio::test]
    async fn withdrawn_key_invalidates_its_cached_tokens() {
        let authenticator = authenticator(10);
        let (last, other) = (LastToken::default(), LastToken::default());
        let token = token("u", IN_THE_FUTURE);
        authenticator
            .verify_or_introspect(token.as_bytes(), &last, 0.0)
            .await
            .unwrap();
        assert!(
            authenticator
                .cached_claims(token.as_bytes(), &last)
                .is_some()
        );
        assert!(
            authenticator
                .cached_claims(token.as_bytes(), &other)
                .is_some()
        );
        authenticator.generation.fetch_add(1, Ordering::AcqRel);
        assert!(
            authenticator
                .cached_claims(token.as_bytes(), &last)
                .is_none()
        );
        assert!(
            authenticator
                .cached_claims(token.as_bytes(), &other)
                .is_none()
        );
    }
}
