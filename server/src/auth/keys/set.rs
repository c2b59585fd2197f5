//! Sets of keys: those in files, and those that an identity provider publishes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Map, Value};

use crate::auth::keys::fault::{
    Distrust, KeyError, KeyFault, MALFORMED, MAX_PROVIDER_KEYS, MIN_SECRET_BYTES,
};
use crate::auth::keys::jwks;
use crate::auth::keys::key::{Key, NewKey};
use crate::auth::keys::pem;
use crate::auth::keys::token::Token;
use crate::auth::rules::LEEWAY_SECONDS;

/// Keys of one issuer.
#[derive(Default)]
pub(crate) struct KeySet {
    /// Whom a token must name that one of them has signed.
    issuer: Option<Arc<str>>,
    keys: Vec<Key>,
}

/// A token's claims, which are those of its signer.
pub(crate) struct Signed {
    pub(crate) claims: Map<String, Value>,
    /// Whom the claims must name.
    issuer: Option<Arc<str>>,
}

impl Signed {
    /// The same, where it names the issuer that its key is of.
    pub(crate) fn of_its_issuer(self) -> Result<Self, Distrust> {
        let named = self.claims.get("iss").and_then(Value::as_str);
        match &self.issuer {
            Some(issuer) if named != Some(&**issuer) => Err(Distrust::OtherIssuer),
            _ => Ok(self),
        }
    }
}

impl KeySet {
    /// Without a key yet, for tokens that name `issuer`, where there is one.
    pub(crate) fn of(issuer: Option<Arc<str>>) -> Self {
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

    /// Whether a key has this id.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// Whether each of these keys is in `other` as well.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.keys.iter().all(|key| {
            other.keys.iter().any(|other| {
                (&key.id, key.algorithm, &key.material)
                    == (&other.id, other.algorithm, &other.material)
            })
        })
    }

    fn push(&mut self, key: NewKey) {
        let mut validation = Validation::new(key.algorithm);
        // The rest of the claims is judged by `claims`, as exactly as the contract
        // has it; that there is an expiry and that it holds, here as well.
        validation.validate_aud = false;
        validation.validate_nbf = true;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number of seconds; one more, since here times are rounded"
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

    /// Adds an HS256 secret: the bytes of the file without a final line break.
    pub(crate) fn add_secret_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let bytes = read(path)?;
        let secret = secret_of(&bytes);
        if secret.len() < MIN_SECRET_BYTES {
            let found = secret.len();
            return Err(unfit(path)(KeyFault::ShortSecret { found }));
        }
        self.push(NewKey {
            id: None,
            algorithm: Algorithm::HS256,
            decoding: DecodingKey::from_secret(secret),
            material: secret.to_vec(),
        });
        Ok(())
    }

    /// Adds a PEM public key: RSA for RS256, P-256 for ES256, P-384 for ES384,
    /// Ed25519 for EdDSA.
    pub(crate) fn add_public_key_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let pem = read(path)?;
        let (algorithm, decoding) = pem::public_key(&pem).map_err(unfit(path))?;
        self.push(NewKey {
            id: None,
            algorithm,
            decoding,
            material: pem,
        });
        Ok(())
    }

    /// Adds the signature keys of a JSON Web Key Set, of which none may be unfit: its
    /// owner can mend it.
    pub(crate) fn add_jwks_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let text = read(path)?;
        let found = jwks::signature_keys(&text).map_err(unfit(path))?;
        if let Some(fault) = found.unfit.into_iter().next() {
            return Err(unfit(path)(fault));
        }
        if found.keys.is_empty() {
            return Err(unfit(path)(KeyFault::NoUsableKey));
        }
        for key in found.keys {
            self.push(key);
        }
        Ok(())
    }

    /// The signature keys of a provider's JSON Web Key Set, and what is wrong with those
    /// that are passed over: one that is unfit must not take the others down. That there is
    /// none is what the provider says: it has withdrawn what it had.
    pub(crate) fn of_jwks(
        issuer: Option<Arc<str>>,
        text: &[u8],
    ) -> Result<(Self, Vec<KeyFault>), KeyFault> {
        let jwks::Found {
            mut keys,
            mut unfit,
        } = jwks::signature_keys(text)?;
        if keys.len() > MAX_PROVIDER_KEYS {
            keys.truncate(MAX_PROVIDER_KEYS);
            unfit.push(KeyFault::TooManyKeys);
        }
        if keys.is_empty() {
            unfit.push(KeyFault::NoUsableKey);
        }
        let mut set = Self::of(issuer);
        for key in keys {
            set.push(key);
        }
        Ok((set, unfit))
    }

    /// The claims of a token that one of the keys has signed, or why there are none.
    pub(crate) fn verify(&self, token: &Token<'_>) -> Result<Signed, Distrust> {
        let mut outcome = Err(Distrust::NoKey);
        for key in self.keys.iter().filter(|key| token.may_be_of(key)) {
            match decode::<Map<String, Value>>(token.text, &key.decoding, &key.validation) {
                Ok(verified) => {
                    return Ok(Signed {
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
                            "The token has no exp that is a time in seconds."
                        }
                        Kind::InvalidClaimFormat(_) => {
                            "The token's exp or nbf is not a time in seconds."
                        }
                        _ => MALFORMED,
                    };
                    outcome = Err(Distrust::Because(reason));
                }
            }
        }
        outcome
    }
}

fn unfit(path: &Path) -> impl FnOnce(KeyFault) -> KeyError {
    let path = path.to_owned();
    move |fault| KeyError::Unfit { path, fault }
}

/// The secret in a file: editors end a file with a line break that nobody means.
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
    fn a_secret_is_the_file_without_its_last_line_break() {
        assert_eq!(secret_of(b"a\n"), b"a");
        assert_eq!(secret_of(b"a\r\n"), b"a");
        assert_eq!(secret_of(b" a\n\n"), b" a\n");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [b'x'; 32]).unwrap();
        assert!(KeySet::default().add_secret_file(file.path()).is_ok());
        fs::write(file.path(), [&[b'x'; 31][..], b"\n"].concat()).unwrap();
        let short = KeySet::default().add_secret_file(file.path());
        let Err(KeyError::Unfit { fault, .. }) = short else {
            panic!("{short:?}");
        };
        assert!(matches!(fault, KeyFault::ShortSecret { found: 31 }));
    }

    #[test]
    fn the_issuer_is_the_one_that_the_key_is_of() {
        let named = |issuer: Option<&str>, iss: Value| {
            let claims = json!({ "iss": iss });
            let signed = Signed {
                claims: claims.as_object().unwrap().clone(),
                issuer: issuer.map(Arc::from),
            };
            signed.of_its_issuer().map(drop)
        };
        assert_eq!(named(Some("https://i"), json!("https://i")), Ok(()));
        assert_eq!(named(None, json!("https://j")), Ok(()));
        for iss in [
            json!("https://i/"),
            json!(["https://i"]),
            json!(null),
            json!("HTTPS://i"),
        ] {
            let refused = named(Some("https://i"), iss.clone());
            assert_eq!(refused, Err(Distrust::OtherIssuer), "{iss}");
        }
    }

    #[test]
    fn a_token_chooses_neither_key_nor_algorithm() {
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
            // What would send a trusting server elsewhere.
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
        for refused in [
            sign(Algorithm::HS256, Some("b"), SECRET),
            sign(Algorithm::HS384, Some("a"), SECRET),
            sign(
                Algorithm::HS256,
                None,
                b"another secret, and of 32 bytes too",
            ),
            // The public key as a secret.
            sign(Algorithm::HS256, None, ED_25519.as_bytes()),
        ] {
            assert!(verify(refused).is_err());
        }
    }
}
