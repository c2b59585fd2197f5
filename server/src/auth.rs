//! Who asks: from an `Authorization` header to a user, a client and scopes.
//!
//! A resource server (RFC 6750, 7519, 8725): keys are the operator's, one algorithm
//! for each key, and nothing in a token chooses either.

mod cache;
mod claims;
pub(crate) mod keys;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::error::{Code, Refusal};
use cache::TokenCache;
pub(crate) use claims::ClaimNames;
pub(crate) use claims::Claims;
use keys::KeySet;

/// Bytes of a token, at most; what an identity provider makes is far below.
const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Seconds that clocks may differ.
const LEEWAY_SECONDS: f64 = 30.0;

/// What a token must say to be believed, besides its signature.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) issuer: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) names: ClaimNames,
    /// The claim that a linked identity shows in, where one is required.
    pub(crate) linked_identity_claim: Option<String>,
}

/// Judges tokens.
pub(crate) struct Authenticator {
    keys: KeySet,
    rules: Rules,
    cache: TokenCache,
    challenges: Challenges,
}

/// The `WWW-Authenticate` headers, which differ only in the realm.
struct Challenges {
    realm: String,
    plain: HeaderValue,
    invalid_token: HeaderValue,
}

impl Authenticator {
    /// `None` where the realm cannot stand in a header.
    pub(crate) fn new(
        keys: KeySet,
        rules: Rules,
        realm: &str,
        cache_entries: usize,
    ) -> Option<Self> {
        let realm = format!(
            "Bearer realm=\"{}\"",
            realm.replace('\\', "\\\\").replace('"', "\\\"")
        );
        Some(Self {
            keys,
            rules,
            cache: TokenCache::new(cache_entries),
            challenges: Challenges {
                plain: HeaderValue::try_from(&realm).ok()?,
                invalid_token: HeaderValue::try_from(format!("{realm}, error=\"invalid_token\""))
                    .ok()?,
                realm,
            },
        })
    }

    /// The claims of the request's token.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Claims>, Box<Refusal>> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let header = values.next();
        if values.next().is_some() {
            return Err(Refusal::new(
                Code::InvalidRequest,
                "There is more than one Authorization header.",
            )
            .at_header("Authorization"));
        }
        let token = header.and_then(bearer).ok_or_else(|| {
            Refusal::new(
                Code::MissingToken,
                "The request has no Authorization header with a Bearer token.",
            )
            .challenge(self.challenges.plain.clone())
        })?;
        let claims = self.verify(token, now()).map_err(|reason| {
            Refusal::new(Code::InvalidToken, reason)
                .at_header("Authorization")
                .challenge(self.challenges.invalid_token.clone())
        })?;
        if !claims.has_linked_identity {
            return Err(Refusal::new(
                Code::MissingLinkedIdentity,
                "Linked identity is needed to access this resource, please check why the \
                 user does not have a linked identity",
            )
            .challenge(self.challenges.plain.clone()));
        }
        Ok(claims)
    }

    /// The refusal of a token that lacks `scope`.
    pub(crate) fn insufficient(&self, scope: &str) -> Box<Refusal> {
        let refusal = Refusal::new(
            Code::InsufficientScope,
            format!("The token is not of this client and does not have the scope {scope}."),
        );
        // A scope token is visible ASCII without quote and backslash (RFC 6749,
        // section 3.3); a clientId with anything else has no scope that could be told.
        let tellable = scope
            .bytes()
            .all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        let challenge = if tellable {
            format!(
                "{}, error=\"insufficient_scope\", scope=\"{scope}\"",
                self.challenges.realm
            )
        } else {
            format!("{}, error=\"insufficient_scope\"", self.challenges.realm)
        };
        match HeaderValue::try_from(challenge) {
            Ok(challenge) => refusal.challenge(challenge),
            Err(_) => refusal.challenge(self.challenges.plain.clone()),
        }
    }

    /// The claims of a token that is valid at `now`, or why it is not.
    pub(crate) fn verify(&self, token: &[u8], now: f64) -> Result<Arc<Claims>, &'static str> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err("The token has more than 8 KiB.");
        }
        if let Some(claims) = self.cache.get(token) {
            claims.check_time(now)?;
            return Ok(claims);
        }
        let verified = self.keys.verify(token)?;
        let claims = Arc::new(Claims::read(&verified, &self.rules)?);
        claims.check_time(now)?;
        self.cache.insert(token, &claims);
        Ok(claims)
    }
}

/// The token of a `Bearer` header (RFC 6750 section 2.1; the scheme's case does not
/// matter, RFC 9110 section 11.1).
fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked("Bearer".len())?;
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return None;
    }
    match token.first() {
        None => Some(token),
        Some(b' ') => Some(token.trim_ascii()),
        Some(_) => None,
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
