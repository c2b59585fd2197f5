//! The encoding of the catalogue's keys and values.

use std::ops::ControlFlow;

use crate::format::fields::FieldReader;
use crate::model::error::Error;
use crate::model::limits::Usage;

/// The names of a user and a client, separated by a NUL byte. Names contain no control characters,
/// so keys are sorted by user and then by client.
pub(super) type CatalogueKey = Vec<u8>;

/// The new value of a key, or `None` if the document was deleted.
pub(super) type CatalogueChange = Option<CatalogueValue>;

/// A callback that is called with the user, the client and the value of each document. If the
/// callback returns `Break`, no more documents are visited.
pub(crate) type DocumentVisitor<'a> = dyn FnMut(&str, &str, CatalogueValue) -> ControlFlow<()> + 'a;

/// The result of visiting the documents of the log.
pub(crate) struct Visited {
    /// `Break` if a [`DocumentVisitor`] ended the visit.
    pub(crate) flow: ControlFlow<()>,
    /// The first damage that was skipped. If damage was skipped, some documents may not have been
    /// visited.
    pub(crate) skipped: Option<Error>,
}

/// The value of a catalogue entry, which describes one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CatalogueValue {
    pub(crate) revision: u64,
    pub(crate) modified_ms: u64,
    pub(crate) usage: Usage,
}

impl CatalogueValue {
    const BYTES: usize = 28;

    /// Encodes the fields as little-endian integers, in this order: revision, modification time,
    /// number of bytes, number of keys.
    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let fields = self
            .revision
            .to_le_bytes()
            .into_iter()
            .chain(self.modified_ms.to_le_bytes())
            .chain(self.usage.bytes.to_le_bytes())
            .chain(self.usage.keys.to_le_bytes());
        for (target, byte) in bytes.iter_mut().zip(fields) {
            *target = byte;
        }
        bytes
    }

    /// Decodes a value. Returns `None` if `bytes` does not have the length of an encoded value.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = FieldReader::new(bytes);
        let value = Self {
            revision: fields.u64()?,
            modified_ms: fields.u64()?,
            usage: Usage {
                bytes: fields.u64()?,
                keys: fields.u32()?,
            },
        };
        fields.is_empty().then_some(value)
    }
}

/// Splits a key into the user and the client.
pub(super) fn split_key(key: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = key.splitn(2, |byte| *byte == 0);
    let user = parts.next().unwrap_or_default();
    (user, parts.next().unwrap_or_default())
}

/// Converts a name from the tree to a string. Invalid UTF-8 is replaced by U+FFFD.
pub(super) fn lossy_text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Returns the catalogue key for a user name and a client name.
pub(super) fn key(user: &str, client: &str) -> CatalogueKey {
    let mut key = Vec::with_capacity(user.len() + 1 + client.len());
    key.extend_from_slice(user.as_bytes());
    key.push(0);
    key.extend_from_slice(client.as_bytes());
    key
}
