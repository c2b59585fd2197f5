//! Tokens that only their issuer can read: it is asked what they say (RFC 7662).
//!
//! What it says is believed for a short time, good and bad alike; where it cannot be
//! asked, a good answer is believed somewhat longer. One request at a time asks about a
//! token, and a bounded number about all of them.

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
use crate::auth::outgoing::{Endpoint, Outgoing, OutgoingError};
use crate::auth::provider::{FetchError, Provider};
use crate::auth::rules::{Denial, Rules};
use crate::auth::token_cache::TokenCache;
use crate::counters::Counter;

/// Questions at a time.
pub(super) const MAX_QUESTIONS: usize = 64;
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request waits for an answer, and for its turn to ask. Longer than the other,
/// so that whoever asks learns that there is no answer, and those after it need not wait.
const PATIENCE: Duration = Duration::from_secs(10);
/// After the issuer could not be reached, it is asked again so much later: else each
/// request would wait for a connection that does not come.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// What stands for itself in a form (application/x-www-form-urlencoded).
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'*');

/// Whom to ask.
pub(crate) enum Place {
    At(Endpoint),
    /// Where its metadata says.
    Of(Arc<Provider>),
}

/// Why a file holds no credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CredentialsError {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: not one line CLIENT_ID:CLIENT_SECRET", path.display())]
    Form { path: PathBuf },
}

/// What this server says of itself when it asks.
#[derive(Clone)]
pub(crate) struct Credentials(HeaderValue);

impl Credentials {
    /// Of a file with one line, `CLIENT_ID:CLIENT_SECRET`.
    pub(crate) fn read(path: &Path) -> Result<Self, CredentialsError> {
        let text = std::fs::read_to_string(path).map_err(|source| CredentialsError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::of(text.trim_end()).ok_or_else(|| CredentialsError::Form {
            path: path.to_owned(),
        })
    }

    fn of(line: &str) -> Option<Self> {
        let (id, secret) = line.split_once(':')?;
        if id.is_empty() || secret.is_empty() || line.contains(['\n', '\r']) {
            return None;
        }
        // Section 2.3.1 of RFC 6749: encoded as in a form first.
        let pair = format!("{}:{}", encoded(id), encoded(secret));
        let value = format!("Basic {}", BASE64.encode(pair));
        let mut header = HeaderValue::try_from(value).ok()?;
        header.set_sensitive(true);
        Some(Self(header))
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, FORM).to_string()
}

/// How long answers are believed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Belief {
    pub(crate) fresh: Duration,
    /// A good one where the issuer cannot be asked; of the time of the answer, too.
    pub(crate) stale: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the provider was not reached yet, or its metadata does not say where")]
    NoPlace,
    #[error(transparent)]
    Place(#[from] FetchError),
    #[error(transparent)]
    Outgoing(#[from] OutgoingError),
    #[error("not an answer about a token: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("an answer without `active`")]
    NoActive,
}

#[derive(Clone)]
struct Answer {
    claims: Arc<Claims>,
    asked: Instant,
}

pub(crate) struct Introspection {
    place: Place,
    /// Whom an answer names that names somebody.
    issuer: Option<Arc<str>>,
    credentials: Lock<Credentials>,
    outgoing: Outgoing,
    belief: Belief,
    /// Apart from each other, so that nobody pushes good answers out with bad tokens.
    good: TokenCache<Answer>,
    bad: TokenCache<Instant>,
    /// Held while one of the tokens is asked about that fall to it.
    turns: [Mutex<()>; MAX_QUESTIONS],
    /// When the issuer could not be reached.
    failed: Lock<Option<Instant>>,
    asked: Counter,
    unanswered: Counter,
}

impl Introspection {
    /// Remembers `entries` answers of each kind.
    pub(crate) fn new(
        place: Place,
        issuer: Option<Arc<str>>,
        credentials: Credentials,
        outgoing: Outgoing,
        belief: Belief,
        entries: usize,
    ) -> Self {
        Self {
            place,
            issuer,
            credentials: Lock::new(credentials),
            outgoing,
            belief,
            good: TokenCache::new(entries),
            bad: TokenCache::new(entries),
            turns: [const { Mutex::const_new(()) }; MAX_QUESTIONS],
            failed: Lock::default(),
            asked: Counter::default(),
            unanswered: Counter::default(),
        }
    }

    /// What the token says at `now`, in seconds since 1970. May wait for its issuer.
    pub(crate) async fn claims(
        &self,
        token: &[u8],
        rules: &Rules,
        now: f64,
    ) -> Result<Arc<Claims>, Denial> {
        let text = plain(token).ok_or(Denial::Refused("The token has a malformed form."))?;
        let asked = tokio::time::timeout(PATIENCE, async {
            let _turn = self.turn_of(token).lock().await;
            // Another request may have asked meanwhile.
            match self.known(token, now) {
                Some(known) => known,
                None => self.ask(text, rules, now).await,
            }
        });
        asked.await.unwrap_or_else(|_| self.stale(token, now))
    }

    fn turn_of(&self, token: &[u8]) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        hasher.write(token);
        let index = hasher.finish() % (MAX_QUESTIONS as u64);
        let [first, ..] = &self.turns;
        let index = usize::try_from(index).unwrap_or_default();
        self.turns.get(index).unwrap_or(first)
    }

    /// What was answered lately.
    pub(crate) fn known(&self, token: &[u8], now: f64) -> Option<Result<Arc<Claims>, Denial>> {
        if let Some(answer) = self.good.get(token)
            && answer.asked.elapsed() < self.belief.fresh
        {
            return Some(at(&answer.claims, now));
        }
        let refused = self.bad.get(token)?;
        (refused.elapsed() < self.belief.fresh).then_some(Err(INACTIVE))
    }

    /// What was answered before, where the issuer cannot be asked.
    fn stale(&self, token: &[u8], now: f64) -> Result<Arc<Claims>, Denial> {
        match self.good.get(token) {
            Some(answer) if answer.asked.elapsed() < self.belief.stale => at(&answer.claims, now),
            _ => Err(Denial::Unavailable),
        }
    }

    async fn ask(&self, token: &str, rules: &Rules, now: f64) -> Result<Arc<Claims>, Denial> {
        if self.failed_lately() {
            return self.stale(token.as_bytes(), now);
        }
        let asked = Instant::now();
        self.asked.add_one();
        let answer = match self.question(token).await {
            Ok(answer) => answer,
            Err(error) => {
                self.unanswered.add_one();
                tracing::warn!(%error, "an identity provider cannot be asked about a token");
                if let AskError::Outgoing(
                    OutgoingError::Connection(_) | OutgoingError::Timeout(_),
                ) = error
                {
                    *self.failure() = Some(Instant::now());
                }
                return self.stale(token.as_bytes(), now);
            }
        };
        let token = token.as_bytes();
        let judged = match answer {
            None => Err("The token is not active."),
            Some(members) => Claims::introspected(&members, self.issuer.as_deref(), rules),
        };
        match judged {
            Ok(claims) => {
                let claims = Arc::new(claims);
                let weight = claims.weight();
                let answer = Answer {
                    claims: Arc::clone(&claims),
                    asked,
                };
                self.good.insert(token, answer, weight);
                at(&claims, now)
            }
            Err(reason) => {
                self.good.remove(token);
                self.bad.insert(token, asked, size_of::<Instant>());
                Err(Denial::Refused(reason))
            }
        }
    }

    /// Questions.
    pub(crate) fn asked(&self) -> &Counter {
        &self.asked
    }

    /// Those that were not answered.
    pub(crate) fn unanswered(&self) -> &Counter {
        &self.unanswered
    }

    /// Asks with these from now on.
    pub(crate) fn replace_credentials(&self, credentials: Credentials) {
        *self.credentials() = credentials;
    }

    fn credentials(&self) -> MutexGuard<'_, Credentials> {
        self.credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed_lately(&self) -> bool {
        self.failure().is_some_and(|at| at.elapsed() < RETRY_PAUSE)
    }

    /// The members of an answer about an active token; `None` for one that is not.
    async fn question(&self, token: &str) -> Result<Option<Map<String, Value>>, AskError> {
        let place = match &self.place {
            Place::At(endpoint) => endpoint.clone(),
            Place::Of(provider) => {
                if provider.introspection().is_none() {
                    provider.renew().await;
                }
                provider.introspection().ok_or(AskError::NoPlace)??
            }
        };
        let form = format!("token={}&token_type_hint=access_token", encoded(token));
        let Credentials(credentials) = self.credentials().clone();
        let text = self
            .outgoing
            .post(&place, credentials, form, ANSWER_TIMEOUT);
        let text = text.await?;
        let members: Map<String, Value> = serde_json::from_slice(&text)?;
        match members.get("active") {
            Some(Value::Bool(true)) => Ok(Some(members)),
            Some(Value::Bool(false)) => Ok(None),
            _ => Err(AskError::NoActive),
        }
    }
}

const INACTIVE: Denial = Denial::Refused("The token is not active.");

fn at(claims: &Arc<Claims>, now: f64) -> Result<Arc<Claims>, Denial> {
    claims.check_time(now).map_err(Denial::Refused)?;
    Ok(Arc::clone(claims))
}

/// A token in the form that every token has (RFC 6750 section 2.1, `b64token`): nothing
/// else is worth a question.
fn plain(token: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(token).ok()?;
    let body = text.trim_end_matches('=');
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
    (!body.is_empty() && body.bytes().all(is_plain)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_encoded_as_in_a_form_first() {
        let header = |line: &str| Credentials::of(line).map(|Credentials(value)| value);
        // The example of RFC 6749 section 2.3.1.
        assert_eq!(
            header("s6BhdRkqt3:gX1fBat3bV").unwrap(),
            "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW"
        );
        let odd = header("a b:c:d/é").unwrap();
        assert_eq!(
            odd,
            format!("Basic {}", BASE64.encode("a%20b:c%3Ad%2F%C3%A9"))
        );
        for bad in ["", "id", "id:", ":secret", "id:a\nb"] {
            assert!(header(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_what_can_be_a_token_is_asked_about() {
        for good in ["abc", "a-._~+/Z9", "YQ==", "a.b.c"] {
            assert_eq!(plain(good.as_bytes()), Some(good));
        }
        for bad in ["", "=", "a b", "a=b", "a\"", "é", "a&b"] {
            assert_eq!(plain(bad.as_bytes()), None, "{bad}");
        }
    }
}
