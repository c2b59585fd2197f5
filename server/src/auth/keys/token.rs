//! A token as it came, with its header read once: what keys are picked by.

use jsonwebtoken::{Algorithm, Header, dangerous, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::auth::keys::fault::MALFORMED;
use crate::auth::keys::key::Key;

/// A token that is a JWT by its form. Nothing in it is believed yet.
pub(crate) struct Token<'a> {
    pub(super) text: &'a [u8],
    header: Header,
}

impl<'a> Token<'a> {
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, &'static str> {
        let header = decode_header(text).map_err(|_| MALFORMED)?;
        // RFC 7515 section 4.1.11: an extension that is not understood refuses it.
        if header.crit.is_some() || has_crit(text) {
            return Err("The token's crit header names an extension that is not supported.");
        }
        Ok(Self { text, header })
    }

    /// Whether it has the form of a JWT: three parts, of which the first is a header.
    pub(crate) fn is_jwt(text: &[u8]) -> bool {
        text.split(|byte| *byte == b'.').count() == 3 && decode_header(text).is_ok()
    }

    /// The id of the key that it says has signed it.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Whether its type is `expected`, as media types are compared (RFC 7515 section
    /// 4.1.9): in any case, with or without `application/`.
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

    /// Whether one of a provider's keys can have signed it: none of those is symmetric.
    pub(crate) fn may_be_of_a_provider(&self) -> bool {
        !matches!(
            self.header.alg,
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
        )
    }

    pub(super) fn may_be_of(&self, key: &Key) -> bool {
        let same_id = match (&key.id, &self.header.kid) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        key.algorithm == self.header.alg && same_id
    }

    /// The issuer that it names, whether or not that is true: only good for choosing whom
    /// to ask.
    pub(crate) fn claimed_issuer(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Claimed {
            iss: Option<String>,
        }
        let claimed: Claimed = dangerous::insecure_decode_claims(self.text).ok()?;
        claimed.iss
    }
}

/// Whether a token's header has a `crit` at all: `decode_header` takes one that is null
/// for one that is absent. The header is decoded as if it were a token's claims, which
/// are JSON in base64url too.
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
    fn types_are_compared_as_media_types() {
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
    fn what_it_claims_is_read_without_belief() {
        let text = signed(&Header::default(), &json!({"iss": "https://i", "exp": 0}));
        let token = Token::parse(text.as_bytes()).unwrap();
        assert_eq!(token.claimed_issuer().as_deref(), Some("https://i"));
        assert!(!token.may_be_of_a_provider());
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
