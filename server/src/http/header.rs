//! Values of headers that are written for each answer.

use std::fmt;
use std::io::Write;

use hyper::header::HeaderValue;

/// As long as values are that are written here, and longer: an HTTP date has 29 bytes, a
/// revision between quotes up to 22.
const MOST_BYTES: usize = 64;

/// What is written, as a header's value; `None` where it cannot be one. It is put together
/// where no memory is needed for it.
pub(super) fn header_value(text: fmt::Arguments<'_>) -> Option<HeaderValue> {
    let mut memory = [0; MOST_BYTES];
    let mut rest = &mut memory[..];
    rest.write_fmt(text).ok()?;
    let bytes = MOST_BYTES - rest.len();
    HeaderValue::from_bytes(memory.get(..bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_value_is_none() {
        assert_eq!(header_value(format_args!("{}", 12)).unwrap(), "12");
        assert_eq!(header_value(format_args!("{}", "a\nb")), None);
        assert_eq!(header_value(format_args!("{:65}", 1)), None);
    }
}
