//! Fields of the hand-written layouts, bounds checked: fixed-width ones, little endian,
//! and varints (LEB128). A layout is read from the disk, so nothing about its length is
//! believed; and each number has one spelling, so that nothing in a file is ignored.

/// Takes fields off the front of a slice; `None` once it is used up.
pub(crate) struct FieldReader<'a>(&'a [u8]);

impl<'a> FieldReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

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

    /// Seven bits in each byte, the lowest first; the high bit says that more follow.
    /// One that is longer than it must be, or than 64 bits, is none.
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

    /// A varint of 32 bits.
    pub(crate) fn varint_u32(&mut self) -> Option<u32> {
        self.varint()?.try_into().ok()
    }

    /// One length byte, and so many bytes of UTF-8.
    pub(crate) fn short_text(&mut self) -> Option<&'a str> {
        let len = self.u8()?;
        std::str::from_utf8(self.take(len.into())?).ok()
    }

    /// What is left.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Bytes of a varint, at most.
pub(crate) const MAX_VARINT_BYTES: usize = 10;

/// Writes what [`FieldReader::varint`] reads.
pub(crate) fn push_varint(to: &mut Vec<u8>, value: u64) {
    let mut left = value;
    loop {
        #[allow(clippy::cast_possible_truncation, reason = "the lowest seven bits")]
        let bits = (left & 0x7f) as u8;
        left >>= 7;
        if left == 0 {
            to.push(bits);
            return;
        }
        to.push(bits | 0x80);
    }
}

/// Writes what [`FieldReader::short_text`] reads. Names have no more than 255 bytes.
pub(crate) fn push_short_text(to: &mut Vec<u8>, text: &str) {
    to.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    to.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_comes_back_and_takes_as_few_bytes_as_it_can() {
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
    fn a_varint_has_one_spelling() {
        let eleven_bytes = [[0x80; 10].as_slice(), &[1]].concat();
        for wrong in [
            &[0x80, 0][..],
            &[0xff, 0x80, 0],
            // The tenth byte has room for one bit.
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
