//! Signs tokens with a local HS256 secret, for tests, scripts and `serve --dev`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

/// How long a token is valid by default.
pub(crate) const DEFAULT_TTL: Duration = Duration::from_hours(1);

/// Why a token was not signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SignError {
    #[error("cannot sign the token: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
    #[error("--ttl is too long: the expiry time in seconds does not fit into 64 bits")]
    TooLong,
}

/// The claims of a token that is to be signed, except `iat` and `exp`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct NewClaims<'a> {
    pub(crate) sub: &'a str,
    pub(crate) client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aud: Option<&'a str>,
}

#[derive(Serialize)]
struct ClaimsWithTimes<'a> {
    #[serde(flatten)]
    claims: &'a NewClaims<'a>,
    iat: u64,
    exp: u64,
}

/// Signs a token that is valid from now until `ttl` has passed.
pub(crate) fn sign(
    secret: &[u8],
    claims: &NewClaims<'_>,
    ttl: Duration,
) -> Result<String, SignError> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let claims = ClaimsWithTimes {
        claims,
        iat: now,
        exp: now.checked_add(ttl.as_secs()).ok_or(SignError::TooLong)?,
    };
    let key = EncodingKey::from_secret(secret)?;
    Ok(encode(&Header::new(Algorithm::HS256), &claims, &key)?)
}
