//! Reads public keys from PEM files.

use jsonwebtoken::{Algorithm, DecodingKey};

use crate::auth::keys::check;
use crate::auth::keys::error::KeyFault;

// Length of an uncompressed curve point in bytes: a tag and two coordinates.
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;

/// Reads a file that contains exactly one public key. The type of the key determines the algorithm.
pub(super) fn public_key(pem: &[u8]) -> Result<(Algorithm, DecodingKey), KeyFault> {
    if occurrences(pem, b"PRIVATE KEY") > 0 {
        return Err(KeyFault::PrivateKey);
    }
    // A certificate is refused, because its validity period would be ignored.
    if occurrences(pem, b"-----BEGIN CERTIFICATE-----") > 0 {
        return Err(KeyFault::Certificate);
    }
    let unsupported = || KeyFault::UnsupportedKey;
    // A file with several keys is refused, because only the first key would be used.
    let is_one_key =
        occurrences(pem, b"-----BEGIN ") == 1 && occurrences(pem, b"PUBLIC KEY-----") == 2;
    if !is_one_key {
        return Err(unsupported());
    }
    let (algorithm, key) = any_public_key(pem).ok_or_else(unsupported)?;
    check::check(algorithm, &key)?;
    Ok((algorithm, key))
}

fn occurrences(haystack: &[u8], needle: &[u8]) -> usize {
    haystack
        .windows(needle.len())
        .filter(|window| *window == needle)
        .count()
}

fn any_public_key(pem: &[u8]) -> Option<(Algorithm, DecodingKey)> {
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        return Some((Algorithm::RS256, key));
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        let algorithm = match key.try_get_as_bytes().ok()?.len() {
            P256_POINT_BYTES => Algorithm::ES256,
            P384_POINT_BYTES => Algorithm::ES384,
            _ => return None,
        };
        return Some((algorithm, key));
    }
    let key = DecodingKey::from_ed_pem(pem).ok()?;
    Some((Algorithm::EdDSA, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDe8+J1SlZIGZdYaChXzK7X/lRO
MwPczm9+Nwww3dPoM8xYh4gAzqB0qGubZAGhxpyC/64o/WvuJ3TzhxdKaM+Plu5M
2hCxf1TEmNBFa/uyDT8OhURSdDZd9h9gfdzoWrN2+YYh7MnVh6VgMWkrSnhth25I
jmRJ4XzwtRYmGj4SWwIDAQAB
-----END PUBLIC KEY-----
";
    const RSA_2048: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAnoCJoICLju3jL/Fr2cCg
9YmvEiJ00a0KDX6fT7VYdBrtXcfBmun4VMLb6FsYZWZyptBXPx12H4HnGBNMPDIx
IFh0zlFXRqry/z7tgIajCDiAQ/B3K76dMNMQfRYxRAlOszxeXkQ3tR2TOlwhLoTf
ltS+v0xGmhVu/kKJ9ZZM2z0v14MZ1oV9ZBF8hPTSe6HtPWKGeZ5q+mhP/ya9M1fr
3sd8RssFLOC5qJ8JMNLWDr+hs1Y+gjfR8Klh2W7PoSmfA2SvmF+FJk5nXTkPyFz+
G01n60gzFTEFDiF2SNs7UL+k06MR9nfsb6HAqFjnjiTTnDZzcaTH7ams8+0sIuYo
zwIDAQAB
-----END PUBLIC KEY-----
";
    const EC_256: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE/jqe3a9nWjJVk76j1JOutlL9q+t0
ZE+qj6ahAforE3m0dxusnFtgANtlNOqFZDG414pDugWVpRkS+fJw+KufOw==
-----END PUBLIC KEY-----
";
    const EC_384: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEcPo9XDKRXiZoa+M1GQTm1GLRFmcvi1GT
iBapbwLyipg1FVq9/Gl9Qdt22Z8tD2wscPDdQbxJL84mG5/L96hEv6IQENQ5Z6jp
7OZXmybBgF9IsjHIGAK3DNwzhh8/EBms
-----END PUBLIC KEY-----
";
    const ED_25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAcn3valyAfEPsVWfkHQlPacQKW7hQ2xWXH1tYH27aWFI=
-----END PUBLIC KEY-----
";

    const BRAINPOOL_P256R1: &str = "-----BEGIN PUBLIC KEY-----
MFowFAYHKoZIzj0CAQYJKyQDAwIIAQEHA0IABHz1cO6FkBopzOUbwIa1//CL4Wau
y/53pX+1YKfIegFbISknxPQk5dVNt7RXNklMrmTJJXS6tVZNoyI3fwr5eRQ=
-----END PUBLIC KEY-----
";
    const SECP256K1: &str = "-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEbp7YpkXxTly6wO8qxysgr0jOs5fRa1wT
m9C2D396//nE0GD0Ze94QQ4iuzD/BsMo9c4Zfiqx7oDi3JWN86IZNA==
-----END PUBLIC KEY-----
";

    fn read(pem: &str) -> Result<Algorithm, KeyFault> {
        public_key(pem.as_bytes()).map(|(algorithm, _)| algorithm)
    }

    #[test]
    fn public_key_type_decides_the_algorithm() {
        for (pem, algorithm) in [
            (RSA_2048, Algorithm::RS256),
            (EC_256, Algorithm::ES256),
            (EC_384, Algorithm::ES384),
            (ED_25519, Algorithm::EdDSA),
        ] {
            assert_eq!(read(pem).unwrap(), algorithm);
        }
    }

    #[test]
    fn pem_file_without_one_strong_public_key_is_rejected() {
        let weak = read(RSA_1024);
        assert!(matches!(weak, Err(KeyFault::RsaKeyLength { found: 1024 })));
        let private = EC_256.replace("PUBLIC", "PRIVATE");
        for private in [private, format!("{EC_256}-----BEGIN EC PRIVATE KEY-----")] {
            let rejected = read(&private);
            assert!(matches!(rejected, Err(KeyFault::PrivateKey)));
        }
        let certificate = read(&EC_256.replace("PUBLIC KEY", "CERTIFICATE"));
        assert!(matches!(certificate, Err(KeyFault::Certificate)));
        for unsupported in [
            String::new(),
            "not a key".to_owned(),
            format!("{EC_256}{EC_384}"),
            EC_256.replace("MFkw", "MFkx"),
        ] {
            let rejected = read(&unsupported);
            assert!(
                matches!(rejected, Err(KeyFault::UnsupportedKey)),
                "{unsupported}"
            );
        }
    }

    #[test]
    fn key_of_another_curve_is_rejected() {
        for pem in [BRAINPOOL_P256R1, SECP256K1] {
            let rejected = read(pem);
            assert!(
                matches!(rejected, Err(KeyFault::NotOnCurve("P-256"))),
                "{rejected:?}"
            );
        }
    }
}
