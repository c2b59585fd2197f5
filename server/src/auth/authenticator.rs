//! Verifies the token of a request, and returns the token's claims.
//!
//! The cheapest source is tried first: the last token of the connection, then the token cache, then
//! the known keys. A request waits for newer keys from a provider only if the known keys cannot
//! verify its token. If the token requires introspection, the request waits for the provider unless
//! a cached response exists.

use std::sync::Arc;
use std::time::SystemTime;

use hyper::header::HeaderMap;

use crate::auth::challenge::Challenges;
use crate::auth::claims::{Claims, VerifiedToken};
use crate::auth::introspection::Introspector;
#[cfg(feature = "fuzzing")]
use crate::auth::keys::VerifyError;
use crate::auth::keys::{KeySet, Token};
use crate::auth::last_token::LastToken;
use crate::auth::provider::Provider;
use crate::auth::rules::{Denial, TokenRules, unix_seconds};
use crate::auth::scope::Access;
use crate::auth::token_cache::TokenCache;
use crate::auth::trusted_keys::TrustedKeys;
use crate::counters::Counter;
use crate::http::ApiError;

const WRONG_TYPE: &str = "The token's typ is not the required one.";

/// Verifies the bearer token of each request.
pub(crate) struct Authenticator {
    keys: TrustedKeys,
    introspection: Option<Arc<Introspector>>,
    rules: Arc<TokenRules>,
    cache: TokenCache<VerifiedToken>,
    /// False if the operator has turned the token cache off. If the token cache is off, connections
    /// do not cache their last token either.
    is_caching: bool,
    challenges: Challenges,
    counters: TokenCounters,
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
    /// Returns `None` if the realm contains characters that are not allowed in a header.
    pub(crate) fn new(
        keys: TrustedKeys,
        introspection: Option<Arc<Introspector>>,
        rules: Arc<TokenRules>,
        realm: &str,
        cache_entries: usize,
    ) -> Option<Self> {
        Some(Self {
            keys,
            introspection,
            rules,
            cache: TokenCache::new(cache_entries),
            is_caching: cache_entries > 0,
            counters: TokenCounters::default(),
            challenges: Challenges::new(realm)?,
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

    /// Checks that a token with these claims may access the namespace of `client_id`.
    pub(crate) fn authorize(
        &self,
        claims: &Claims,
        access: Access,
        client_id: &str,
    ) -> Result<(), Box<ApiError>> {
        access
            .check(claims, client_id, self.rules.needs_own_scope)
            .map_err(|missing| self.challenges.insufficient(&missing))
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
    fn introspection_for(&self, token: &[u8]) -> Option<&Arc<Introspector>> {
        let is_for_keys = || self.keys.has_keys() && Token::is_jwt(token);
        self.introspection.as_ref().filter(|_| !is_for_keys())
    }

    /// The cached claims of a token, unless a key was withdrawn since the token was verified. The
    /// caller must check whether the token has expired.
    fn cached_claims(&self, token: &[u8], last: &LastToken) -> Option<Arc<Claims>> {
        let generation = self.keys.generation();
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
        let max_bytes = self.rules.max_token_bytes;
        if text.len() > max_bytes {
            return Err(Denial::TooLong(max_bytes));
        }
        if let Some(introspection) = self.introspection_for(text) {
            return introspection.claims(text, now).await;
        }
        let token = self.parse(text)?;
        let verified = self.keys.verify(&token, &self.rules, now).await?;
        verified.claims.check_time(now)?;
        let weight = verified.claims.weight();
        self.cache.insert(text, verified.clone(), weight);
        self.set_last(last, text, &verified);
        Ok(verified.claims)
    }

    /// Returns the claims of a token if the token is signed by a known key and valid at `now`.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn verify(&self, text: &[u8], now: f64) -> Result<Arc<Claims>, &'static str> {
        if text.len() > self.rules.max_token_bytes {
            return Err("The token is too long.");
        }
        let token = self.parse(text)?;
        let unverified = token.unverified_claims();
        let verified = self
            .keys
            .verify_with_known_keys(&token, &unverified, &self.rules);
        let claims = verified.map_err(VerifyError::reason)?.claims;
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

    /// Replaces all keys from files. If the replacement withdraws a key, cached verifications
    /// become invalid.
    pub(crate) fn replace_local_keys(&self, keys: KeySet) {
        self.keys.replace_local_keys(keys);
    }

    /// Whether the keys of every provider have been fetched at least once.
    pub(crate) fn has_keys_of_all_providers(&self) -> bool {
        self.keys.has_keys_of_all_providers()
    }

    pub(crate) fn counters(&self) -> &TokenCounters {
        &self.counters
    }

    pub(crate) fn introspection(&self) -> Option<&Introspector> {
        self.introspection.as_deref()
    }

    /// The configured providers. The keys of a provider are fetched only while its
    /// [`Provider::run`] is polled.
    pub(crate) fn providers(&self) -> &[Arc<Provider>] {
        self.keys.providers()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

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
        let mut keys = KeySet::default();
        keys.add_secret_file(file.path()).unwrap();
        let keys = TrustedKeys::new(keys, Vec::new(), Arc::default(), 1);
        Authenticator::new(keys, None, Arc::default(), "prefd", entries).unwrap()
    }

    fn token(user: &str, expires: u64) -> String {
        let claims = json!({"sub": user, "client_id": "c", "exp": expires});
        let key = EncodingKey::from_secret(&SECRET).unwrap();
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
        authenticator.replace_local_keys(KeySet::default());
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
