//! Unverified JWTs. The header of a token selects the keys that may verify the token.

use jsonwebtoken::{Algorithm, Header, dangerous, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::auth::keys::error::MALFORMED;
use crate::auth::keys::key::Key;

/// A token in the format of a JWT. No part of the token has been verified.
pub(crate) struct Token<'a> {
    pub(super) text: &'a [u8],
    header: Header,
}

impl<'a> Token<'a> {
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, &'static str> {
        let header = decode_header(text).map_err(|_| MALFORMED)?;
        // The `crit` header lists extensions that the recipient must support. Since prefd supports
        // no extensions, it must reject the token (RFC 7515 section 4.1.11).
        if header.crit.is_some() || has_crit(text) {
            return Err("The token's crit header names an extension that is not supported.");
        }
        Ok(Self { text, header })
    }

    /// Whether the text has the format of a JWT: it has three parts, and the first part is a valid
    /// header.
    pub(crate) fn is_jwt(text: &[u8]) -> bool {
        text.split(|byte| *byte == b'.').count() == 3 && decode_header(text).is_ok()
    }

    /// The id of the key that has signed the token, according to the token's header.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
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
            self.header.alg,
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
        )
    }

    /// Whether `key` may have signed the token, according to the token's header.
    pub(super) fn matches_key(&self, key: &Key) -> bool {
        let id_matches = match (&key.id, &self.header.kid) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        key.algorithm == self.header.alg && id_matches
    }

    /// The issuer that the unverified token names. Use this issuer only to choose the providers
    /// whose keys are fetched.
    pub(crate) fn claimed_issuer(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Claimed {
            iss: Option<String>,
        }
        let claimed: Claimed = dangerous::insecure_decode_claims(self.text).ok()?;
        claimed.iss
    }
}

/// Whether a token's header has a `crit` member. `decode_header` does not distinguish a null member
/// from an absent member. The header is therefore decoded as claims, which have the same encoding
/// as a header: JSON in base64url.
fn has_crit(token: &[u8]) -> bool {
    let header = token.split(|byte| *byte == b'.').next().unwrap_or_default();
    let members: Result<Map<String, Value>, _> =
        dangerous::insecure_decode_claims([b".", header, b"."].concat());
    members.is_ok_and(|members| members.contains_key("crit"))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, encode};
    use serde_json::json;

    use super::*;

    fn signed(header: &Header, claims: &Value) -> String {
        encode(header, claims, &EncodingKey::from_secret(&[7; 32])).unwrap()
    }

    #[test]
    fn token_types_are_compared_as_media_types() {
        let is_of_type = |typ: Option<&str>| {
            let mut header = Header::new(Algorithm::HS256);
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
    fn unverified_token_shows_its_issuer_and_format() {
        let text = signed(&Header::default(), &json!({"iss": "https://i", "exp": 0}));
        let token = Token::parse(text.as_bytes()).unwrap();
        assert_eq!(token.claimed_issuer().as_deref(), Some("https://i"));
        assert!(!token.has_asymmetric_algorithm());
        for claims in [json!({}), json!({"iss": 7}), json!([])] {
            let text = signed(&Header::default(), &claims);
            let token = Token::parse(text.as_bytes()).unwrap();
            assert_eq!(token.claimed_issuer(), None, "{claims}");
        }
        assert!(Token::is_jwt(text.as_bytes()));
        for opaque in ["", "opaque", "a.b.c", "..", &format!("{text}.x")] {
            assert!(!Token::is_jwt(opaque.as_bytes()), "{opaque}");
        }
    }
}
