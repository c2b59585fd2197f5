//! Who asks: from an `Authorization` header to a user, a client and scopes.
//!
//! A resource server (RFC 6750, 7519, 8725): keys are the operator's, one algorithm
//! for each key, and nothing in a token chooses either.

mod cache;
mod claims;
pub(crate) mod keys;
mod last;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::error::{Code, Refusal};
use cache::TokenCache;
pub(crate) use claims::ClaimNames;
pub(crate) use claims::Claims;
use keys::KeySet;
pub(crate) use last::LastToken;

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
    /// Whether a token is verified once, and not each time that it comes.
    remembers: bool,
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
            remembers: cache_entries > 0,
            challenges: Challenges {
                plain: HeaderValue::try_from(&realm).ok()?,
                invalid_token: HeaderValue::try_from(format!("{realm}, error=\"invalid_token\""))
                    .ok()?,
                realm,
            },
        })
    }

    /// The claims of the request's token, which are believed at `now`. `last` is what its
    /// connection sent last.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        last: &LastToken,
        now: SystemTime,
    ) -> Result<Arc<Claims>, Box<Refusal>> {
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
        let claims = self.claims(token, last, seconds(now)).map_err(|reason| {
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

    fn claims(
        &self,
        token: &[u8],
        last: &LastToken,
        now: f64,
    ) -> Result<Arc<Claims>, &'static str> {
        if let Some(claims) = last.get(token) {
            claims.check_time(now)?;
            return Ok(claims);
        }
        let claims = self.verify(token, now)?;
        if self.remembers {
            last.set(token, &claims);
        }
        Ok(claims)
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
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    /// Seconds since 1970. Where a signature is checked, times are held against the clock
    /// as well.
    const IN_THE_FUTURE: u64 = 4_000_000_000;

    const SECRET: [u8; 32] = [b's'; 32];

    fn remembering(entries: usize) -> Authenticator {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), SECRET).unwrap();
        let mut keys = KeySet::default();
        keys.add_secret_file(file.path()).unwrap();
        Authenticator::new(keys, Rules::default(), "prefd", entries).unwrap()
    }

    fn token(user: &str, expires: u64) -> String {
        let claims = json!({"sub": user, "client_id": "c", "exp": expires});
        let key = EncodingKey::from_secret(&SECRET);
        encode(&Header::default(), &claims, &key).unwrap()
    }

    #[test]
    fn where_no_token_is_remembered_a_connection_has_none_either() {
        for entries in [0, 10] {
            let (last, token) = (LastToken::default(), token("u", IN_THE_FUTURE));
            let authenticator = remembering(entries);
            let claims = authenticator.claims(token.as_bytes(), &last, 0.0).unwrap();
            let remembered = (entries > 0).then_some(claims);
            assert_eq!(last.get(token.as_bytes()), remembered);
        }
    }

    #[test]
    fn a_connection_s_token_is_judged_by_the_clock_each_time() {
        let authenticator = remembering(10);
        let last = LastToken::default();
        let ask = |user: &str, expires: u64, now: u64| {
            let token = token(user, expires);
            let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
            let headers = [(AUTHORIZATION, value)].into_iter().collect();
            let now = UNIX_EPOCH + Duration::from_secs(now);
            let claims = authenticator.authenticate(&headers, &last, now);
            claims
                .map(|claims| claims.user.clone())
                .map_err(|refusal| refusal.code())
        };
        let expires = IN_THE_FUTURE;
        assert_eq!(ask("u", expires, expires - 100), Ok("u".to_owned()));
        assert_eq!(ask("u", expires, expires + 29), Ok("u".to_owned()));
        assert_eq!(ask("u", expires, expires + 30), Err(Code::InvalidToken));
        // One that is refused does not take the place of one that is not.
        assert_eq!(ask("v", expires - 200, expires), Err(Code::InvalidToken));
        assert_eq!(ask("u", expires, expires), Ok("u".to_owned()));
        assert_eq!(ask("v", expires, expires), Ok("v".to_owned()));
        assert_eq!(ask("u", expires, expires), Ok("u".to_owned()));
    }
}
