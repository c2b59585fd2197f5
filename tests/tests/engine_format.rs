//! The on-disk format, read by its description: everything here is taken from
//! docs/format.md, and nothing from the engine's code. If this fails, either the format
//! has changed without a new version, or the description is wrong.

use prefd_engine::WriteOptions;
use prefd_tests::layout::crc32;
use prefd_tests::sim_store::{Store, put};

/// Reads fields in the order in which the tables list them.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        taken
    }

    fn number(&mut self, len: usize) -> u64 {
        self.take(len)
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    fn text(&mut self, length_bytes: usize) -> &'a str {
        let len = usize::try_from(self.number(length_bytes)).unwrap();
        std::str::from_utf8(self.take(len)).unwrap()
    }

    /// Checks the CRC-32 here over all bytes from `from` on.
    fn check_crc(&mut self, from: usize) {
        let expected = u64::from(crc32(&self.bytes[from..self.at]));
        assert_eq!(self.number(4), expected);
    }

    fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }
}

/// The file header; the store's id.
fn file_header(fields: &mut Fields, magic: &str, id: u64) -> u64 {
    assert_eq!(fields.take(8), magic.as_bytes());
    assert_eq!((fields.number(2), fields.number(2)), (1, 0));
    assert_eq!(fields.number(4), id);
    let store = fields.number(8);
    fields.check_crc(0);
    store
}

struct Frame {
    offset: u64,
    bytes: u64,
    kind: u64,
    flags: u64,
    hash: Vec<u8>,
    revision: u64,
    modified: u64,
    watermark: u64,
    user: String,
    client: String,
    keys: u64,
    body_bytes: u64,
    blobs: Vec<u64>,
    inline: Vec<u8>,
}

/// A frame, and what its members say of its body.
fn frame(segment: &[u8], offset: usize, blob: &[u8]) -> Frame {
    let mut fields = Fields::new(&segment[offset..]);
    assert_eq!(fields.take(4), b"PFRM");
    assert_eq!((fields.number(1), fields.number(1)), (1, 1));
    let (kind, flags) = (fields.number(1), fields.number(1));
    let hash = fields.take(16).to_vec();
    let (revision, modified, watermark) = (fields.number(8), fields.number(8), fields.number(8));
    let meta_bytes = usize::try_from(fields.number(4)).unwrap();
    let inline_bytes = usize::try_from(fields.number(4)).unwrap();
    let (meta_crc, inline_crc) = (fields.number(4), fields.number(4));
    fields.check_crc(0);
    assert_eq!(fields.at, 68);
    let meta = fields.take(meta_bytes);
    let inline = fields.take(inline_bytes);
    assert_eq!(meta_crc, u64::from(crc32(meta)));
    assert_eq!(inline_crc, u64::from(crc32(inline)));
    let mut meta = Fields::new(meta);
    let (user, client) = (meta.text(8).to_owned(), meta.text(8).to_owned());
    let keys = meta.number(8);
    let mut body = vec![b'{'];
    let mut blobs = Vec::new();
    for index in 0..keys {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(meta.text(8).as_bytes());
        body.push(b':');
        let place = |offset: u64, len: u64| {
            usize::try_from(offset).unwrap()..usize::try_from(offset + len).unwrap()
        };
        match meta.number(4) {
            0 => {
                let range = place(meta.number(4), 0);
                let len = usize::try_from(meta.number(4)).unwrap();
                body.extend_from_slice(&inline[range.start..range.start + len]);
            }
            1 => {
                blobs.push(meta.number(8));
                let (offset, len) = (meta.number(8), meta.number(8));
                let value = &blob[place(offset, len)];
                let crcs = meta.number(8);
                assert_eq!(crcs, len.div_ceil(65_536));
                for chunk in value.chunks(65_536) {
                    assert_eq!(meta.number(4), u64::from(crc32(chunk)));
                }
                body.extend_from_slice(value);
            }
            other => panic!("place {other}"),
        }
    }
    body.push(b'}');
    assert!(meta.is_at_end());
    if blobs.is_empty() && kind == 1 {
        assert_eq!(inline, body);
    } else {
        assert!(inline.is_empty());
    }
    Frame {
        offset: offset as u64,
        bytes: fields.at as u64,
        kind,
        flags,
        hash,
        revision,
        modified,
        watermark,
        user,
        client,
        keys,
        body_bytes: if kind == 1 { body.len() as u64 } else { 0 },
        blobs,
        inline: body,
    }
}

/// `SipHash` with 64-bit words, for the namespace hash: SipHash-2-4-128.
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

#[test]
fn every_file_is_as_format_md_describes_it() {
    let store = Store::new();
    let engine = store.open().unwrap();
    let large = format!("{{\"big\":\"{}\",\"small\":[1]}}", "x".repeat(150_000));
    put(&engine, "c", "{ \"a\\u00e9\" : 1.0 , \"b\":{} }").unwrap();
    put(&engine, "large", &large).unwrap();
    engine
        .namespace("u", "c")
        .unwrap()
        .delete(WriteOptions::default())
        .unwrap();
    engine.close().unwrap();

    // The manifest.
    let manifest = store.disk.bytes(&store.path("log/manifest"));
    let mut fields = Fields::new(&manifest);
    assert_eq!(fields.take(8), b"PREFDMAN");
    assert_eq!(
        (fields.number(2), fields.number(1), fields.number(1)),
        (1, 1, 0)
    );
    let body_bytes = usize::try_from(fields.number(4)).unwrap();
    let body_crc = fields.number(4);
    fields.check_crc(0);
    let body = fields.take(body_bytes);
    assert!(fields.is_at_end());
    assert_eq!(body_crc, u64::from(crc32(body)));
    let mut fields = Fields::new(body);
    let hash_key = fields.take(16);
    let store_id = fields.number(8);
    assert_eq!(
        (fields.number(4), fields.number(8)),
        (2, 4),
        "next segment, reserved revision"
    );
    assert_eq!(
        (fields.number(8), fields.number(4), fields.number(1)),
        (1, 1, 1),
        "one segment, sealed"
    );
    let (segment_bytes, last_revision) = (fields.number(8), fields.number(8));
    assert_eq!(last_revision, 3);
    assert!(fields.is_at_end());

    // The blob and the segment.
    let blob = store.disk.bytes(&store.path("blobs/0000000000000001.blob"));
    assert_eq!(
        file_header(&mut Fields::new(&blob), "PREFDBLB", 1),
        store_id
    );
    assert_eq!(&blob[28..], large.as_bytes());
    let segment = store.disk.bytes(&store.path("log/00000001.seg"));
    assert_eq!(segment.len() as u64, segment_bytes);
    assert_eq!(
        file_header(&mut Fields::new(&segment), "PREFDSEG", 1),
        store_id
    );
    let mut frames = Vec::new();
    let mut at = 28;
    while at < segment.len() {
        let frame = frame(&segment, at, &blob);
        at += usize::try_from(frame.bytes).unwrap();
        frames.push(frame);
    }
    let kinds: Vec<_> = frames
        .iter()
        .map(|f| (f.kind, f.flags, f.revision, f.keys))
        .collect();
    assert_eq!(kinds, [(1, 0, 1, 2), (1, 1, 2, 2), (2, 0, 3, 0)]);
    assert_eq!(frames[0].inline, "{\"a\\u00e9\":1.0,\"b\":{}}".as_bytes());
    assert_eq!(frames[1].inline, large.as_bytes());
    for frame in &frames {
        assert_eq!(
            (frame.user.as_str(), frame.watermark),
            ("u", frame.offset),
            "synced one by one"
        );
        let message = [
            &1_u64.to_le_bytes(),
            b"u".as_slice(),
            frame.client.as_bytes(),
        ]
        .concat();
        assert_eq!(frame.hash, sip128(hash_key, &message));
    }

    // The summary.
    let summary = store.disk.bytes(&store.path("log/00000001.sum"));
    let mut fields = Fields::new(&summary);
    assert_eq!(file_header(&mut fields, "PREFDSUM", 1), store_id);
    assert_eq!(
        (fields.number(8), fields.number(4), fields.number(4)),
        (segment_bytes, 3, 1)
    );
    let details_bytes = usize::try_from(fields.number(4)).unwrap();
    let crcs = [fields.number(4), fields.number(4), fields.number(4)];
    fields.check_crc(28);
    assert_eq!(fields.at, 64);
    let entries = fields.take(3 * 37);
    let blobs = fields.take(12);
    let details = fields.take(details_bytes);
    assert!(fields.is_at_end());
    assert_eq!(
        crcs,
        [entries, details, blobs].map(|section| u64::from(crc32(section)))
    );
    let mut fields = Fields::new(blobs);
    assert_eq!(
        (fields.number(4), fields.number(8)),
        (1, frames[1].blobs[0])
    );
    let (mut entries, mut details) = (Fields::new(entries), Fields::new(details));
    for (frame, kind) in frames.iter().zip([1, 2, 3]) {
        assert_eq!(entries.take(16), frame.hash);
        assert_eq!(entries.number(8), frame.revision);
        assert_eq!(
            (entries.number(4), entries.number(4)),
            (frame.offset, frame.bytes)
        );
        assert_eq!((entries.number(1), entries.number(4)), (kind, frame.keys));
        assert_eq!(
            (details.text(1), details.text(1)),
            (frame.user.as_str(), frame.client.as_str())
        );
        assert_eq!(
            (details.number(8), details.number(8)),
            (frame.body_bytes, frame.modified)
        );
    }
    assert!(entries.is_at_end() && details.is_at_end());
}
