//! Formats header values.

use std::fmt;
use std::io::Write;

use hyper::header::HeaderValue;

/// The media type of documents.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The value of Cache-Control in a response that no cache may store.
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// The value of Connection in a response after which the connection is closed.
pub(super) const CLOSE: HeaderValue = HeaderValue::from_static("close");
/// Maximum length of a formatted value in bytes. An HTTP date has 29 bytes, and a revision in
/// quotes has at most 22 bytes.
const MAX_VALUE_BYTES: usize = 64;

/// Formats a header value. Returns `None` if the text is longer than `MAX_VALUE_BYTES`, or contains
/// a byte that is not allowed in a header value. The text is formatted on the stack, because this
/// function runs for every response.
pub(super) fn header_value(text: fmt::Arguments<'_>) -> Option<HeaderValue> {
    let mut buffer = [0; MAX_VALUE_BYTES];
    let mut rest = &mut buffer[..];
    rest.write_fmt(text).ok()?;
    let bytes = MAX_VALUE_BYTES - rest.len();
    HeaderValue::from_bytes(buffer.get(..bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_or_too_long_value_is_none() {
        assert_eq!(header_value(format_args!("{}", 12)).unwrap(), "12");
        assert_eq!(header_value(format_args!("{}", "a\nb")), None);
        assert_eq!(header_value(format_args!("{:65}", 1)), None);
    }
}
