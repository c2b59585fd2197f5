//! Reads the files of a store as docs/format.md describes them, without the engine's code.

use crate::layout::{crc32, decode_delta, varint};

/// Reads the fields of a file in the order of the tables in docs/format.md.
#[derive(Debug)]
pub struct FieldReader<'a> {
    bytes: &'a [u8],
    /// Offset of the next field.
    pub at: usize,
}

impl<'a> FieldReader<'a> {
    /// Starts at the first of the given bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads the next `len` bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        taken
    }

    /// Reads a little-endian integer of `len` bytes.
    pub fn number(&mut self, len: usize) -> u64 {
        self.take(len)
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// Reads a length of `length_bytes` bytes, and then a text of that length.
    pub fn text(&mut self, length_bytes: usize) -> &'a str {
        let len = usize::try_from(self.number(length_bytes)).unwrap();
        std::str::from_utf8(self.take(len)).unwrap()
    }

    /// Reads a varint.
    pub fn varint(&mut self) -> u64 {
        let (value, end) = varint(self.bytes, self.at).unwrap();
        self.at = end;
        value
    }

    /// Reads a number that is stored as a zigzag-encoded difference from `from`.
    pub fn delta(&mut self, from: u64) -> u64 {
        decode_delta(from, self.varint())
    }

    /// Reads a CRC-32, and checks it against the bytes between `from` and the CRC.
    pub fn check_crc(&mut self, from: usize) {
        let expected = u64::from(crc32(&self.bytes[from..self.at]));
        assert_eq!(self.number(4), expected);
    }

    /// Returns true if all bytes have been read.
    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

/// Reads and checks a file header. Returns the id of the store.
pub fn file_header(fields: &mut FieldReader, magic: &str, version: u64, id: u64) -> u64 {
    assert_eq!(fields.take(8), magic.as_bytes());
    assert_eq!((fields.number(2), fields.number(2)), (version, 0));
    assert_eq!(fields.number(4), id);
    let store = fields.number(8);
    fields.check_crc(0);
    store
}

/// Computes the hash of a namespace.
pub fn namespace_hash(key: &[u8], user: &str, client: &str) -> Vec<u8> {
    let user_bytes = (user.len() as u64).to_le_bytes();
    sip128(
        key,
        &[&user_bytes, user.as_bytes(), client.as_bytes()].concat(),
    )
}

/// SipHash-2-4 with a 128-bit result, the function of the namespace hash.
fn sip128(key: &[u8], message: &[u8]) -> Vec<u8> {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let (k0, k1) = (word(&key[..8]), word(&key[8..]));
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let round = |v: &mut [u64; 4]| {
        v[0] = v[0].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(13) ^ v[0];
        v[0] = v[0].rotate_left(32);
        v[2] = v[2].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(16) ^ v[2];
        v[0] = v[0].wrapping_add(v[3]);
        v[3] = v[3].rotate_left(21) ^ v[0];
        v[2] = v[2].wrapping_add(v[1]);
        v[1] = v[1].rotate_left(17) ^ v[2];
        v[2] = v[2].rotate_left(32);
    };
    let mut padded = message.to_vec();
    padded.resize(message.len() / 8 * 8 + 8, 0);
    *padded.last_mut().unwrap() = message.len() as u8;
    for block in padded.chunks(8) {
        v[3] ^= word(block);
        round(&mut v);
        round(&mut v);
        v[0] ^= word(block);
    }
    let mut hash = Vec::new();
    for (lane, mark) in [(2, 0xee), (1, 0xdd)] {
        v[lane] ^= mark;
        for _ in 0..4 {
            round(&mut v);
        }
        hash.extend_from_slice(&(v[0] ^ v[1] ^ v[2] ^ v[3]).to_le_bytes());
    }
    hash
}

/// The contents of a manifest.
#[derive(Debug)]
pub struct Manifest {
    /// Key of the namespace hash.
    pub hash_key: Vec<u8>,
    /// Id of the store.
    pub store: u64,
    /// Id of the next segment.
    pub next_segment: u64,
    /// Every revision below this one may have been used.
    pub reserved_revision: u64,
    /// The highest time of the sealed segments. Version 1 does not contain it.
    pub highest_modified_ms: Option<u64>,
    /// Id of each segment. For a sealed segment, also its length and highest revision.
    pub segments: Vec<(u64, Option<(u64, u64)>)>,
}

/// Reads and checks a manifest.
pub fn manifest(bytes: &[u8]) -> Manifest {
    let mut fields = FieldReader::new(bytes);
    assert_eq!(fields.take(8), b"PREFDMAN");
    let version = fields.number(2);
    assert!(matches!(version, 1 | 3), "version {version}");
    assert_eq!((fields.number(1), fields.number(1)), (1, 0));
    let body_bytes = usize::try_from(fields.number(4)).unwrap();
    let body_crc = fields.number(4);
    fields.check_crc(0);
    let body = fields.take(body_bytes);
    assert!(fields.is_at_end());
    assert_eq!(body_crc, u64::from(crc32(body)));
    let mut fields = FieldReader::new(body);
    let hash_key = fields.take(16).to_vec();
    let store = fields.number(8);
    let (next_segment, reserved_revision) = (fields.number(4), fields.number(8));
    let highest_modified_ms = (version == 3).then(|| fields.number(8));
    let count = fields.number(8);
    let segments = (0..count).map(|_| {
        let (id, tag) = (fields.number(4), fields.number(1));
        let sealed = (tag == 1).then(|| (fields.number(8), fields.number(8)));
        (id, sealed)
    });
    let segments = segments.collect();
    assert!(fields.is_at_end());
    Manifest {
        hash_key,
        store,
        next_segment,
        reserved_revision,
        highest_modified_ms,
        segments,
    }
}

/// Reads the metadata of an extent (blob, offset, length, checksums), and returns the blob's id
/// and the value. Checks every checksum. If the blob does not exist, the value is all zeros.
pub fn extent<'a>(
    meta: &mut FieldReader,
    blob: impl Fn(u64) -> Option<&'a [u8]>,
) -> (u64, Vec<u8>) {
    let id = meta.number(8);
    let (offset, len) = (meta.number(8), meta.number(8));
    let end = usize::try_from(offset + len).unwrap();
    let found = blob(id).map(|blob| blob[usize::try_from(offset).unwrap()..end].to_vec());
    let is_there = found.is_some();
    let value = found.unwrap_or_else(|| vec![0; usize::try_from(len).unwrap()]);
    assert_eq!(meta.number(8), len.div_ceil(65_536));
    for chunk in value.chunks(65_536) {
        let crc = meta.number(4);
        assert!(!is_there || crc == u64::from(crc32(chunk)));
    }
    (id, value)
}
