//! Sets of keys that are read from files or published by an identity provider.

use std::io;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use crate::auth::keys::error::{
    KeyError, KeyFault, MAX_ATTEMPTS, MAX_PROVIDER_KEYS, MIN_SECRET_BYTES, VerifyError,
};
use crate::auth::keys::jwks;
use crate::auth::keys::key::{Key, NewKey};
use crate::auth::keys::pem;
use crate::auth::keys::token::Token;
use crate::small_file;

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

/// The keys that may still be tried for one token.
pub(crate) struct Attempts(usize);

impl Default for Attempts {
    fn default() -> Self {
        Self(MAX_ATTEMPTS)
    }
}

impl Attempts {
    /// Returns false if no key may be tried any more.
    fn use_one(&mut self) -> bool {
        let is_left = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        is_left
    }
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
        self.keys.push(Key {
            id: key.id,
            algorithm: key.algorithm,
            decoding: key.decoding,
            material: key.material,
        });
    }

    /// Adds an HS256 secret. The secret consists of the bytes of the file without a final line
    /// break. Blocks.
    pub(crate) fn add_secret_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let bytes = small_file::read(path).map_err(cannot_read(path))?;
        let secret = secret_of(&bytes);
        if secret.len() < MIN_SECRET_BYTES {
            let found = secret.len();
            return Err(unusable(path)(KeyFault::ShortSecret { found }));
        }
        // The signature library refuses only an empty secret.
        let decoding = DecodingKey::from_secret(secret)
            .map_err(|_| unusable(path)(KeyFault::ShortSecret { found: 0 }))?;
        self.push(NewKey {
            id: None,
            algorithm: Algorithm::HS256,
            decoding,
            material: secret.to_vec(),
        });
        Ok(())
    }

    /// Adds a PEM public key. An RSA key is used with RS256, a P-256 key with ES256, a P-384 key
    /// with ES384, and an Ed25519 key with EdDSA. Blocks.
    pub(crate) fn add_public_key_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let pem = small_file::read_text(path).map_err(cannot_read(path))?;
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
        let text = small_file::read_text(path).map_err(cannot_read(path))?;
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
        faults.extend(set.crowded_algorithm().map(KeyFault::TooManyForAlgorithm));
        Ok((set, faults))
    }

    /// Whether a token with this `iss` claim can be accepted if one of these keys has signed it.
    pub(crate) fn may_sign_for(&self, issuer: Option<&str>) -> bool {
        let required = self.issuer.as_deref();
        required.is_none_or(|required| issuer == Some(required))
    }

    /// The algorithm for which a token without a key id cannot be checked with all keys of this
    /// set.
    pub(crate) fn crowded_algorithm(&self) -> Option<Algorithm> {
        let algorithms = self.keys.iter().map(|key| key.algorithm);
        algorithms
            .clone()
            .find(|one| algorithms.clone().filter(|other| other == one).count() > MAX_ATTEMPTS)
    }

    /// Checks a token's signature. Tries the keys that match the token's header one after the
    /// other, until one of them verifies the token or no attempt is left. If the token names a key,
    /// keys with this id are tried before keys without an id. If the token names no key, keys
    /// without an id are tried before keys with an id.
    pub(crate) fn verify(
        &self,
        token: &Token<'_>,
        attempts: &mut Attempts,
    ) -> Result<SignedClaims, VerifyError> {
        let matching = |has_id: bool| {
            let keys = self.keys.iter();
            keys.filter(move |key| key.id.is_some() == has_id && token.matches_key(key))
        };
        let names_key = token.key_id().is_some();
        for key in matching(names_key).chain(matching(!names_key)) {
            if !attempts.use_one() {
                return Err(VerifyError::TooManyCandidates);
            }
            if token.is_signed_by(&key.decoding, key.algorithm) {
                return Ok(SignedClaims {
                    claims: token.verified_claims().map_err(VerifyError::Rejected)?,
                    issuer: self.issuer.clone(),
                });
            }
        }
        Err(VerifyError::NoKey)
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

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    let path = path.to_owned();
    move |source| KeyError::Read { path, source }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
            decoding: DecodingKey::from_secret(SECRET).unwrap(),
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
            encode(&header, &claims, &EncodingKey::from_secret(secret).unwrap()).unwrap()
        };
        let verify = |token: String| {
            let token = Token::parse(token.as_bytes()).unwrap();
            keys.verify(&token, &mut Attempts::default())
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

    #[test]
    fn keys_of_all_sets_share_the_attempts_of_a_token() {
        let secret = |index: u8| [index; 32];
        let set = |indices: std::ops::Range<u8>| {
            let mut keys = KeySet::default();
            for index in indices {
                keys.push(NewKey {
                    id: (index == 5).then(|| "five".to_owned()),
                    algorithm: Algorithm::HS256,
                    decoding: DecodingKey::from_secret(&secret(index)).unwrap(),
                    material: Vec::new(),
                });
            }
            keys
        };
        let sets = [set(0..2), set(2..6)];
        let verify = |index: u8, id: Option<&str>| {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = id.map(str::to_owned);
            let claims = json!({"sub": "u", "exp": 4_000_000_000_u64});
            let key = EncodingKey::from_secret(&secret(index)).unwrap();
            let text = encode(&header, &claims, &key).unwrap();
            let token = Token::parse(text.as_bytes()).unwrap();
            let mut attempts = Attempts::default();
            let [first, second] = &sets;
            match first.verify(&token, &mut attempts) {
                Err(VerifyError::NoKey) => second.verify(&token, &mut attempts).map(drop),
                verified => verified.map(drop),
            }
        };
        for index in 0..4 {
            assert_eq!(verify(index, None), Ok(()), "{index}");
        }
        for index in 4..6 {
            assert_eq!(verify(index, None), Err(VerifyError::TooManyCandidates));
        }
        // A key with the id of the token is tried first, but keys of an earlier set count too.
        assert_eq!(verify(5, Some("five")), Ok(()));
        assert_eq!(verify(4, Some("four")), Err(VerifyError::TooManyCandidates));
    }
}
