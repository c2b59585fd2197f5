//! Readers and writers of the fields in hand-written layouts: little-endian fixed-width integers,
//! varints (unsigned LEB128) and short texts.
//!
//! Each read is bounds-checked, because the bytes come from the disk and may be damaged. Each
//! number has exactly one valid encoding, so decoding and re-encoding a number yields the same
//! bytes.

/// Reads fields from the front of a slice. A read returns `None` if the slice is too short or
/// if the field is not valid.
pub(crate) struct FieldReader<'a>(&'a [u8]);

impl<'a> FieldReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Reads the next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads a varint. Each byte of a varint contains seven bits of the number, starting with the
    /// lowest seven bits. The high bit of a byte is set if another byte of the varint follows.
    /// Returns `None` if the encoding is longer than necessary, or if the number needs more than 64
    /// bits.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            let placed = bits << shift;
            if placed >> shift != bits {
                return None;
            }
            value |= placed;
            if byte < 0x80 {
                return (byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }

    /// Reads a varint. Returns `None` if the number needs more than 32 bits.
    pub(crate) fn varint_u32(&mut self) -> Option<u32> {
        self.varint()?.try_into().ok()
    }

    /// Reads a text of at most 255 bytes: one byte for the length, and then the UTF-8 bytes.
    pub(crate) fn short_text(&mut self) -> Option<&'a str> {
        let len = self.u8()?;
        std::str::from_utf8(self.take(len.into())?).ok()
    }

    /// The bytes that have not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Maximum length of a varint in bytes.
pub(crate) const MAX_VARINT_BYTES: usize = 10;

/// Appends a varint, in the encoding that [`FieldReader::varint`] reads.
pub(crate) fn push_varint(to: &mut Vec<u8>, value: u64) {
    let mut left = value;
    loop {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "masked to the lowest seven bits"
        )]
        let bits = (left & 0x7f) as u8;
        left >>= 7;
        if left == 0 {
            to.push(bits);
            return;
        }
        to.push(bits | 0x80);
    }
}

/// Computes the zigzag-encoded difference `value - base`, modulo 2⁶⁴: 0, −1, 1, −2, 2 are encoded
/// as 0, 1, 2, 3, 4.
pub(crate) fn encode_delta(base: u64, value: u64) -> u64 {
    let delta = value.wrapping_sub(base);
    (delta << 1) ^ (delta >> 63).wrapping_neg()
}

/// Computes the value whose difference from `base` is encoded as `delta`.
pub(crate) fn decode_delta(base: u64, delta: u64) -> u64 {
    base.wrapping_add((delta >> 1) ^ (delta & 1).wrapping_neg())
}

/// Appends a text of at most 255 bytes, in the encoding that [`FieldReader::short_text`] reads.
pub(crate) fn push_short_text(to: &mut Vec<u8>, text: &str) {
    to.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    to.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varint_round_trips_in_the_fewest_bytes() {
        for (value, bytes) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (16_383, 2),
            (16_384, 3),
            (u64::from(u32::MAX), 5),
            (1 << 63, 10),
            (u64::MAX, MAX_VARINT_BYTES),
        ] {
            let mut encoded = Vec::new();
            push_varint(&mut encoded, value);
            assert_eq!(encoded.len(), bytes, "{value}");
            let mut fields = FieldReader::new(&encoded);
            assert_eq!(fields.varint(), Some(value));
            assert!(fields.is_empty());
            for len in 0..bytes {
                assert_eq!(
                    FieldReader::new(&encoded[..len]).varint(),
                    None,
                    "{value} cut"
                );
            }
        }
    }

    #[test]
    fn varint_with_a_second_encoding_is_rejected() {
        let eleven_bytes = [[0x80; 10].as_slice(), &[1]].concat();
        for wrong in [
            &[0x80, 0][..],
            &[0xff, 0x80, 0],
            // The first nine bytes of a varint contain 63 of the 64 bits, so the tenth byte must
            // not exceed 1.
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &eleven_bytes,
        ] {
            assert_eq!(FieldReader::new(wrong).varint(), None, "{wrong:02x?}");
        }
        assert_eq!(
            FieldReader::new(&[0x80, 0x80, 0x80, 0x80, 0x10]).varint_u32(),
            None
        );
    }
}
