//! Checks that the text of a value is valid JSON.
//!
//! First, the standard library checks that the text is valid UTF-8, because `serde_json` does not
//! check UTF-8 when it skips a value. Then `serde_json` checks the grammar. The scanner has already
//! checked the nesting depth.

use serde::de::IgnoredAny;
use serde_json::error::Category;

use crate::json::scanner::{JsonScanner, ScanEvent, position_after};
use crate::model::limits::{Limits, Position, Usage, Violation};

/// Checks that `text` is one complete JSON value. `start` is the position of the first byte of
/// `text` in the body.
pub(crate) fn check_value(text: &[u8], start: Position) -> Result<(), Violation> {
    match std::str::from_utf8(text) {
        Ok(valid) => parse(valid).map_err(|error| violation(&error, valid, start)),
        Err(error) => {
            check_prefix(valid_part(text, &error), start)?;
            Err(invalid_utf8(text, &error, start))
        }
    }
}

/// Checks that `text` is the beginning of a JSON value. `start` is the position of the first byte
/// of `text` in the body.
///
/// If the scanner finds a violation inside a value, the bytes of the value before this violation
/// must be checked, because they may contain an earlier violation.
pub(crate) fn check_prefix(text: &[u8], start: Position) -> Result<(), Violation> {
    let error = match std::str::from_utf8(text) {
        Ok(valid) => return check_prefix_text(valid, start),
        Err(error) => error,
    };
    let valid = std::str::from_utf8(valid_part(text, &error)).unwrap_or_default();
    check_prefix_text(valid, start)?;
    if error.error_len().is_some() {
        return Err(invalid_utf8(text, &error, start));
    }
    // The text ends with an incomplete UTF-8 character, which cannot be ASCII. For the check, the
    // incomplete character is replaced with U+FFFD. The replacement does not change the result,
    // because the JSON grammar does not distinguish between non-ASCII characters.
    check_prefix_text(&format!("{valid}\u{fffd}"), start)
}

/// Returns the bytes of `text` before the first invalid UTF-8.
fn valid_part<'a>(text: &'a [u8], error: &std::str::Utf8Error) -> &'a [u8] {
    text.get(..error.valid_up_to()).unwrap_or_default()
}

fn parse(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<IgnoredAny>(text).map(drop)
}

fn check_prefix_text(text: &str, start: Position) -> Result<(), Violation> {
    if is_value_prefix(text) {
        return Ok(());
    }
    match parse(text) {
        Ok(()) => Ok(()),
        Err(error) => Err(violation(&error, text, start)),
    }
}

/// Returns true if `text` is the beginning of a JSON value.
fn is_value_prefix(text: &str) -> bool {
    // serde_json checks the digits of a `\uXXXX` escape only if all four digits are present.
    if ends_in_invalid_escape(text) {
        return false;
    }
    // serde_json reports a number that ends after its sign, point or exponent as invalid, although
    // more digits can follow. Appending a digit makes an incomplete number valid.
    !is_invalid(text) || !is_invalid(&format!("{text}0"))
}

/// Returns true if the text ends with an incomplete `\uXXXX` that contains a byte other than
/// a hexadecimal digit.
fn ends_in_invalid_escape(text: &str) -> bool {
    /// Length in bytes of the longest incomplete escape, `\uXXX`. A complete escape is not examined
    /// here, because serde_json checks it.
    const UNREAD_BYTES: usize = 5;
    let text = text.as_bytes();
    let mut unread = text.len().saturating_sub(UNREAD_BYTES)..text.len();
    // If the text ends with an incomplete escape, the first `\u` in the last `UNREAD_BYTES` bytes
    // is the start of the escape. A second `\u` in these bytes would be among the digits of the
    // escape.
    let digits = unread.find_map(|at| {
        let (before, escape) = text.split_at_checked(at)?;
        let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
        let digits = escape.strip_prefix(b"\\u")?;
        (backslashes.count() % 2 == 0).then_some(digits)
    });
    digits.is_some_and(|digits| !digits.iter().all(u8::is_ascii_hexdigit))
}

/// Returns true if serde_json reports an error other than an unexpected end of the text.
fn is_invalid(text: &str) -> bool {
    parse(text).is_err_and(|error| error.classify() != Category::Eof)
}

fn invalid_utf8(text: &[u8], error: &std::str::Utf8Error, start: Position) -> Violation {
    Violation::Json {
        at: position_after(start, text, error.valid_up_to()),
        what: "invalid UTF-8".to_owned(),
    }
}

/// Converts an error of serde_json to a violation. `start` is the position of the first byte of
/// `text`.
fn violation(error: &serde_json::Error, text: &str, start: Position) -> Violation {
    // serde_json does not check the digits of an incomplete escape, and only reports that the text
    // ends.
    let message = if ends_in_invalid_escape(text) {
        "invalid escape".to_owned()
    } else {
        error.to_string()
    };
    // serde_json's message ends with a position inside the value. The position is removed from the
    // message, because clients need the position inside the body.
    let what = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(what, _)| what);
    Violation::Json {
        at: position_after(start, text.as_bytes(), first_invalid_offset(error, text)),
        what: what.to_owned(),
    }
}

/// Returns the offset of the first invalid character of `text`, or the length of `text` if all
/// characters are valid. A character is invalid if no JSON value begins with the text up to and
/// including the character.
///
/// The position that `serde_json` reports can be a few characters before or after the invalid
/// character, depending on the error. For an invalid escape, `serde_json` reports the position of
/// the last digit.
fn first_invalid_offset(error: &serde_json::Error, text: &str) -> usize {
    let line_start: usize = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    let near = (line_start + error.column()).saturating_sub(4);
    let mut invalid = text
        .char_indices()
        .skip_while(|(offset, character)| offset + character.len_utf8() <= near)
        .take(6)
        .filter(|(offset, character)| {
            let end = offset + character.len_utf8();
            text.get(..end)
                .is_some_and(|prefix| !is_value_prefix(prefix))
        });
    invalid.next().map_or(text.len(), |(offset, _)| offset)
}

/// Validates a document exactly as a write does, but without a store.
///
/// Returns the size that the document would have in a store. Does not access the disk. Allocates
/// memory for the keys. If a value is invalid, also allocates memory for a copy of the value.
///
/// # Errors
/// The first [`Violation`] by byte offset. A [`crate::Writer`] reports the same
/// violation, no matter how the body is divided into chunks.
///
/// ```
/// use prefd_engine::{Limits, Violation, check};
/// let usage = check(br#"{"theme": "dark"}"#, &Limits::default()).unwrap();
/// // The space after the colon is not stored.
/// assert_eq!((usage.keys, usage.bytes), (1, 16));
/// assert!(matches!(check(b"[]", &Limits::default()), Err(Violation::NotAnObject { .. })));
/// ```
pub fn check(body: &[u8], limits: &Limits) -> Result<Usage, Violation> {
    let mut scanner = JsonScanner::new(limits.clone());
    let mut rest = body;
    // Offset of the current value in the body. The value extends from this offset to the position
    // of the scanner.
    let mut value_at = 0;
    let mut bytes = 1;
    let text = |value_at: usize, rest: &[u8]| body.get(value_at..body.len() - rest.len());
    let violation = loop {
        match scanner.next(&mut rest) {
            Ok(Some(ScanEvent::Key(key))) => bytes += key.len() as u64 + 2,
            Ok(Some(ScanEvent::Value(piece))) => {
                value_at = body.len() - rest.len() - piece.len();
                bytes += piece.len() as u64;
            }
            Ok(Some(ScanEvent::ValueEnd)) => {
                let text = text(value_at, rest).unwrap_or_default();
                check_value(text, scanner.value_start())?;
            }
            Ok(None) => break scanner.end().err(),
            Err(violation) => break Some(violation),
        }
    };
    if let Some(violation) = violation {
        if scanner.is_in_value() {
            check_prefix(
                text(value_at, rest).unwrap_or_default(),
                scanner.value_start(),
            )?;
        }
        return Err(violation);
    }
    let keys = u32::try_from(scanner.keys()).unwrap_or(u32::MAX);
    // `bytes` already includes the opening brace and, for each member, the colon and the comma or
    // closing brace after the value. The closing brace of an empty object is added here.
    Ok(Usage {
        keys,
        bytes: bytes + u64::from(keys == 0),
    })
}
