//! The name of a user or client in a segment of a URL path.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;

use crate::store::{InvalidName, Name};

/// Why a segment of a path is not a name. [`fmt::Display`] completes a sentence that begins with
/// what the name identifies, such as "The client ID".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidPathName {
    Escape,
    Utf8,
    Name(InvalidName),
}

impl fmt::Display for InvalidPathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Escape => "is not percent-encoded correctly.",
            Self::Utf8 => "is not valid UTF-8.",
            Self::Name(InvalidName::TooLong) => "is longer than 255 bytes.",
            Self::Name(InvalidName::ControlCharacter) => "contains a control character.",
            Self::Name(_) => "is not valid.",
        })
    }
}

/// Decodes a segment once. Most segments contain no escapes, so they need no copy.
///
/// # Errors
/// [`InvalidPathName::Escape`] or [`InvalidPathName::Utf8`].
pub(super) fn decode(segment: &str) -> Result<Cow<'_, str>, InvalidPathName> {
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
    let is_malformed = segment.split('%').skip(1).any(|escape| {
        let digits = escape.as_bytes().get(..2);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if is_malformed {
        return Err(InvalidPathName::Escape);
    }
    let decoded = percent_decode_str(segment).decode_utf8();
    decoded.map_err(|_| InvalidPathName::Utf8)
}

/// Decodes a segment, and checks that the result is a name.
///
/// # Errors
/// [`InvalidPathName`].
pub(crate) fn name(segment: &str) -> Result<Name, InvalidPathName> {
    Name::new(&decode(segment)?).map_err(InvalidPathName::Name)
}
