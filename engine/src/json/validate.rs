//! The judgement of values: whether a value's text is JSON.
//!
//! `serde_json` judges the grammar, after a UTF-8 check (it does not make one while
//! it skips a value); the depth was enforced by the splitter.

use serde::de::IgnoredAny;
use serde_json::error::Category;

use crate::json::scanner::{JsonScanner, ScanEvent, position_after};
use crate::model::limits::{Limits, Position, Usage, Violation};

/// Checks that `text` is one JSON value; it began at `start`.
pub(crate) fn value(text: &[u8], start: Position) -> Result<(), Violation> {
    match std::str::from_utf8(text) {
        Ok(valid) => grammar(valid).map_err(|error| at(&error, valid, start)),
        Err(error) => {
            prefix(valid_part(text, &error), start)?;
            Err(invalid_utf8(text, &error, start))
        }
    }
}

/// Checks that `text` is how a JSON value can begin: a violation that was met
/// behind it counts only where nothing is wrong before it.
pub(crate) fn prefix(text: &[u8], start: Position) -> Result<(), Violation> {
    let error = match std::str::from_utf8(text) {
        Ok(valid) => return continuable(valid, start),
        Err(error) => error,
    };
    let valid = std::str::from_utf8(valid_part(text, &error)).unwrap_or_default();
    continuable(valid, start)?;
    if error.error_len().is_some() {
        return Err(invalid_utf8(text, &error, start));
    }
    // A character that the cut went through can be any but those of ASCII.
    continuable(&format!("{valid}\u{fffd}"), start)
}

fn valid_part<'a>(text: &'a [u8], error: &std::str::Utf8Error) -> &'a [u8] {
    text.get(..error.valid_up_to()).unwrap_or_default()
}

fn grammar(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<IgnoredAny>(text).map(drop)
}

fn continuable(text: &str, start: Position) -> Result<(), Violation> {
    if is_continuable(text) {
        return Ok(());
    }
    match grammar(text) {
        Ok(()) => Ok(()),
        Err(error) => Err(at(&error, text, start)),
    }
}

/// Whether a value can begin like this.
fn is_continuable(text: &str) -> bool {
    // serde_json reads the digits of an escape once there are four of them.
    if ends_in_wrong_escape(text) {
        return false;
    }
    // serde_json reports a number cut after its sign, point or exponent as invalid:
    // a digit more tells whether it could still have become one.
    !is_wrong(text) || !is_wrong(&format!("{text}0"))
}

/// Whether the text ends with the beginning of a `\uXXXX` in which something is no digit.
fn ends_in_wrong_escape(text: &str) -> bool {
    /// The longest such beginning. What is longer, serde_json has read.
    const UNREAD_BYTES: usize = 5;
    let text = text.as_bytes();
    let mut unread = text.len().saturating_sub(UNREAD_BYTES)..text.len();
    // The first one: what looks like another behind it stands where digits belong.
    let digits = unread.find_map(|at| {
        let (before, escape) = text.split_at_checked(at)?;
        let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\');
        let digits = escape.strip_prefix(b"\\u")?;
        (backslashes.count() % 2 == 0).then_some(digits)
    });
    digits.is_some_and(|digits| !digits.iter().all(u8::is_ascii_hexdigit))
}

fn is_wrong(text: &str) -> bool {
    grammar(text).is_err_and(|error| error.classify() != Category::Eof)
}

fn invalid_utf8(text: &[u8], error: &std::str::Utf8Error, start: Position) -> Violation {
    Violation::Json {
        at: position_after(start, text, error.valid_up_to()),
        what: "invalid UTF-8".to_owned(),
    }
}

fn at(error: &serde_json::Error, text: &str, start: Position) -> Violation {
    // What serde_json waits for digits of, it calls unfinished.
    let message = if ends_in_wrong_escape(text) {
        "invalid escape".to_owned()
    } else {
        error.to_string()
    };
    // serde_json keeps the bare reason to itself; the position that its message ends
    // with is the one inside the value, and of no use to who sent the body.
    let what = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(what, _)| what);
    Violation::Json {
        at: position_after(start, text.as_bytes(), first_wrong(error, text)),
        what: what.to_owned(),
    }
}

/// The offset of the first character after which no value can come any more; the end,
/// where one still could.
///
/// `serde_json` tells the place to some characters, before or behind, depending on what
/// is wrong there: of an escape, the last one of its digits.
fn first_wrong(error: &serde_json::Error, text: &str) -> usize {
    let line_start: usize = text
        .split_inclusive('\n')
        .take(error.line().saturating_sub(1))
        .map(str::len)
        .sum();
    let near = (line_start + error.column()).saturating_sub(4);
    let mut wrong = text
        .char_indices()
        .skip_while(|(offset, character)| offset + character.len_utf8() <= near)
        .take(6)
        .filter(|(offset, character)| {
            let end = offset + character.len_utf8();
            text.get(..end)
                .is_some_and(|prefix| !is_continuable(prefix))
        });
    wrong.next().map_or(text.len(), |(offset, _)| offset)
}

/// Checks a document without a store: the very judgement of a put.
///
/// Returns what the document would take once stored. Takes no memory beyond one
/// key, whatever the size of `body`.
///
/// # Errors
/// The first violation in the order of the bytes. The streaming way in, a
/// [`crate::Writer`], reports the same one however the body is cut.
///
/// ```
/// use prefd_engine::{Limits, Violation, check};
/// let usage = check(br#"{"theme": "dark"}"#, &Limits::default()).unwrap();
/// assert_eq!((usage.keys, usage.bytes), (1, 16));
/// assert!(matches!(check(b"[]", &Limits::default()), Err(Violation::NotAnObject { .. })));
/// ```
pub fn check(body: &[u8], limits: &Limits) -> Result<Usage, Violation> {
    let mut splitter = JsonScanner::new(limits.clone());
    let mut rest = body;
    // Every value is one slice of the body, from here to where the splitter stands.
    let mut begun = 0;
    let mut bytes = 1;
    let text = |begun: usize, rest: &[u8]| body.get(begun..body.len() - rest.len());
    let violation = loop {
        match splitter.next(&mut rest) {
            Ok(Some(ScanEvent::Key(key))) => bytes += key.text.len() as u64 + 2,
            Ok(Some(ScanEvent::Value(piece))) => {
                begun = body.len() - rest.len() - piece.len();
                bytes += piece.len() as u64;
            }
            Ok(Some(ScanEvent::ValueEnd)) => {
                let text = text(begun, rest).unwrap_or_default();
                value(text, splitter.value_start())?;
            }
            Ok(None) => break splitter.end().err(),
            Err(violation) => break Some(violation),
        }
    };
    if let Some(violation) = violation {
        if splitter.in_value() {
            prefix(
                text(begun, rest).unwrap_or_default(),
                splitter.value_start(),
            )?;
        }
        return Err(violation);
    }
    let keys = u32::try_from(splitter.keys()).unwrap_or(u32::MAX);
    // Each member was counted with its colon and the comma or closing brace behind it;
    // the closing brace of an empty object was not.
    Ok(Usage {
        keys,
        bytes: bytes + u64::from(keys == 0),
    })
}
