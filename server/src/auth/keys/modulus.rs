//! Checks the length of an RSA key.
//!
//! The signature library rejects short keys only when it verifies a signature. The length is
//! therefore checked when the key is read, so that the operator is told about a short key before
//! the first request.

use crate::auth::keys::error::{KeyFault, MIN_RSA_BITS};

pub(super) fn check_length(bits: usize) -> Result<(), KeyFault> {
    if bits < MIN_RSA_BITS {
        return Err(KeyFault::WeakRsaKey { found: bits });
    }
    Ok(())
}

/// Extracts the modulus of an RSA public key in DER. The key is a sequence of two integers, and the
/// first integer is the modulus (RFC 8017 appendix A.1.1).
pub(super) fn modulus(der: &[u8]) -> Option<&[u8]> {
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
pub(super) fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let first = number.get(zeros).map_or(0, |byte| byte.leading_zeros());
    8 * (number.len() - zeros) - first as usize
}

/// The number of significant bits of a big-endian number in base64url.
pub(super) fn base64url_bits(number: &str) -> usize {
    let digits = number.trim_end_matches('=');
    let zeros = digits.bytes().take_while(|digit| *digit == b'A').count();
    let first: usize = match digits.as_bytes().get(zeros) {
        None => return 0,
        Some(b'B') => 5,
        Some(b'C' | b'D') => 4,
        Some(b'E'..=b'H') => 3,
        Some(b'I'..=b'P') => 2,
        Some(b'Q'..=b'Z' | b'a'..=b'f') => 1,
        Some(_) => 0,
    };
    // The last base64url digit can contain padding bits, which do not belong to any byte.
    (digits.len() * 6 / 8 * 8).saturating_sub(6 * zeros + first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modulus_bits_are_counted_exactly() {
        assert_eq!(base64url_bits(&"_".repeat(342)), 2048);
        assert_eq!(base64url_bits(""), 0);
        // 0x00_01, 0x7f, 0x80, 0xff_ff.
        for (text, bytes, expected) in [
            ("AAE", &[0, 1][..], 1),
            ("fw", &[0x7f], 7),
            ("gA==", &[0x80], 8),
            ("__8", &[0xff, 0xff], 16),
        ] {
            assert_eq!(base64url_bits(text), expected, "{text}");
            assert_eq!(bits(bytes), expected, "{text}");
        }
        assert_eq!(bits(&[]), 0);
        assert_eq!(modulus(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(modulus(&[0x30, 0x03, 0x02, 0x01, 0x07]), Some(&[7][..]));
    }
}
