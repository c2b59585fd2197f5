//! Rows of the catalogue: the encoding of keys and values.

use std::ops::ControlFlow;

use crate::format::fields::FieldReader;
use crate::model::limits::Usage;

/// A user and a client with a NUL between them: names hold no control characters,
/// so these sort by user, then client.
pub(super) type CatalogueKey = Vec<u8>;

/// `None`: the namespace is empty.
pub(super) type CatalogueChange = Option<CatalogueValue>;

/// Called with user, client and value of one document. Breaks to end the visit.
pub(crate) type DocumentVisitor<'a> = dyn FnMut(&str, &str, CatalogueValue) -> ControlFlow<()> + 'a;

/// What is known of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CatalogueValue {
    pub(crate) revision: u64,
    pub(crate) modified_ms: u64,
    pub(crate) usage: Usage,
}

impl CatalogueValue {
    const BYTES: usize = 28;

    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let fields = self
            .revision
            .to_le_bytes()
            .into_iter()
            .chain(self.modified_ms.to_le_bytes())
            .chain(self.usage.bytes.to_le_bytes())
            .chain(self.usage.keys.to_le_bytes());
        for (place, byte) in bytes.iter_mut().zip(fields) {
            *place = byte;
        }
        bytes
    }

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

/// The user and the client of a key.
pub(super) fn parts(key: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = key.splitn(2, |byte| *byte == 0);
    let user = parts.next().unwrap_or_default();
    (user, parts.next().unwrap_or_default())
}

pub(super) fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

pub(super) fn key(user: &str, client: &str) -> CatalogueKey {
    let mut key = Vec::with_capacity(user.len() + 1 + client.len());
    key.extend_from_slice(user.as_bytes());
    key.push(0);
    key.extend_from_slice(client.as_bytes());
    key
}
