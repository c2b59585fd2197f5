//! Sets of keys that are read from files or published by an identity provider.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Map, Value};

use crate::auth::keys::error::{
    KeyError, KeyFault, MALFORMED, MAX_PROVIDER_KEYS, MIN_SECRET_BYTES, VerifyError,
};
use crate::auth::keys::jwks;
use crate::auth::keys::key::{Key, NewKey};
use crate::auth::keys::pem;
use crate::auth::keys::token::Token;
use crate::auth::rules::LEEWAY_SECONDS;

/// Keys that verify tokens. Either all keys of a set belong to one issuer, or the issuer of a token
/// is not checked.
#[derive(Default)]
pub(crate) struct KeySet {
    /// The value that the `iss` claim of a token must have if one of these keys has signed the
    /// token. `None` if `iss` is not checked.
    issuer: Option<Arc<str>>,
    keys: Vec<Key>,
}

/// The claims of a token with a valid signature.
pub(crate) struct SignedClaims {
    pub(crate) claims: Map<String, Value>,
    /// The value that the `iss` claim must have. `None` if `iss` is not checked.
    issuer: Option<Arc<str>>,
}

impl SignedClaims {
    /// Checks that the `iss` claim names the issuer whose key has signed the token.
    pub(crate) fn check_issuer(self) -> Result<Self, VerifyError> {
        let named = self.claims.get("iss").and_then(Value::as_str);
        match &self.issuer {
            Some(issuer) if named != Some(&**issuer) => Err(VerifyError::IssuerMismatch),
            _ => Ok(self),
        }
    }
}

impl KeySet {
    /// Creates an empty set. If `issuer` is given, tokens that these keys verify must have this
    /// issuer in their `iss` claim.
    pub(crate) fn for_issuer(issuer: Option<Arc<str>>) -> Self {
        Self {
            issuer,
            keys: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn has_key_id(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Whether `other` contains all keys of this set.
    pub(crate) fn is_subset_of(&self, other: &Self) -> bool {
        self.keys.iter().all(|key| {
            other.keys.iter().any(|other| {
                (&key.id, key.algorithm, &key.material)
                    == (&other.id, other.algorithm, &other.material)
            })
        })
    }

    fn push(&mut self, key: NewKey) {
        let mut validation = Validation::new(key.algorithm);
        // The file `claims.rs` checks `aud`, `exp` and `nbf` exactly as documented. In addition,
        // the signature library checks `exp` and `nbf`, with a leeway that is one second longer
        // than `LEEWAY_SECONDS`.
        validation.validate_aud = false;
        validation.validate_nbf = true;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an integer number of seconds; one more, because the library rounds times"
        )]
        {
            validation.leeway = LEEWAY_SECONDS as u64 + 1;
        }
        self.keys.push(Key {
            id: key.id,
            algorithm: key.algorithm,
            decoding: key.decoding,
            validation,
            material: key.material,
        });
    }

    /// Adds an HS256 secret. The secret consists of the bytes of the file without a final line
    /// break. Blocks.
    pub(crate) fn add_secret_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let bytes = read(path)?;
        let secret = secret_of(&bytes);
        if secret.len() < MIN_SECRET_BYTES {
            let found = secret.len();
            return Err(unusable(path)(KeyFault::ShortSecret { found }));
        }
        self.push(NewKey {
            id: None,
            algorithm: Algorithm::HS256,
            decoding: DecodingKey::from_secret(secret),
            material: secret.to_vec(),
        });
        Ok(())
    }

    /// Adds a PEM public key. An RSA key is used with RS256, a P-256 key with ES256, a P-384 key
    /// with ES384, and an Ed25519 key with EdDSA. Blocks.
    pub(crate) fn add_public_key_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let pem = read(path)?;
        let (algorithm, decoding) = pem::public_key(&pem).map_err(unusable(path))?;
        self.push(NewKey {
            id: None,
            algorithm,
            decoding,
            material: pem,
        });
        Ok(())
    }

    /// Adds the signature keys of a JSON Web Key Set in a file. If the set contains a key that must
    /// not be used, the call fails, so that the operator can correct the file. Blocks.
    pub(crate) fn add_jwks_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let text = read(path)?;
        let found = jwks::signature_keys(&text).map_err(unusable(path))?;
        if let Some(fault) = found.faults.into_iter().next() {
            return Err(unusable(path)(fault));
        }
        if found.keys.is_empty() {
            return Err(unusable(path)(KeyFault::NoUsableKey));
        }
        for key in found.keys {
            self.push(key);
        }
        Ok(())
    }

    /// Reads a provider's JSON Web Key Set. Returns the signature keys, and the faults of the keys
    /// that must not be used. A faulty key does not prevent the use of the other keys in the set.
    ///
    /// A set without usable keys is not an error, because it means that the provider has withdrawn
    /// its keys.
    pub(crate) fn from_provider_jwks(
        issuer: Option<Arc<str>>,
        text: &[u8],
    ) -> Result<(Self, Vec<KeyFault>), KeyFault> {
        let jwks::SignatureKeys {
            mut keys,
            mut faults,
        } = jwks::signature_keys(text)?;
        if keys.len() > MAX_PROVIDER_KEYS {
            keys.truncate(MAX_PROVIDER_KEYS);
            faults.push(KeyFault::TooManyKeys);
        }
        if keys.is_empty() {
            faults.push(KeyFault::NoUsableKey);
        }
        let mut set = Self::for_issuer(issuer);
        for key in keys {
            set.push(key);
        }
        Ok((set, faults))
    }

    /// Checks a token's signature, `exp` and `nbf`. Tries the keys that match the token's header
    /// one after the other, until one of them verifies the token.
    pub(crate) fn verify(&self, token: &Token<'_>) -> Result<SignedClaims, VerifyError> {
        let mut outcome = Err(VerifyError::NoKey);
        for key in self.keys.iter().filter(|key| token.matches_key(key)) {
            match decode::<Map<String, Value>>(token.text, &key.decoding, &key.validation) {
                Ok(verified) => {
                    return Ok(SignedClaims {
                        claims: verified.claims,
                        issuer: self.issuer.clone(),
                    });
                }
                Err(error) => {
                    use jsonwebtoken::errors::ErrorKind as Kind;
                    let reason = match error.kind() {
                        Kind::InvalidSignature => continue,
                        Kind::ExpiredSignature => "The token has expired.",
                        Kind::ImmatureSignature => "The token is not valid yet.",
                        Kind::MissingRequiredClaim(_) => {
                            "The token's exp is missing or is not a number of seconds."
                        }
                        Kind::InvalidClaimFormat(_) => {
                            "The token's exp or nbf is not a number of seconds."
                        }
                        _ => MALFORMED,
                    };
                    outcome = Err(VerifyError::Rejected(reason));
                }
            }
        }
        outcome
    }
}

fn unusable(path: &Path) -> impl FnOnce(KeyFault) -> KeyError {
    let path = path.to_owned();
    move |fault| KeyError::Unusable { path, fault }
}

/// The secret in a file. A final line break is not part of the secret, because many editors add
/// one.
pub(crate) fn secret_of(file: &[u8]) -> &[u8] {
    let secret = file.strip_suffix(b"\n").unwrap_or(file);
    secret.strip_suffix(b"\r").unwrap_or(secret)
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    fs::read(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &[u8] = b"of the unit tests, and of 32 bytes";
    const ED_25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAcn3valyAfEPsVWfkHQlPacQKW7hQ2xWXH1tYH27aWFI=
-----END PUBLIC KEY-----
";

    #[test]
    fn secret_file_loses_only_its_final_line_break() {
        assert_eq!(secret_of(b"a\n"), b"a");
        assert_eq!(secret_of(b"a\r\n"), b"a");
        assert_eq!(secret_of(b" a\n\n"), b" a\n");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [b'x'; 32]).unwrap();
        assert!(KeySet::default().add_secret_file(file.path()).is_ok());
        fs::write(file.path(), [&[b'x'; 31][..], b"\n"].concat()).unwrap();
        let short = KeySet::default().add_secret_file(file.path());
        let Err(KeyError::Unusable { fault, .. }) = short else {
            panic!("{short:?}");
        };
        assert!(matches!(fault, KeyFault::ShortSecret { found: 31 }));
    }

    #[test]
    fn token_of_another_issuer_than_its_key_is_rejected() {
        let named = |issuer: Option<&str>, iss: Value| {
            let claims = json!({ "iss": iss });
            let signed = SignedClaims {
                claims: claims.as_object().unwrap().clone(),
                issuer: issuer.map(Arc::from),
            };
            signed.check_issuer().map(drop)
        };
        assert_eq!(named(Some("https://i"), json!("https://i")), Ok(()));
        assert_eq!(named(None, json!("https://j")), Ok(()));
        for iss in [
            json!("https://i/"),
            json!(["https://i"]),
            json!(null),
            json!("HTTPS://i"),
        ] {
            let rejected = named(Some("https://i"), iss.clone());
            assert_eq!(rejected, Err(VerifyError::IssuerMismatch), "{iss}");
        }
    }

    #[test]
    fn token_cannot_choose_its_key_or_algorithm() {
        let mut keys = KeySet::default();
        keys.push(NewKey {
            id: Some("a".to_owned()),
            algorithm: Algorithm::HS256,
            decoding: DecodingKey::from_secret(SECRET),
            material: SECRET.to_vec(),
        });
        keys.push(NewKey {
            id: None,
            algorithm: Algorithm::EdDSA,
            decoding: DecodingKey::from_ed_pem(ED_25519.as_bytes()).unwrap(),
            material: ED_25519.into(),
        });
        let sign = |algorithm, id: Option<&str>, secret: &[u8]| {
            let mut header = Header::new(algorithm);
            header.kid = id.map(str::to_owned);
            // A server that follows `jku` would fetch the attacker's key.
            header.jku = Some("https://example.com/keys".to_owned());
            let claims = json!({"sub": "u", "exp": 4_000_000_000_u64});
            encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap()
        };
        let verify = |token: String| {
            keys.verify(&Token::parse(token.as_bytes()).unwrap())
                .map(|signed| signed.claims["sub"].clone())
        };
        assert_eq!(
            verify(sign(Algorithm::HS256, Some("a"), SECRET)),
            Ok(json!("u"))
        );
        assert_eq!(verify(sign(Algorithm::HS256, None, SECRET)), Ok(json!("u")));
        for rejected in [
            sign(Algorithm::HS256, Some("b"), SECRET),
            sign(Algorithm::HS384, Some("a"), SECRET),
            sign(
                Algorithm::HS256,
                None,
                b"another secret, and of 32 bytes too",
            ),
            // This token is signed with the text of the public key as an HS256 secret.
            sign(Algorithm::HS256, None, ED_25519.as_bytes()),
        ] {
            assert!(verify(rejected).is_err());
        }
    }
}
