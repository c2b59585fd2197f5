//! The limits of a document, and the ways to break them.

use std::fmt;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What a document may be. Exactly at a limit is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Members of the top-level object.
    pub max_keys: u32,
    /// UTF-8 bytes of one decoded key.
    pub max_key_bytes: u32,
    /// Bytes of one value's JSON text, first to last byte: quotes, escapes and
    /// inner whitespace are counted.
    pub max_value_bytes: u64,
    /// Bytes of the whole body as received, whitespace included.
    pub max_body_bytes: u64,
    /// Levels of arrays and objects inside one value.
    pub max_depth: u32,
}

impl Limits {
    /// The page's own limits: "not … more than 10 key-value pairs", a key "not …
    /// longer than 128 bytes", a value "not longer than 10 megabytes", the last
    /// read as 10 MiB.
    pub const DEFAULT: Self = Self::new(10, 128, 10 * MIB);

    /// The levels that `serde_json` parses by default, so that what is stored can
    /// be read by common parsers.
    pub const DEFAULT_DEPTH: u32 = 128;

    /// These limits, and a body limit in the default proportion: room for every
    /// value, for every key written in escapes (six bytes for one, and its
    /// punctuation), and 1 MiB of whitespace.
    pub const fn new(max_keys: u32, max_key_bytes: u32, max_value_bytes: u64) -> Self {
        let member_bytes = max_value_bytes.saturating_add(8 * max_key_bytes as u64);
        Self {
            max_keys,
            max_key_bytes,
            max_value_bytes,
            max_body_bytes: (max_keys as u64)
                .saturating_mul(member_bytes)
                .saturating_add(MIB),
            max_depth: Self::DEFAULT_DEPTH,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How much a document, or all documents of a user, take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Members of the top-level object.
    pub keys: u32,
    /// Bytes of the document as it is stored and read back: without whitespace
    /// between members.
    pub bytes: u64,
}

/// A place in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Bytes before it.
    pub offset: u64,
    /// Its line, from 1.
    pub line: u64,
    /// Its byte in the line, from 1.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// The first thing, in the order of its bytes, that is wrong with a document.
///
/// `actual` is a lower bound: reading stops at the violation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Not JSON (RFC 8259), or nested too deeply.
    #[error("{what} at {at}")]
    Json {
        /// Where.
        at: Position,
        /// What is wrong there.
        what: String,
    },
    /// JSON, but not an object.
    #[error("the document is not a JSON object")]
    NotAnObject {
        /// Where the other value begins.
        at: Position,
    },
    /// Two members have the same key, once decoded.
    #[error("the key {key:?} is there twice, the second time at {at}")]
    DuplicateKey {
        /// Where the second one begins.
        at: Position,
        /// The decoded key.
        key: String,
    },
    /// More members than [`Limits::max_keys`].
    #[error("the document has at least {actual} keys, and {limit} are allowed")]
    TooManyKeys {
        /// Where the first key too many begins.
        at: Position,
        /// The limit.
        limit: u32,
        /// How many there are at least.
        actual: u32,
    },
    /// A key longer than [`Limits::max_key_bytes`].
    #[error("a key has at least {actual} bytes, and {limit} are allowed")]
    KeyTooLong {
        /// Where the key begins.
        at: Position,
        /// The limit in bytes.
        limit: u32,
        /// How many bytes it has at least.
        actual: u32,
    },
    /// A value longer than [`Limits::max_value_bytes`].
    #[error("the value of {key:?} has at least {actual} bytes, and {limit} are allowed")]
    ValueTooLong {
        /// Where the value begins.
        at: Position,
        /// The decoded key of its member.
        key: String,
        /// The limit in bytes.
        limit: u64,
        /// How many bytes it has at least.
        actual: u64,
    },
    /// A body longer than [`Limits::max_body_bytes`].
    #[error("the body has at least {actual} bytes, and {limit} are allowed")]
    BodyTooLong {
        /// The limit in bytes.
        limit: u64,
        /// How many bytes it has at least.
        actual: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_body_limit_is_ten_members_and_a_mebibyte() {
        assert_eq!(
            Limits::default().max_body_bytes,
            10 * (10 * 1024 * 1024 + 1024) + 1024 * 1024
        );
    }
}
