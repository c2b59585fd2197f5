//! JSON Web Key Sets (RFC 7517) in files.

use std::path::Path;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use crate::auth::keys::{KeyError, modulus};

type NamedKey = (Option<String>, Algorithm, DecodingKey);

/// The keys that verify signatures, with their ids; at least one. Keys for other uses
/// and of unknown kinds are passed over, as section 5 says.
pub(super) fn signature_keys(path: &Path, file: &[u8]) -> Result<Vec<NamedKey>, KeyError> {
    let no_key_set = |source| KeyError::NoKeySet {
        path: path.to_owned(),
        source,
    };
    let text: Value = serde_json::from_slice(file).map_err(no_key_set)?;
    let set = JwkSet::deserialize(&text).map_err(no_key_set)?;
    // The member that makes a key private, whatever its kind (RFC 7518 sections
    // 6.2.2 and 6.3.2, RFC 8037 section 2); it is not kept in a `Jwk`.
    let members = text.get("keys").and_then(Value::as_array);
    if members
        .into_iter()
        .flatten()
        .any(|key| key.get("d").is_some())
    {
        return Err(KeyError::PrivateKey {
            path: path.to_owned(),
        });
    }
    let mut keys = Vec::new();
    for jwk in &set.keys {
        if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
            return Err(KeyError::SymmetricKey {
                path: path.to_owned(),
            });
        }
        if let Some(algorithm) = signature_algorithm(jwk)
            && let Ok(key) = DecodingKey::from_jwk(jwk)
        {
            if let AlgorithmParameters::RSA(rsa) = &jwk.algorithm {
                modulus::refuse_weak(path, modulus::base64url_bits(&rsa.n))?;
            }
            keys.push((jwk.common.key_id.clone(), algorithm, key));
        }
    }
    if keys.is_empty() {
        return Err(KeyError::NoUsableKey {
            path: path.to_owned(),
        });
    }
    Ok(keys)
}

/// The algorithm of a key that is for signatures: its `alg`, where that fits its
/// kind, or the usual one of its kind.
fn signature_algorithm(jwk: &Jwk) -> Option<Algorithm> {
    let common = &jwk.common;
    let is_for_signatures = common
        .public_key_use
        .as_ref()
        .is_none_or(|used| *used == PublicKeyUse::Signature);
    let may_verify = common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !is_for_signatures || !may_verify {
        return None;
    }
    let fitting: &[(KeyAlgorithm, Algorithm)] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            (KeyAlgorithm::RS256, Algorithm::RS256),
            (KeyAlgorithm::RS384, Algorithm::RS384),
            (KeyAlgorithm::RS512, Algorithm::RS512),
            (KeyAlgorithm::PS256, Algorithm::PS256),
            (KeyAlgorithm::PS384, Algorithm::PS384),
            (KeyAlgorithm::PS512, Algorithm::PS512),
        ],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            &[(KeyAlgorithm::ES256, Algorithm::ES256)]
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => {
            &[(KeyAlgorithm::ES384, Algorithm::ES384)]
        }
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
            &[(KeyAlgorithm::EdDSA, Algorithm::EdDSA)]
        }
        _ => &[],
    };
    let named = common.key_algorithm;
    fitting
        .iter()
        .find(|(name, _)| named.is_none_or(|named| named == *name))
        .map(|(_, algorithm)| *algorithm)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const RSA_2048_N: &str = "noCJoICLju3jL_Fr2cCg9YmvEiJ00a0KDX6fT7VYdBrtXcfBmun4VMLb6FsYZWZyptBXPx12H4HnGBNMPDIxIFh0zlFXRqry_z7tgIajCDiAQ_B3K76dMNMQfRYxRAlOszxeXkQ3tR2TOlwhLoTfltS-v0xGmhVu_kKJ9ZZM2z0v14MZ1oV9ZBF8hPTSe6HtPWKGeZ5q-mhP_ya9M1fr3sd8RssFLOC5qJ8JMNLWDr-hs1Y-gjfR8Klh2W7PoSmfA2SvmF-FJk5nXTkPyFz-G01n60gzFTEFDiF2SNs7UL-k06MR9nfsb6HAqFjnjiTTnDZzcaTH7ams8-0sIuYozw";

    fn read(text: &str) -> Result<Vec<(Option<String>, Algorithm)>, KeyError> {
        let keys = signature_keys(Path::new("jwks.json"), text.as_bytes())?;
        Ok(keys
            .into_iter()
            .map(|(id, algorithm, _)| (id, algorithm))
            .collect())
    }

    fn jwks(key: &Value) -> Result<Vec<(Option<String>, Algorithm)>, KeyError> {
        read(&json!({ "keys": [key] }).to_string())
    }

    fn with(key: &Value, name: &str, value: Value) -> Value {
        let mut key = key.clone();
        key[name] = value;
        key
    }

    #[test]
    fn a_key_set_gives_the_keys_that_verify() {
        let rsa = json!({"kty": "RSA", "n": RSA_2048_N, "e": "AQAB", "kid": "k"});
        let id = Some("k".to_owned());
        let usual = jwks(&rsa).unwrap();
        assert_eq!(usual, [(id.clone(), Algorithm::RS256)]);
        let named = jwks(&with(&rsa, "alg", json!("PS384"))).unwrap();
        assert_eq!(named, [(id, Algorithm::PS384)]);
        for (name, value) in [
            ("use", json!("sig")),
            ("key_ops", json!(["verify"])),
            ("future", json!({})),
        ] {
            assert!(jwks(&with(&rsa, name, value)).is_ok(), "{name}");
        }
        for (name, value) in [
            ("use", json!("enc")),
            ("key_ops", json!(["encrypt"])),
            ("key_ops", json!([])),
            ("alg", json!("ES256")),
            ("alg", json!("HS256")),
            ("alg", json!("RSA-OAEP")),
            ("alg", json!("future")),
            ("kty", json!("future")),
        ] {
            let refused = jwks(&with(&rsa, name, value));
            assert!(
                matches!(refused, Err(KeyError::NoUsableKey { .. })),
                "{name}"
            );
        }
    }

    #[test]
    fn a_key_set_with_secret_or_weak_keys_is_refused() {
        let oct = json!({"kty": "oct", "k": "c2VjcmV0"});
        assert!(matches!(jwks(&oct), Err(KeyError::SymmetricKey { .. })));
        let rsa = json!({"kty": "RSA", "n": RSA_2048_N, "e": "AQAB"});
        let private = jwks(&with(&rsa, "d", json!("AQ")));
        assert!(matches!(private, Err(KeyError::PrivateKey { .. })));
        let short = RSA_2048_N.get(..340).unwrap();
        let weak = jwks(&with(&rsa, "n", json!(short)));
        assert!(matches!(
            weak,
            Err(KeyError::WeakRsaKey { found: 2040, .. })
        ));
        for text in ["", "[]", "{}", "{\"keys\":{}}"] {
            let refused = read(text);
            assert!(matches!(refused, Err(KeyError::NoKeySet { .. })), "{text}");
        }
    }
}
