//! JSON Web Key Sets (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use crate::auth::keys::algorithm::algorithm_named;
use crate::auth::keys::check;
use crate::auth::keys::error::KeyFault;
use crate::auth::keys::key::NewKey;

// Length of a coordinate in bytes.
const P256_BYTES: usize = 32;
const P384_BYTES: usize = 48;
const ED25519_BYTES: usize = 32;
/// Tag of an uncompressed curve point (SEC 1 section 2.3.3).
const UNCOMPRESSED: u8 = 4;

#[derive(Deserialize)]
struct JwksDocument {
    keys: Vec<Value>,
}

/// The keys of a key set that verify signatures.
pub(super) struct SignatureKeys {
    pub(super) keys: Vec<NewKey>,
    /// One fault for each key that must not or cannot be used, such as a private key.
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
    for (index, member) in set.keys.iter().enumerate() {
        match signature_key(member) {
            Ok(Some(key)) => found.keys.push(key),
            Ok(None) => {}
            Err(fault) => found.faults.push(KeyFault::InSet {
                key: match member.get("kid").and_then(Value::as_str) {
                    Some(id) => format!("key {id:?}"),
                    None => format!("key number {} (without kid)", index + 1),
                },
                fault: Box::new(fault),
            }),
        }
    }
    Ok(found)
}

/// Reads one key of a key set. Returns `None` if the key is not for verifying signatures.
fn signature_key(jwk: &Value) -> Result<Option<NewKey>, KeyFault> {
    // In every asymmetric key type, the member `d` is the private part of the key (RFC 7518
    // sections 6.2.2 and 6.3.2, RFC 8037 section 2).
    if jwk.get("d").is_some() {
        return Err(KeyFault::PrivateKey);
    }
    if string(jwk, "kty") == Some("oct") {
        return Err(KeyFault::SymmetricKey);
    }
    let Some(algorithm) = signature_algorithm(jwk) else {
        return Ok(None);
    };
    let id = match jwk.get("kid") {
        None | Some(Value::Null) => None,
        Some(Value::String(id)) => Some(id.clone()),
        Some(_) => return Err(KeyFault::Unusable("kid is not a string")),
    };
    let decoding = decoding_key(jwk, algorithm)?;
    check::check(algorithm, &decoding)?;
    Ok(Some(NewKey {
        id,
        algorithm,
        decoding,
        material: jwk.to_string().into_bytes(),
    }))
}

fn string<'a>(jwk: &'a Value, name: &str) -> Option<&'a str> {
    jwk.get(name)?.as_str()
}

/// Returns the algorithm of a key: the key's `alg`, or the default algorithm of the key's type if
/// the key has no `alg`. Returns `None` if `alg` does not fit the type, or if the key is not for
/// verifying signatures.
fn signature_algorithm(jwk: &Value) -> Option<Algorithm> {
    let is_for_signatures = match jwk.get("use") {
        None | Some(Value::Null) => true,
        Some(key_use) => key_use == "sig",
    };
    let may_verify = match jwk.get("key_ops") {
        None | Some(Value::Null) => true,
        Some(operations) => operations
            .as_array()
            .is_some_and(|operations| operations.iter().any(|operation| operation == "verify")),
    };
    if !is_for_signatures || !may_verify {
        return None;
    }
    // The first algorithm of each key type is the default of that type.
    let candidates: &[Algorithm] = match (string(jwk, "kty")?, string(jwk, "crv")) {
        ("RSA", _) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        ("EC", Some("P-256")) => &[Algorithm::ES256],
        ("EC", Some("P-384")) => &[Algorithm::ES384],
        ("OKP", Some("Ed25519")) => &[Algorithm::EdDSA],
        _ => return None,
    };
    match jwk.get("alg") {
        None | Some(Value::Null) => candidates.first().copied(),
        Some(alg) => algorithm_named(alg.as_str()?).filter(|alg| candidates.contains(alg)),
    }
}

fn decoding_key(jwk: &Value, algorithm: Algorithm) -> Result<DecodingKey, KeyFault> {
    let number = |name: &'static str| {
        let digits = string(jwk, name).and_then(number_bytes);
        let digits = digits.filter(|digits| !digits.is_empty());
        digits.ok_or(KeyFault::NotBase64Url(name))
    };
    let coordinate = |name: &'static str, bytes: usize| padded(&number(name)?, bytes);
    let point = |bytes: usize| {
        let (x, y) = (coordinate("x", bytes)?, coordinate("y", bytes)?);
        Ok(DecodingKey::from_ec_der(
            &[&[UNCOMPRESSED][..], &x, &y].concat(),
        ))
    };
    match algorithm {
        Algorithm::ES256 => point(P256_BYTES),
        Algorithm::ES384 => point(P384_BYTES),
        Algorithm::EdDSA => {
            // An Ed25519 key is a string of bytes and not a number, so no byte can be left out.
            let key = number("x")?;
            if key.len() != ED25519_BYTES {
                return Err(KeyFault::Unusable("x does not have 32 bytes"));
            }
            Ok(DecodingKey::from_ed_der(&key))
        }
        _ => {
            let (n, e) = (number("n")?, number("e")?);
            let (n, e) = (without_leading_zeros(&n), without_leading_zeros(&e));
            Ok(DecodingKey::from_rsa_raw_components(n, e))
        }
    }
}

/// Decodes a number of a key. RFC 7518 section 2 requires base64url without padding. Some providers
/// use padding or plain base64. These forms are accepted, because each text still represents
/// exactly one number.
fn number_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let is_plain = digits.contains(['+', '/']);
    let engine = if is_plain {
        STANDARD_NO_PAD
    } else {
        URL_SAFE_NO_PAD
    };
    engine.decode(digits).ok()
}

/// RFC 7518 section 6.3.1.1 forbids leading zero bytes, but some providers send them. The signature
/// library would not accept the number.
fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// A coordinate with exactly `bytes` bytes. RFC 7518 section 6.2.1.2 requires leading zero bytes,
/// but some providers omit them.
fn padded(number: &[u8], bytes: usize) -> Result<Vec<u8>, KeyFault> {
    let number = without_leading_zeros(number);
    let zeros = bytes
        .checked_sub(number.len())
        .ok_or(KeyFault::Unusable("a coordinate is too long for the curve"))?;
    Ok([&vec![0; zeros][..], number].concat())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use jsonwebtoken::DecodingKeyKind;
    use serde_json::json;

    use super::*;
    use crate::auth::keys::set::KeySet;

    const RSA_2048_N: &str = "noCJoICLju3jL_Fr2cCg9YmvEiJ00a0KDX6fT7VYdBrtXcfBmun4VMLb6FsYZWZyptBXPx12H4HnGBNMPDIxIFh0zlFXRqry_z7tgIajCDiAQ_B3K76dMNMQfRYxRAlOszxeXkQ3tR2TOlwhLoTfltS-v0xGmhVu_kKJ9ZZM2z0v14MZ1oV9ZBF8hPTSe6HtPWKGeZ5q-mhP_ya9M1fr3sd8RssFLOC5qJ8JMNLWDr-hs1Y-gjfR8Klh2W7PoSmfA2SvmF-FJk5nXTkPyFz-G01n60gzFTEFDiF2SNs7UL-k06MR9nfsb6HAqFjnjiTTnDZzcaTH7ams8-0sIuYozw";

    const ED25519_X: &str = "cn3valyAfEPsVWfkHQlPacQKW7hQ2xWXH1tYH27aWFI";

    type Keys = Vec<(Option<String>, Algorithm)>;

    /// Reads the keys of a set. Fails with the fault of the first key that must not be used.
    fn read(text: &str) -> Result<Keys, KeyFault> {
        let found = signature_keys(text.as_bytes())?;
        match found.faults.into_iter().next() {
            Some(KeyFault::InSet { fault, .. }) => Err(*fault),
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
        assert!(matches!(weak, Err(KeyFault::RsaKeyLength { found: 2040 })));
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
        assert!(set.len() == 64 && matches!(faults.first(), Some(KeyFault::TooManyKeys)));
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

    #[test]
    fn ed25519_key_may_be_named_by_curve_or_family() {
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": ED25519_X});
        for alg in [json!(null), json!("EdDSA"), json!("Ed25519")] {
            let keys = jwks(&with(&key, "alg", alg.clone())).unwrap();
            assert_eq!(keys, [(None, Algorithm::EdDSA)], "{alg}");
        }
        assert_eq!(jwks(&with(&key, "alg", json!("Ed448"))).unwrap(), []);
    }

    #[test]
    fn numbers_in_unambiguous_forms_are_accepted() {
        let bytes = URL_SAFE_NO_PAD.decode(RSA_2048_N).unwrap();
        let padded = URL_SAFE.encode(&bytes);
        let plain = STANDARD.encode(&bytes);
        assert!(padded.ends_with('=') && plain.contains(['+', '/']));
        let leading_zero = URL_SAFE_NO_PAD.encode([&[0][..], &bytes].concat());
        for n in [RSA_2048_N, &padded, &plain, &leading_zero] {
            let key = json!({"kty": "RSA", "n": n, "e": "AQAB"});
            let found = signature_keys(json!({"keys": [key]}).to_string().as_bytes()).unwrap();
            let [key] = &found.keys[..] else {
                panic!("{n}: {:?}", found.faults);
            };
            let DecodingKeyKind::RsaModulusExponent { n: found, .. } = key.decoding.kind() else {
                panic!("expected a modulus and an exponent");
            };
            assert_eq!(*found, bytes, "{n}");
        }
    }

    #[test]
    fn unusable_key_is_named_in_its_fault() {
        let rsa = json!({"kty": "RSA", "n": RSA_2048_N, "e": "AQAB", "kid": "broken"});
        let mixed = format!("{RSA_2048_N}+_");
        let ec =
            json!({"kty": "EC", "crv": "P-256", "x": ED25519_X, "y": ED25519_X, "kid": "broken"});
        let okp = json!({"kty": "OKP", "crv": "Ed25519", "x": ED25519_X, "kid": "broken"});
        for (key, reason) in [
            (
                with(&rsa, "n", json!(mixed)),
                "its n is missing or is not base64url",
            ),
            (
                with(&rsa, "n", json!(null)),
                "its n is missing or is not base64url",
            ),
            (
                with(&rsa, "e", json!("")),
                "its e is missing or is not base64url",
            ),
            (
                with(&rsa, "e", json!("AA")),
                "expected an RSA key with an odd modulus",
            ),
            (
                with(&ec, "kid", json!("broken")),
                "the point of the EC key is not on the curve P-256",
            ),
            (with(&rsa, "d", json!("AQ")), "private key"),
            (
                with(&ec, "x", json!(RSA_2048_N)),
                "a coordinate is too long for the curve",
            ),
            (
                with(&ec, "y", json!("a b")),
                "its y is missing or is not base64url",
            ),
            (with(&okp, "x", json!("AQAB")), "x does not have 32 bytes"),
        ] {
            let text = json!({"keys": [key]}).to_string();
            let found = signature_keys(text.as_bytes()).unwrap();
            assert!(found.keys.is_empty(), "{key}");
            let fault = found.faults[0].to_string();
            assert!(
                fault.contains("key \"broken\"") && fault.contains(reason),
                "{fault}"
            );
        }
        let text = json!({"keys": [{"kty": "oct"}, {"kty": "RSA", "n": "AQ", "e": "AQAB"}]});
        let found = signature_keys(text.to_string().as_bytes()).unwrap();
        let named = found.faults.iter().map(ToString::to_string);
        let named: Vec<_> = named.collect();
        assert!(
            named[0].contains("key number 1") && named[1].contains("key number 2"),
            "{named:?}"
        );
    }
}
