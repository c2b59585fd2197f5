//! Decides for each token whether its cached response is used, and when the provider is asked.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::auth::claims::Claims;
use crate::auth::introspection::client::IntrospectionClient;
use crate::auth::introspection::credentials::Credentials;
use crate::auth::introspection::lane::{LANE_REQUESTS, Lane};
use crate::auth::introspection::responses::{ActiveToken, CachePolicy, Freshness, Responses};
use crate::auth::rules::{Denial, TokenRules};
use crate::counters::Counter;

/// Maximum number of concurrent introspection requests in both lanes.
pub(crate) const MAX_REQUESTS: usize = 2 * LANE_REQUESTS;
/// Maximum total time that a request or a renewal waits for the lock of its token and for the
/// introspection response. This time is longer than one introspection request can last, so that the
/// timeout of an introspection request is recorded. After a recorded timeout, prefd pauses
/// introspection requests.
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed renewal of a token, before the next request may renew it.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
const INACTIVE: Denial = Denial::Invalid("The token is not active.");

/// Asks a provider whether tokens are active, and caches the responses.
pub(crate) struct Introspector {
    client: IntrospectionClient,
    /// The value that `iss` must have in a response that contains `iss`. `None` if `iss` is not
    /// checked.
    issuer: Option<Arc<str>>,
    rules: Arc<TokenRules>,
    responses: Responses,
    /// For tokens about which no usable response is cached.
    unknown: Lane,
    /// For tokens that were active when the provider was last asked.
    known: Lane,
}

impl Introspector {
    /// Creates caches for about `entries` active tokens and as many refused tokens. At most
    /// `max_waiting` requests with unknown tokens, and as many with known tokens, wait for the
    /// provider at the same time.
    pub(crate) fn new(
        client: IntrospectionClient,
        issuer: Option<Arc<str>>,
        rules: Arc<TokenRules>,
        cache_policy: CachePolicy,
        entries: usize,
        max_waiting: usize,
    ) -> Self {
        Self {
            client,
            issuer,
            rules,
            responses: Responses::new(cache_policy, entries),
            unknown: Lane::new(max_waiting),
            known: Lane::new(max_waiting),
        }
    }

    /// The result for a token if a cached response can be used without waiting for the provider.
    /// Renews the response in the background if that is due.
    pub(crate) fn cached(
        self: &Arc<Self>,
        token: &[u8],
        now: f64,
    ) -> Option<Result<Arc<Claims>, Denial>> {
        match self.responses.active(token) {
            Some((active, Freshness::Fresh)) => Some(valid_at(&active.claims, now)),
            Some((active, Freshness::Renewable)) => {
                let valid = valid_at(&active.claims, now);
                if valid.is_ok() {
                    self.renew(token, active);
                }
                Some(valid)
            }
            _ => self.responses.is_refused(token).then_some(Err(INACTIVE)),
        }
    }

    /// Asks the provider about an active token in the background, unless this already happens.
    fn renew(self: &Arc<Self>, token: &[u8], active: ActiveToken) {
        let Some(text) = well_formed(token).map(str::to_owned) else {
            return;
        };
        if self.client.is_pausing() || !active.begin_renewal() {
            return;
        }
        let Some(permit) = self.known.enter() else {
            active.end_renewal();
            return;
        };
        let introspector = Arc::clone(self);
        tokio::spawn(async move {
            let renewal = async {
                let _lock = introspector.known.lock(text.as_bytes()).await;
                // While this task waited for the lock, a request may have renewed the response.
                match introspector.responses.active(text.as_bytes()) {
                    Some((_, Freshness::Fresh)) | None => true,
                    Some(_) => introspector.ask(&text).await.is_some(),
                }
            };
            let is_renewed = tokio::time::timeout(WAIT_TIMEOUT, renewal).await;
            drop(permit);
            if is_renewed != Ok(true) {
                tokio::time::sleep(RENEWAL_PAUSE).await;
                active.end_renewal();
            }
        });
    }

    /// Returns the claims of a token if the token is active and valid at `now`, in seconds since
    /// 1970. Asks the provider, unless [`Self::cached`] has a result by then. If the provider
    /// cannot be asked, a stale response is used.
    pub(crate) async fn claims(
        self: &Arc<Self>,
        token: &[u8],
        now: f64,
    ) -> Result<Arc<Claims>, Denial> {
        let text = well_formed(token).ok_or(Denial::Invalid("The token is malformed."))?;
        if self.client.is_pausing() {
            return self.stale(token, now);
        }
        let lane = match self.responses.active(token) {
            Some(_) => &self.known,
            None => &self.unknown,
        };
        let Some(_permit) = lane.enter() else {
            return self.stale(token, now);
        };
        let asked = tokio::time::timeout(WAIT_TIMEOUT, async {
            let _lock = lane.lock(token).await;
            // While this request waited for the lock, another request may have cached a response,
            // or may have found that the provider cannot be reached.
            if let Some(cached) = self.cached(token, now) {
                return Some(cached);
            }
            if self.client.is_pausing() {
                return None;
            }
            let claims = self.ask(text).await?;
            Some(claims.and_then(|claims| valid_at(&claims, now)))
        });
        match asked.await {
            Ok(Some(result)) => result,
            Ok(None) | Err(_) => self.stale(token, now),
        }
    }

    /// The cached claims of a token, for a request that gets no response from the provider.
    fn stale(&self, token: &[u8], now: f64) -> Result<Arc<Claims>, Denial> {
        match self.responses.active(token) {
            Some((active, _)) => valid_at(&active.claims, now),
            None => Err(Denial::Unavailable),
        }
    }

    /// Asks the provider about a token, and caches the result. Returns `None` if the provider sends
    /// no valid response.
    async fn ask(&self, token: &str) -> Option<Result<Arc<Claims>, Denial>> {
        let asked_at = Instant::now();
        let response = self.client.ask(token).await.ok()?;
        let claims = match response {
            None => Err(INACTIVE),
            Some(members) => {
                Claims::from_introspection(&members, self.issuer.as_deref(), &self.rules)
                    .map(Arc::new)
                    .map_err(Denial::Invalid)
            }
        };
        match &claims {
            Ok(claims) => self
                .responses
                .insert_active(token.as_bytes(), claims, asked_at),
            Err(_) => self.responses.insert_refused(token.as_bytes(), asked_at),
        }
        Some(claims)
    }

    /// Number of introspection requests, including failed ones.
    pub(crate) fn requests(&self) -> &Counter {
        self.client.requests()
    }

    pub(crate) fn failed_requests(&self) -> &Counter {
        self.client.failed_requests()
    }

    /// Uses these credentials for all further introspection requests.
    pub(crate) fn replace_credentials(&self, credentials: Credentials) {
        self.client.replace_credentials(credentials);
    }
}

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
    fn only_well_formed_tokens_are_introspected() {
        for good in ["abc", "a-._~+/Z9", "YQ==", "a.b.c"] {
            assert_eq!(well_formed(good.as_bytes()), Some(good));
        }
        for bad in ["", "=", "a b", "a=b", "a\"", "é", "a&b"] {
            assert_eq!(well_formed(bad.as_bytes()), None, "{bad}");
        }
    }
}
