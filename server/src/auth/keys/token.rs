//! Unverified JWTs. The header of a token selects the keys that may verify the token.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde_json::{Map, Value};

use crate::auth::keys::algorithm::algorithm_named;
use crate::auth::keys::error::MALFORMED;
use crate::auth::keys::key::Key;
use crate::auth::members::Members;
use crate::auth::rules::{LEEWAY_SECONDS, unix_seconds};

/// A token in the format of a JWT: a JWS in the compact serialization (RFC 7515 section 7.1). No
/// part of the token has been verified.
pub(crate) struct Token<'a> {
    /// The part that is signed: the encoded header, a dot, and the encoded claims.
    signed: &'a [u8],
    claims: &'a [u8],
    signature: &'a str,
    header: Header,
}

struct Header {
    algorithm: Algorithm,
    key_id: Option<String>,
    typ: Option<String>,
    /// Whether the header contains `crit`, even with the value null.
    has_crit: bool,
}

impl Header {
    fn parse(encoded: &[u8]) -> Result<Self, &'static str> {
        let text = BASE64URL.decode(encoded).map_err(|_| MALFORMED)?;
        let members: Members = serde_json::from_slice(&text).map_err(|_| MALFORMED)?;
        if members.has_duplicates {
            return Err("The token's header contains a name twice.");
        }
        let string = |name: &str| match members.map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(value)) => Ok(Some(value.clone())),
            Some(_) => Err("The token's alg, kid or typ is not a string."),
        };
        let name = string("alg")?.ok_or(MALFORMED)?;
        if name.eq_ignore_ascii_case("none") {
            return Err(MALFORMED);
        }
        let algorithm =
            algorithm_named(&name).ok_or("The token's signature algorithm is not supported.")?;
        Ok(Self {
            algorithm,
            key_id: string("kid")?,
            typ: string("typ")?,
            has_crit: members.map.contains_key("crit"),
        })
    }
}

impl<'a> Token<'a> {
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, &'static str> {
        let [header, claims, signature] = split(text).ok_or(MALFORMED)?;
        let (signed, _) = text
            .split_at_checked(header.len() + 1 + claims.len())
            .ok_or(MALFORMED)?;
        let header = Header::parse(header)?;
        // The `crit` header lists extensions that the recipient must support. Since prefd supports
        // no extensions, it must reject the token (RFC 7515 section 4.1.11).
        if header.has_crit {
            return Err("The token's crit header names an extension that is not supported.");
        }
        let signature = std::str::from_utf8(signature).map_err(|_| MALFORMED)?;
        BASE64URL.decode(signature).map_err(|_| MALFORMED)?;
        Ok(Self {
            signed,
            claims,
            signature,
            header,
        })
    }

    /// Whether the text has the format of a JWT: it has three parts, and the first part is a valid
    /// header with a supported algorithm.
    pub(crate) fn is_jwt(text: &[u8]) -> bool {
        split(text).is_some_and(|[header, ..]| Header::parse(header).is_ok())
    }

    /// The id of the key that has signed the token, according to the token's header.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.header.key_id.as_deref()
    }

    /// Whether the token's `typ` is `expected`. The types are compared as media types: without
    /// regard to case, and `application/` may be omitted (RFC 7515 section 4.1.9).
    pub(crate) fn is_of_type(&self, expected: &str) -> bool {
        let short = |name: &str| {
            let name = name.to_ascii_lowercase();
            name.strip_prefix("application/")
                .unwrap_or(&name)
                .to_owned()
        };
        self.header
            .typ
            .as_deref()
            .is_some_and(|typ| short(typ) == short(expected))
    }

    /// Whether the token's algorithm is asymmetric. The keys of providers can verify only tokens
    /// with an asymmetric algorithm, because prefd never uses a symmetric key from a provider.
    pub(crate) fn has_asymmetric_algorithm(&self) -> bool {
        !matches!(
            self.header.algorithm,
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
        )
    }

    /// Whether `key` may have signed the token, according to the token's header.
    pub(super) fn matches_key(&self, key: &Key) -> bool {
        let id_matches = match (&key.id, &self.header.key_id) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        key.algorithm == self.header.algorithm && id_matches
    }

    /// Whether `key` has signed the token with `algorithm`.
    pub(super) fn is_signed_by(&self, key: &DecodingKey, algorithm: Algorithm) -> bool {
        // An error means that the key cannot be used.
        crypto::verify(self.signature, self.signed, key, algorithm).unwrap_or(false)
    }

    /// The claims of a token whose signature was verified.
    pub(super) fn verified_claims(&self) -> Result<Map<String, Value>, &'static str> {
        let claims = self
            .members()
            .ok_or("The token's claims cannot be read as a JSON object.")?;
        if claims.has_duplicates {
            return Err("The token's claims contain a name twice.");
        }
        Ok(claims.map)
    }

    /// The claims of the token, which are not verified. Use them only to choose the keys that are
    /// tried and the providers whose keys are fetched.
    pub(crate) fn unverified_claims(&self) -> UnverifiedClaims {
        UnverifiedClaims(self.members().unwrap_or_default().map)
    }

    fn members(&self) -> Option<Members> {
        let text = BASE64URL.decode(self.claims).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

/// Claims that were not verified.
pub(crate) struct UnverifiedClaims(Map<String, Value>);

impl UnverifiedClaims {
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.0.get("iss")?.as_str()
    }

    /// Whether the token has not expired at `now`, and may have been issued after `time`, up to the
    /// tolerated clock difference. If `iat` is missing, the token may have been issued at any time.
    pub(crate) fn may_be_issued_since(&self, time: Option<SystemTime>, now: f64) -> bool {
        let seconds = |claim: &str| self.0.get(claim).and_then(Value::as_f64);
        let is_expired = seconds("exp").is_some_and(|exp| now >= exp + LEEWAY_SECONDS);
        let is_older = match (seconds("iat"), time) {
            (Some(issued), Some(time)) => issued + LEEWAY_SECONDS < unix_seconds(time),
            _ => false,
        };
        !is_expired && !is_older
    }
}

/// The three parts of a JWT.
fn split(text: &[u8]) -> Option<[&[u8]; 3]> {
    let mut parts = text.split(|byte| *byte == b'.');
    let found = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use jsonwebtoken::{EncodingKey, Header as JwtHeader, encode};
    use serde_json::json;

    use super::*;

    fn signed(header: &JwtHeader, claims: &Value) -> String {
        let key = EncodingKey::from_secret(&[7; 32]).unwrap();
        encode(header, claims, &key).unwrap()
    }

    #[test]
    fn token_types_are_compared_as_media_types() {
        let is_of_type = |typ: Option<&str>| {
            let mut header = JwtHeader::new(Algorithm::HS256);
            header.typ = typ.map(str::to_owned);
            let text = signed(&header, &json!({}));
            Token::parse(text.as_bytes()).unwrap().is_of_type("at+jwt")
        };
        for typ in [
            "at+jwt",
            "AT+JWT",
            "application/at+jwt",
            "Application/AT+jwt",
        ] {
            assert!(is_of_type(Some(typ)), "{typ}");
        }
        for typ in [
            "JWT",
            "at",
            "x/at+jwt",
            "",
            "at+jwt ",
            "application/application/at+jwt",
        ] {
            assert!(!is_of_type(Some(typ)), "{typ}");
        }
        assert!(!is_of_type(None));
    }

    #[test]
    fn only_an_unexpired_recent_token_may_have_a_newer_key() {
        let fetched = Some(UNIX_EPOCH + Duration::from_secs(1_000));
        for (claims, expected) in [
            (json!({"iat": 1_000, "exp": 2_000}), true),
            (json!({"iat": 970, "exp": 2_000}), true),
            (json!({"iat": 969, "exp": 2_000}), false),
            (json!({"exp": 2_000}), true),
            (json!({"iat": "later", "exp": 2_000}), true),
            (json!({"iat": 1_000, "exp": 1_070}), false),
        ] {
            let claims = UnverifiedClaims(claims.as_object().unwrap().clone());
            let found = claims.may_be_issued_since(fetched, 1_100.0);
            assert_eq!(found, expected, "{:?}", claims.0);
        }
    }

    #[test]
    fn unverified_token_shows_its_issuer_and_format() {
        let text = signed(
            &JwtHeader::default(),
            &json!({"iss": "https://i", "exp": 0}),
        );
        let token = Token::parse(text.as_bytes()).unwrap();
        assert_eq!(token.unverified_claims().issuer(), Some("https://i"));
        assert!(!token.has_asymmetric_algorithm());
        for claims in [json!({}), json!({"iss": 7}), json!([])] {
            let text = signed(&JwtHeader::default(), &claims);
            let token = Token::parse(text.as_bytes()).unwrap();
            assert_eq!(token.unverified_claims().issuer(), None, "{claims}");
        }
        assert!(Token::is_jwt(text.as_bytes()));
        for opaque in ["", "opaque", "a.b.c", "..", &format!("{text}.x")] {
            assert!(!Token::is_jwt(opaque.as_bytes()), "{opaque}");
        }
    }

    /// The reason why a token with this header is rejected before its signature is checked.
    fn reason(header: &Value) -> Option<&'static str> {
        let part = |value: &Value| BASE64URL.encode(value.to_string());
        let text = format!("{}.{}.AAAA", part(header), part(&json!({})));
        Token::parse(text.as_bytes()).err()
    }

    #[test]
    fn rejected_header_is_described_by_its_true_fault() {
        let unsupported = Some("The token's signature algorithm is not supported.");
        for alg in ["ES512", "ES256K", "Ed448", ""] {
            assert_eq!(reason(&json!({"alg": alg})), unsupported, "{alg}");
        }
        for alg in ["EdDSA", "Ed25519", "PS512"] {
            assert_eq!(reason(&json!({"alg": alg})), None, "{alg}");
        }
        for unsigned in [
            json!({"alg": "none"}),
            json!({"alg": "nOnE"}),
            json!({}),
            json!([]),
        ] {
            assert_eq!(reason(&unsigned), Some(MALFORMED), "{unsigned}");
        }
        let wrong_type = Some("The token's alg, kid or typ is not a string.");
        assert_eq!(reason(&json!({"alg": "ES256", "kid": 7})), wrong_type);
        assert_eq!(
            reason(&json!({"alg": "ES256", "kid": null, "typ": null})),
            None
        );
        let twice = BASE64URL.encode(r#"{"alg": "ES256", "kid": "a", "kid": "b"}"#);
        let text = format!("{twice}.e30.AAAA");
        let found = Token::parse(text.as_bytes()).err();
        assert_eq!(found, Some("The token's header contains a name twice."));
    }
}
