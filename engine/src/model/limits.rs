//! The limits of a document, and the violations that validation reports.

use std::fmt;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The limits on the size of a document. All limits are inclusive: a document whose size is equal
/// to a limit is accepted.
///
/// [`Limits::new`] computes the body limit from the other limits. The caller can change every field
/// of the returned `Limits`.
///
/// ```
/// use prefd_engine::{Limits, Violation, check};
/// let mut limits = Limits::new(2, 128, 1024);
/// limits.max_depth = 1;
/// assert!(check(br#"{"tabs": [4], "theme": "dark"}"#, &limits).is_ok());
/// assert!(matches!(
///     check(br#"{"tabs": [4], "theme": "dark", "zoom": 2}"#, &limits),
///     Err(Violation::TooManyKeys { limit: 2, actual: 3, .. }),
/// ));
/// assert!(matches!(check(br#"{"tabs": [[4]]}"#, &limits), Err(Violation::Json { .. })));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of members of the top-level object.
    pub max_keys: u32,
    /// Maximum length of a key, in bytes of UTF-8 after decoding escapes.
    pub max_key_bytes: u32,
    /// Maximum length of the JSON text of a value, in bytes, including quotes, escapes and inner
    /// whitespace.
    pub max_value_bytes: u64,
    /// Maximum length of the body as received, in bytes, including all whitespace.
    pub max_body_bytes: u64,
    /// Maximum nesting of arrays and objects inside a value. The top-level object is not
    /// counted.
    pub max_depth: u32,
}

impl Limits {
    /// The limits of the PACE Cloud preferences API: "not … more than 10 key-value pairs", a key
    /// "not … longer than 128 bytes", a value "not longer than 10 megabytes". The engine interprets
    /// 10 megabytes as 10 MiB.
    pub const DEFAULT: Self = Self::new(10, 128, 10 * MIB);

    /// The default of [`Self::max_depth`], which is close to the default limit of `serde_json` (127
    /// levels, including the top-level object).
    pub const DEFAULT_DEPTH: u32 = 128;

    /// Creates limits with the given maxima, a computed [`Self::max_body_bytes`], and the default
    /// [`Self::max_depth`].
    ///
    /// The body limit is `max_keys` × (`max_value_bytes` + 8 × `max_key_bytes`) + 1 MiB. The body
    /// limit is large enough for every body that is within the other limits and has at most about 1
    /// MiB of whitespace outside keys and values. The formula counts eight bytes for each byte of a
    /// key: six for an escape (`\u00XX`), and two for quotes and punctuation.
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

/// The size of a document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of members of the top-level object.
    pub keys: u32,
    /// Length of the body that a read returns, in bytes. A read returns the body without whitespace
    /// outside keys and values, so the length can be less than the length of the body that was
    /// written.
    pub bytes: u64,
}

/// A position in a body. [`Display`](fmt::Display) formats a position as "line 2 column 5".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of bytes of the body before this position.
    pub offset: u64,
    /// Line number. The first line is 1.
    pub line: u64,
    /// Column number in bytes. The first byte of a line has column 1.
    pub column: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} column {}", self.line, self.column)
    }
}

/// The violation that occurs first in a document, by byte offset.
///
/// If a variant has a field `actual`, the value of this field is a lower bound, because validation
/// stops at the first violation.
///
/// ```
/// use prefd_engine::{Limits, Violation, check};
/// let violation = check(br#"{"a": 1, "\u0061": 2}"#, &Limits::default()).unwrap_err();
/// let Violation::DuplicateKey { at, key } = violation else { panic!() };
/// assert_eq!((at.offset, key.as_str()), (9, "a"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// The body is not valid JSON (RFC 8259), or a value is nested more deeply than
    /// [`Limits::max_depth`].
    #[error("{what} at {at}")]
    Json {
        /// Position of the first invalid byte, or of the end of an incomplete body.
        at: Position,
        /// Description of the error, such as "expected a value".
        what: String,
    },
    /// The body is a JSON value, but not an object.
    #[error("the document is not a JSON object")]
    NotAnObject {
        /// Position of the first byte of the JSON value.
        at: Position,
    },
    /// Two members have the same key after their escapes are decoded.
    #[error("the key {key:?} appears twice, the second time at {at}")]
    DuplicateKey {
        /// Position of the opening quote of the second occurrence of the key.
        at: Position,
        /// The decoded key.
        key: String,
    },
    /// The document has more members than [`Limits::max_keys`].
    #[error("the document has at least {actual} keys; the limit is {limit}")]
    TooManyKeys {
        /// Position of the opening quote of the first key above the limit.
        at: Position,
        /// The limit on the number of keys.
        limit: u32,
        /// Lower bound of the number of keys.
        actual: u32,
    },
    /// A key is longer than [`Limits::max_key_bytes`].
    #[error("a key is at least {actual} bytes long; the limit is {limit} bytes")]
    KeyTooLong {
        /// Position of the opening quote of the key.
        at: Position,
        /// The limit on the length of a key in bytes.
        limit: u32,
        /// Lower bound of the length of the key in bytes.
        actual: u32,
    },
    /// A value is longer than [`Limits::max_value_bytes`].
    #[error("the value of {key:?} is at least {actual} bytes long; the limit is {limit} bytes")]
    ValueTooLong {
        /// Position of the first byte of the value.
        at: Position,
        /// The decoded key of the value.
        key: String,
        /// The limit on the length of a value in bytes.
        limit: u64,
        /// Lower bound of the length of the value in bytes.
        actual: u64,
    },
    /// The body is longer than [`Limits::max_body_bytes`].
    #[error("the body is at least {actual} bytes long; the limit is {limit} bytes")]
    BodyTooLong {
        /// The limit on the length of the body in bytes.
        limit: u64,
        /// Lower bound of the length of the body in bytes.
        actual: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_body_limit_is_ten_members_and_one_mebibyte() {
        assert_eq!(
            Limits::default().max_body_bytes,
            10 * (10 * 1024 * 1024 + 1024) + 1024 * 1024
        );
    }
}
