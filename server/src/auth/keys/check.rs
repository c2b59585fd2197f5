//! Checks that a public key can verify signatures.
//!
//! Without these checks, the signature library would read such a key without an error, and then
//! reject every signature. The checks are made when the key is read, so that the operator is told
//! about a bad key before the first request.
//!
//! An Ed25519 key is not checked: the library offers no function that does so.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};

use crate::auth::keys::error::{KeyFault, MAX_RSA_BITS, MIN_RSA_BITS};

/// Checks that `key` can verify signatures of `algorithm`, as far as the library can tell.
pub(super) fn check(algorithm: Algorithm, key: &DecodingKey) -> Result<(), KeyFault> {
    match (algorithm, key.kind()) {
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
            check_point("P-256", &ECDSA_P256_SHA256_FIXED, point)
        }
        (Algorithm::ES384, DecodingKeyKind::SecretOrDer(point)) => {
            check_point("P-384", &ECDSA_P384_SHA384_FIXED, point)
        }
        (_, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            check_length(bits(n))?;
            let der = RsaPublicKeyComponents { n, e }.as_der();
            check_rsa(der.map_err(|_| KeyFault::UnsupportedRsaNumbers)?.as_ref())
        }
        (
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512,
            DecodingKeyKind::SecretOrDer(der),
        ) => {
            let modulus = modulus(der).ok_or(KeyFault::UnsupportedRsaNumbers)?;
            check_length(bits(modulus))?;
            check_rsa(der)
        }
        _ => Ok(()),
    }
}

/// Checks that the point is on the curve of the algorithm. The library does not read which curve a
/// PEM file names, and points of different curves can have the same length.
fn check_point(
    curve: &'static str,
    algorithm: &'static dyn VerificationAlgorithm,
    point: &[u8],
) -> Result<(), KeyFault> {
    match ParsedPublicKey::new(algorithm, point) {
        Ok(_) => Ok(()),
        Err(_) => Err(KeyFault::NotOnCurve(curve)),
    }
}

/// Checks that the modulus and the exponent are odd, and that the exponent has 2 to 33 bits. The
/// library refuses longer exponents, because they make verification slow.
fn check_rsa(der: &[u8]) -> Result<(), KeyFault> {
    match ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der) {
        Ok(_) => Ok(()),
        Err(_) => Err(KeyFault::UnsupportedRsaNumbers),
    }
}

fn check_length(bits: usize) -> Result<(), KeyFault> {
    if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(KeyFault::RsaKeyLength { found: bits });
    }
    Ok(())
}

/// Extracts the modulus of an RSA public key in DER. The key is a sequence of two integers, and the
/// first integer is the modulus (RFC 8017 appendix A.1.1).
fn modulus(der: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    der_content(der_content(der, SEQUENCE)?, INTEGER)
}

/// The content of a DER element. `None` if the tag of the element is not `tag`, or if the element
/// is incomplete.
fn der_content(der: &[u8], tag: u8) -> Option<&[u8]> {
    let (&[found, first], rest) = der.split_first_chunk()?;
    if found != tag {
        return None;
    }
    // In the short form of a DER length, `first` is the length itself. In the long form, the low
    // seven bits of `first` are the number of length bytes that follow (X.690 section 8.1.3).
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length = length.iter().try_fold(0_usize, |sum, byte| {
            sum.checked_mul(256)?.checked_add(usize::from(*byte))
        })?;
        (length, rest)
    };
    rest.get(..length)
}

/// The number of significant bits of a big-endian number.
fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number.get(zeros).map_or(0, |byte| byte.leading_zeros());
    8 * (number.len() - zeros) - first as usize
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn rsa_key_that_cannot_verify_is_rejected() {
        let check = |n: &[u8], e: &[u8]| {
            let key = DecodingKey::from_rsa_raw_components(n, e);
            check(Algorithm::PS256, &key).map_err(|fault| fault.to_string())
        };
        let modulus = |bytes: usize, last: u8| {
            let mut n = vec![0xff; bytes];
            n[bytes - 1] = last;
            n
        };
        let good = modulus(256, 0xff);
        for e in [&[3][..], &[1, 0, 1], &[1, 0, 0, 0, 1]] {
            assert_eq!(check(&good, e), Ok(()), "{e:?}");
        }
        assert_eq!(check(&modulus(1024, 0xff), &[3]), Ok(()));
        let not_rsa =
            "expected an RSA key with an odd modulus, and with an odd exponent of 2 to 33 bits";
        for e in [&[][..], &[1], &[2], &[4], &[2, 0, 0, 0, 1]] {
            assert_eq!(check(&good, e), Err(not_rsa.to_owned()), "{e:?}");
        }
        assert_eq!(check(&modulus(256, 0xfe), &[3]), Err(not_rsa.to_owned()));
        let long = check(&modulus(1025, 0xff), &[3]).unwrap_err();
        assert!(long.starts_with("the RSA key has 8200 bits"), "{long}");
    }

    #[test]
    fn point_must_be_on_the_curve_of_its_algorithm() {
        // The example keys of RFC 7517 appendix A.1 and RFC 7515 appendix A.3.
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let x = decode("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4");
        let y = decode("4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
        let point = |x: &[u8], y: &[u8]| DecodingKey::from_ec_der(&[&[4], x, y].concat());
        let fault =
            |algorithm, key: &DecodingKey| check(algorithm, key).map_err(|fault| fault.to_string());
        assert_eq!(fault(Algorithm::ES256, &point(&x, &y)), Ok(()));
        let swapped = fault(Algorithm::ES256, &point(&y, &x)).unwrap_err();
        assert!(swapped.contains("not on the curve P-256"), "{swapped}");
        let other = fault(Algorithm::ES384, &point(&x, &y)).unwrap_err();
        assert!(other.contains("not on the curve P-384"), "{other}");
    }

    #[test]
    fn modulus_bits_are_counted_exactly() {
        for (bytes, expected) in [
            (&[0, 1][..], 1),
            (&[0x7f], 7),
            (&[0x80], 8),
            (&[0xff, 0xff], 16),
            (&[0xff; 256], 2048),
        ] {
            assert_eq!(bits(bytes), expected, "{bytes:?}");
        }
        assert_eq!(bits(&[]), 0);
        assert_eq!(modulus(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(modulus(&[0x30, 0x03, 0x02, 0x01, 0x07]), Some(&[7][..]));
    }
}
