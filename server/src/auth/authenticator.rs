//! From an `Authorization` header to claims: what is cached first, then the keys that are
//! known, and only then whoever else could judge the token.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::HeaderMap;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::auth::challenge::Challenges;
use crate::auth::claims::{Claims, UNTRUSTED_ISSUER, Verified};
use crate::auth::introspection::Introspection;
use crate::auth::keys::{Distrust, KeySet, Signed, Token};
use crate::auth::last_token::LastToken;
use crate::auth::provider::Provider;
use crate::auth::rules::{Denial, Rules};
use crate::auth::token_cache::TokenCache;
use crate::counters::Counter;
use crate::http::Refusal;

/// Bytes of a token, at most; what an identity provider makes is far below.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Who can say that a token is good.
#[derive(Default)]
pub(crate) struct Trust {
    /// Keys from files.
    pub(crate) local: KeySet,
    pub(crate) providers: Vec<Arc<Provider>>,
    /// Grows where a key is withdrawn.
    pub(crate) generation: Arc<AtomicU64>,
    pub(crate) introspection: Option<Introspection>,
}

/// Judges tokens.
pub(crate) struct Authenticator {
    local: RwLock<Arc<KeySet>>,
    providers: Vec<Arc<Provider>>,
    generation: Arc<AtomicU64>,
    introspection: Option<Introspection>,
    rules: Rules,
    cache: TokenCache<Verified>,
    /// Whether a token is verified once, and not each time that it comes.
    remembers: bool,
    challenges: Challenges,
    counts: Counts,
    /// Requests that may wait for a provider at a time: each keeps a place meanwhile, and
    /// anybody can send a token that nobody knows.
    waiting: Semaphore,
}

/// How tokens came to be believed, or not.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) remembered: Counter,
    pub(crate) judged: Counter,
}

impl Authenticator {
    /// `None` where the realm cannot stand in a header. `max_waiting`: requests that wait for
    /// a provider at a time.
    pub(crate) fn new(
        trust: Trust,
        rules: Rules,
        realm: &str,
        cache_entries: usize,
        max_waiting: usize,
    ) -> Option<Self> {
        Some(Self {
            local: RwLock::new(Arc::new(trust.local)),
            providers: trust.providers,
            generation: trust.generation,
            introspection: trust.introspection,
            rules,
            cache: TokenCache::new(cache_entries),
            remembers: cache_entries > 0,
            counts: Counts::default(),
            challenges: Challenges::new(realm)?,
            waiting: Semaphore::new(max_waiting),
        })
    }

    /// The claims of the request's token, which are believed at `now`. `last` is what its
    /// connection sent last.
    pub(crate) async fn authenticate(
        &self,
        headers: &HeaderMap,
        last: &LastToken,
        now: SystemTime,
    ) -> Result<Arc<Claims>, Box<Refusal>> {
        let token = self.challenges.token(headers)?;
        let now = seconds(now);
        let claims = if let Some(known) = self.known(token, last, now) {
            self.counts.remembered.add_one();
            known
        } else {
            self.counts.judged.add_one();
            // On its own, so that what it waits with is no part of every request.
            Box::pin(self.judge(token, last, now)).await
        };
        let claims = claims.map_err(|denial| self.challenges.denied(denial))?;
        if !claims.has_linked_identity {
            return Err(self.challenges.not_linked());
        }
        Ok(claims)
    }

    /// The refusal of a token that lacks `scope`.
    pub(crate) fn insufficient(&self, scope: &str) -> Box<Refusal> {
        self.challenges.insufficient(scope)
    }

    /// What is known of a token without judging it anew.
    fn known(
        &self,
        token: &[u8],
        last: &LastToken,
        now: f64,
    ) -> Option<Result<Arc<Claims>, Denial>> {
        if let Some(claims) = self.remembered(token, last) {
            let judged = claims.check_time(now).map_err(Denial::Refused);
            return Some(judged.map(|()| claims));
        }
        self.asked_about(token)?.known(token, now)
    }

    /// Who is asked about a token, where that is not for keys to judge.
    fn asked_about(&self, token: &[u8]) -> Option<&Introspection> {
        let is_for_keys = || self.has_keys() && Token::is_jwt(token);
        self.introspection.as_ref().filter(|_| !is_for_keys())
    }

    /// The claims of a token that a key has signed which is not withdrawn yet; their times
    /// are not judged.
    fn remembered(&self, token: &[u8], last: &LastToken) -> Option<Arc<Claims>> {
        let generation = self.generation.load(Ordering::Acquire);
        let is_current = |verified: &Verified| verified.generation == generation;
        if let Some(verified) = last.get(token).filter(is_current) {
            return Some(verified.claims);
        }
        let verified = self.cache.get(token).filter(is_current)?;
        self.remember(token, last, &verified);
        Some(verified.claims)
    }

    fn remember(&self, token: &[u8], last: &LastToken, verified: &Verified) {
        if self.remembers {
            last.set(token, verified);
        }
    }

    /// The claims of a token that is valid at `now`, or why there are none. May wait for
    /// its issuer.
    async fn judge(&self, text: &[u8], last: &LastToken, now: f64) -> Result<Arc<Claims>, Denial> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TOO_LONG.into());
        }
        if let Some(introspection) = self.asked_about(text) {
            let _waiting = self.wait()?;
            return introspection.claims(text, &self.rules, now).await;
        }
        let token = self.parse(text)?;
        let verified = match self.verified(&token) {
            Err(Distrust::NoKey | Distrust::OtherIssuer) => {
                self.verified_by_newer_keys(&token).await?
            }
            Err(Distrust::Because(reason)) => return Err(reason.into()),
            Ok(verified) => verified,
        };
        verified.claims.check_time(now)?;
        let weight = verified.claims.weight();
        self.cache.insert(text, verified.clone(), weight);
        self.remember(text, last, &verified);
        Ok(verified.claims)
    }

    /// The claims of a token that is valid at `now`, by the keys that are known.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn verify(&self, text: &[u8], now: f64) -> Result<Arc<Claims>, &'static str> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TOO_LONG);
        }
        let verified = self.verified(&self.parse(text)?);
        let claims = verified.map_err(reason)?.claims;
        claims.check_time(now)?;
        Ok(claims)
    }

    fn parse<'a>(&self, text: &'a [u8]) -> Result<Token<'a>, &'static str> {
        let token = Token::parse(text)?;
        match &self.rules.typ {
            Some(typ) if !token.is_of_type(typ) => Err("The token is not of the right type."),
            _ => Ok(token),
        }
    }

    /// By the keys that are known.
    fn verified(&self, token: &Token<'_>) -> Result<Verified, Distrust> {
        // Before the keys: what is judged by keys that are withdrawn meanwhile is then
        // not remembered for longer than that.
        let generation = self.generation.load(Ordering::Acquire);
        let claims = Claims::read(&self.signed(token)?.claims, &self.rules);
        Ok(Verified {
            claims: Arc::new(claims.map_err(Distrust::Because)?),
            generation,
        })
    }

    /// By a key of whoever it names: providers may share keys.
    fn signed(&self, token: &Token<'_>) -> Result<Signed, Distrust> {
        let mut outcome = self
            .local_keys()
            .verify(token)
            .and_then(Signed::of_its_issuer);
        for provider in &self.providers {
            let verify = || provider.verify(token).and_then(Signed::of_its_issuer);
            outcome = match outcome {
                Ok(signed) => return Ok(signed),
                Err(Distrust::NoKey) => verify(),
                Err(earlier) => verify().map_err(|_| earlier),
            };
        }
        outcome
    }

    /// Has providers asked for newer keys whose key may have signed the token.
    async fn verified_by_newer_keys(&self, token: &Token<'_>) -> Result<Verified, Denial> {
        let claimed_issuer = token.claimed_issuer();
        let mut is_up_to_date = true;
        for provider in &self.providers {
            if token.may_be_of_a_provider()
                && provider.may_have_key_of(token, claimed_issuer.as_deref())
            {
                let _waiting = self.wait()?;
                is_up_to_date &= provider.renew().await;
            }
        }
        self.verified(token).map_err(|distrust| match distrust {
            Distrust::NoKey | Distrust::OtherIssuer if !is_up_to_date => Denial::Unavailable,
            distrust => Denial::Refused(reason(distrust)),
        })
    }

    /// To be held while a request waits for a provider.
    fn wait(&self) -> Result<SemaphorePermit<'_>, Denial> {
        self.waiting.try_acquire().map_err(|_| Denial::Unavailable)
    }

    fn local_keys(&self) -> Arc<KeySet> {
        let keys = self.local.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keys)
    }

    fn has_keys(&self) -> bool {
        !self.providers.is_empty() || !self.local_keys().is_empty()
    }

    /// Believes these keys from files, and no others any more.
    pub(crate) fn replace_local_keys(&self, keys: KeySet) {
        let keys = Arc::new(keys);
        let mut local = self.local.write().unwrap_or_else(PoisonError::into_inner);
        let withdraws = !local.is_within(&keys);
        *local = keys;
        drop(local);
        // Behind the keys, as with those of a provider.
        if withdraws {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether each provider was reached once.
    pub(crate) fn knows_its_providers(&self) -> bool {
        self.providers.iter().all(|provider| provider.is_known())
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Who is asked about tokens, if somebody is.
    pub(crate) fn introspection(&self) -> Option<&Introspection> {
        self.introspection.as_ref()
    }

    /// Whose keys are fetched, for as long as [`Provider::run`] is polled.
    pub(crate) fn providers(&self) -> &[Arc<Provider>] {
        &self.providers
    }
}

const TOO_LONG: &str = "The token has more than 8 KiB.";

fn reason(distrust: Distrust) -> &'static str {
    match distrust {
        Distrust::NoKey => "The token is not signed by a trusted key.",
        Distrust::OtherIssuer => UNTRUSTED_ISSUER,
        Distrust::Because(reason) => reason,
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> f64 {
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

    /// Seconds since 1970. Where a signature is checked, times are held against the clock
    /// as well.
    const IN_THE_FUTURE: u64 = 4_000_000_000;

    const SECRET: [u8; 32] = [b's'; 32];

    fn remembering(entries: usize) -> Authenticator {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), SECRET).unwrap();
        let mut trust = Trust::default();
        trust.local.add_secret_file(file.path()).unwrap();
        Authenticator::new(trust, Rules::default(), "prefd", entries, 1).unwrap()
    }

    fn token(user: &str, expires: u64) -> String {
        let claims = json!({"sub": user, "client_id": "c", "exp": expires});
        let key = EncodingKey::from_secret(&SECRET);
        encode(&Header::default(), &claims, &key).unwrap()
    }

    #[tokio::test]
    async fn where_no_token_is_remembered_a_connection_has_none_either() {
        for entries in [0, 10] {
            let (last, token) = (LastToken::default(), token("u", IN_THE_FUTURE));
            let authenticator = remembering(entries);
            let claims = authenticator
                .judge(token.as_bytes(), &last, 0.0)
                .await
                .unwrap();
            let remembered = (entries > 0).then_some(claims);
            let last = last.get(token.as_bytes());
            assert_eq!(last.map(|last| last.claims), remembered);
        }
    }

    #[tokio::test]
    async fn a_connection_s_token_is_judged_by_the_clock_each_time() {
        let authenticator = remembering(10);
        let last = LastToken::default();
        let ask = async |user: &str, expires: u64, now: u64| {
            let token = token(user, expires);
            let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
            let headers = [(AUTHORIZATION, value)].into_iter().collect();
            let now = UNIX_EPOCH + Duration::from_secs(now);
            let claims = authenticator.authenticate(&headers, &last, now).await;
            claims
                .map(|claims| claims.user.clone())
                .map_err(|refusal| refusal.code())
        };
        let expires = IN_THE_FUTURE;
        assert_eq!(ask("u", expires, expires - 100).await, Ok("u".to_owned()));
        assert_eq!(ask("u", expires, expires + 29).await, Ok("u".to_owned()));
        assert_eq!(
            ask("u", expires, expires + 30).await,
            Err(Code::InvalidToken)
        );
        // One that is refused does not take the place of one that is not.
        assert_eq!(
            ask("v", expires - 200, expires).await,
            Err(Code::InvalidToken)
        );
        assert_eq!(ask("u", expires, expires).await, Ok("u".to_owned()));
        assert_eq!(ask("v", expires, expires).await, Ok("v".to_owned()));
        assert_eq!(ask("u", expires, expires).await, Ok("u".to_owned()));
    }

    #[tokio::test]
    async fn a_key_that_is_withdrawn_takes_its_tokens_with_it() {
        let authenticator = remembering(10);
        let (last, other) = (LastToken::default(), LastToken::default());
        let token = token("u", IN_THE_FUTURE);
        authenticator
            .judge(token.as_bytes(), &last, 0.0)
            .await
            .unwrap();
        assert!(authenticator.remembered(token.as_bytes(), &last).is_some());
        assert!(authenticator.remembered(token.as_bytes(), &other).is_some());
        authenticator.generation.fetch_add(1, Ordering::AcqRel);
        assert!(authenticator.remembered(token.as_bytes(), &last).is_none());
        assert!(authenticator.remembered(token.as_bytes(), &other).is_none());
    }
}
