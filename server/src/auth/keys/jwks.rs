//! JSON Web Key Sets (RFC 7517).

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use crate::auth::keys::error::KeyFault;
use crate::auth::keys::key::NewKey;
use crate::auth::keys::modulus;

#[derive(Deserialize)]
struct JwksDocument {
    keys: Vec<Value>,
}

/// The keys of a key set that verify signatures.
pub(super) struct SignatureKeys {
    pub(super) keys: Vec<NewKey>,
    /// One fault for each key that must not be used, such as a private key.
    pub(super) faults: Vec<KeyFault>,
}

/// Reads the keys of a set that verify signatures. Public keys for other uses and public keys of an
/// unknown type are ignored (RFC 7517 section 5).
pub(super) fn signature_keys(text: &[u8]) -> Result<SignatureKeys, KeyFault> {
    let set: JwksDocument = serde_json::from_slice(text)?;
    let mut found = SignatureKeys {
        keys: Vec::new(),
        faults: Vec::new(),
    };
    for member in &set.keys {
        match signature_key(member) {
            Ok(Some(key)) => found.keys.push(key),
            Ok(None) => {}
            Err(fault) => found.faults.push(fault),
        }
    }
    Ok(found)
}

/// Reads one key of a key set. Returns `None` if the key cannot be used to verify signatures.
fn signature_key(member: &Value) -> Result<Option<NewKey>, KeyFault> {
    // In every asymmetric key type, the member `d` is the private part of the key (RFC 7518
    // sections 6.2.2 and 6.3.2, RFC 8037 section 2). `Jwk` drops the member `d`, so its presence is
    // checked here.
    if member.get("d").is_some() {
        return Err(KeyFault::PrivateKey);
    }
    let Ok(jwk) = Jwk::deserialize(member) else {
        return Ok(None);
    };
    if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
        return Err(KeyFault::SymmetricKey);
    }
    let (Some(algorithm), Ok(decoding)) = (signature_algorithm(&jwk), DecodingKey::from_jwk(&jwk))
    else {
        return Ok(None);
    };
    if let AlgorithmParameters::RSA(rsa) = &jwk.algorithm {
        modulus::check_length(modulus::base64url_bits(&rsa.n))?;
    }
    Ok(Some(NewKey {
        id: jwk.common.key_id,
        algorithm,
        decoding,
        material: member.to_string().into_bytes(),
    }))
}

/// Returns the algorithm of a key: the key's `alg`, or the default algorithm of the key's type if
/// the key has no `alg`. Returns `None` if `alg` does not fit the type, or if the key is not for
/// verifying signatures.
fn signature_algorithm(jwk: &Jwk) -> Option<Algorithm> {
    let common = &jwk.common;
    let is_for_signatures = common
        .public_key_use
        .as_ref()
        .is_none_or(|key_use| *key_use == PublicKeyUse::Signature);
    let may_verify = common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !is_for_signatures || !may_verify {
        return None;
    }
    // The first algorithm of each key type is the default of that type.
    let candidates: &[(KeyAlgorithm, Algorithm)] = match &jwk.algorithm {
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
    candidates
        .iter()
        .find(|(name, _)| named.is_none_or(|named| named == *name))
        .map(|(_, algorithm)| *algorithm)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::keys::set::KeySet;

    const RSA_2048_N: &str = "noCJoICLju3jL_Fr2cCg9YmvEiJ00a0KDX6fT7VYdBrtXcfBmun4VMLb6FsYZWZyptBXPx12H4HnGBNMPDIxIFh0zlFXRqry_z7tgIajCDiAQ_B3K76dMNMQfRYxRAlOszxeXkQ3tR2TOlwhLoTfltS-v0xGmhVu_kKJ9ZZM2z0v14MZ1oV9ZBF8hPTSe6HtPWKGeZ5q-mhP_ya9M1fr3sd8RssFLOC5qJ8JMNLWDr-hs1Y-gjfR8Klh2W7PoSmfA2SvmF-FJk5nXTkPyFz-G01n60gzFTEFDiF2SNs7UL-k06MR9nfsb6HAqFjnjiTTnDZzcaTH7ams8-0sIuYozw";

    type Keys = Vec<(Option<String>, Algorithm)>;

    /// Reads the keys of a set. Fails with the fault of the first key that must not be used.
    fn read(text: &str) -> Result<Keys, KeyFault> {
        let found = signature_keys(text.as_bytes())?;
        match found.faults.into_iter().next() {
            Some(fault) => Err(fault),
            None => Ok(found
                .keys
                .into_iter()
                .map(|key| (key.id, key.algorithm))
                .collect()),
        }
    }

    fn jwks(key: &Value) -> Result<Keys, KeyFault> {
        read(&json!({ "keys": [key] }).to_string())
    }

    fn with(key: &Value, name: &str, value: Value) -> Value {
        let mut key = key.clone();
        key[name] = value;
        key
    }

    #[test]
    fn jwks_with_keys_for_other_uses_yields_only_signature_keys() {
        let rsa = json!({"kty": "RSA", "n": RSA_2048_N, "e": "AQAB", "kid": "k"});
        let id = Some("k".to_owned());
        let default = jwks(&rsa).unwrap();
        assert_eq!(default, [(id.clone(), Algorithm::RS256)]);
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
            let none = jwks(&with(&rsa, name, value)).unwrap();
            assert_eq!(none, [], "{name}");
        }
    }

    #[test]
    fn jwks_with_secret_or_weak_key_is_rejected() {
        let oct = json!({"kty": "oct", "k": "c2VjcmV0"});
        assert!(matches!(jwks(&oct), Err(KeyFault::SymmetricKey)));
        let rsa = json!({"kty": "RSA", "n": RSA_2048_N, "e": "AQAB"});
        let private = jwks(&with(&rsa, "d", json!("AQ")));
        assert!(matches!(private, Err(KeyFault::PrivateKey)));
        let short = RSA_2048_N.get(..340).unwrap();
        let weak = jwks(&with(&rsa, "n", json!(short)));
        assert!(matches!(weak, Err(KeyFault::WeakRsaKey { found: 2040 })));
        for text in ["", "[]", "{}", "{\"keys\":{}}"] {
            let rejected = read(text);
            assert!(matches!(rejected, Err(KeyFault::NotAKeySet(_))), "{text}");
        }
    }

    #[test]
    fn provider_jwks_with_bad_keys_keeps_its_good_keys() {
        let rsa = json!({"kty": "RSA", "n": RSA_2048_N, "e": "AQAB", "kid": "k"});
        let oct = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s"});
        let private = with(&rsa, "d", json!("AQ"));
        let text = |keys: &[&Value]| json!({ "keys": keys }).to_string();
        let (set, faults) =
            KeySet::from_provider_jwks(None, text(&[&oct, &rsa, &private, &json!(7)]).as_bytes())
                .unwrap();
        assert_eq!((set.len(), faults.len()), (1, 2));
        assert!(set.has_key_id("k") && !set.has_key_id("s"));
        for nothing in [text(&[]), text(&[&oct])] {
            let (set, faults) = KeySet::from_provider_jwks(None, nothing.as_bytes()).unwrap();
            assert!(set.is_empty(), "{nothing}");
            let last = faults.last();
            assert!(matches!(last, Some(KeyFault::NoUsableKey)), "{nothing}");
        }
        for no_set in ["{}", "[]", "", "{\"keys\":7}"] {
            assert!(
                KeySet::from_provider_jwks(None, no_set.as_bytes()).is_err(),
                "{no_set}"
            );
        }
        let many = vec![&rsa; 200];
        let (set, faults) = KeySet::from_provider_jwks(None, text(&many).as_bytes()).unwrap();
        assert!(set.len() == 64 && matches!(faults[..], [KeyFault::TooManyKeys]));
    }

    #[test]
    fn key_set_comparison_distinguishes_added_from_withdrawn() {
        let key = |id: &str| json!({"kty": "RSA", "n": RSA_2048_N, "e": "AQAB", "kid": id});
        let set = |keys: &[Value]| {
            let text = json!({ "keys": keys }).to_string();
            KeySet::from_provider_jwks(None, text.as_bytes()).unwrap().0
        };
        let (one, two) = (set(&[key("a")]), set(&[key("b"), key("a")]));
        assert!(one.is_subset_of(&two) && !two.is_subset_of(&one));
        // `other` contains a different key with the same id.
        let other = set(&[with(&key("a"), "e", json!("Aw"))]);
        assert!(!one.is_subset_of(&other));
    }
}
