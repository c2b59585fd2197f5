//! The oracle for lines of `prefd import`.
//!
//! Reading a line in pieces gives the same result as `serde_json` on the complete line, and the
//! imported document is the one in the line.
//!
//! An input is a line, or a list of choices from which the oracle builds a nearly valid line. The
//! length of the line determines the size of the read buffer.

use std::cell::RefCell;

use prefd::fuzzing::read_line;
use prefd_engine::{Engine, Prepared, WriteOptions};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::oracle::reusable_store::ReusableStore;
use crate::oracle::{Choices, choices};

/// Pieces from which a line is built.
const PIECES: [&str; 30] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "\\",
    " ",
    "\t",
    "\r",
    "\\u00e9",
    "\\ud83d\\ude00",
    "\\ud83d",
    "\\\"",
    "\\n",
    "u",
    "\u{e9}",
    "-1.5e3",
    "tru",
    "null",
    "\"user\":\"u\"",
    "\"client\":\"c\"",
    "\"document\":{}",
    "\"document\":\"{}\"",
    "\"more\":[{\"x\":\"]\"}]",
    "{\"a\":1}",
    "\"user\":\"\\u0075\"",
    "\"document\":{\"a\": [1,{\"b\":\"]}\\\"\"}]}",
    "\"document\":\"{\\\"a\\\":\\\"\\\\n\\u00e9\\\"}\"",
];
/// Lines with more opening brackets are not compared, because the two readers may have different
/// nesting limits.
const MAX_BRACKETS: usize = 100;

#[derive(Deserialize)]
struct ImportLine<'a> {
    user: String,
    client: String,
    #[serde(borrow)]
    document: &'a RawValue,
}

/// Runs the oracle on an input.
pub fn run(input: &[u8]) {
    thread_local! {
        static STORE: RefCell<Option<ReusableStore>> = const { RefCell::new(None) };
    }
    let line = match choices(input) {
        Some((pieces, mut choices)) => {
            let pieces = (0..4 + 2 * pieces).map(|_| *choices.one(&PIECES));
            format!("{{{}}}", pieces.collect::<String>()).into_bytes()
        }
        None => input.to_vec(),
    };
    STORE.with_borrow_mut(|store| {
        let store = store.get_or_insert_with(|| ReusableStore::new(|_| {}));
        check_line(store.take().0, &line);
    });
}

fn check_line(engine: &Engine, line: &[u8]) {
    let found = read_line(engine, line, 1 + line.len() % 61);
    let found = found.map(|(user, client, document)| (user, client, text(engine, document)));
    let brackets = line.iter().filter(|byte| b"[{".contains(byte)).count();
    // Not compared: several lines, empty lines, arrays (which serde_json also accepts for a
    // struct), and lines that may be nested too deeply.
    let is_excluded = line.contains(&b'\n')
        || line.trim_ascii().is_empty()
        || line.trim_ascii_start().starts_with(b"[")
        || brackets > MAX_BRACKETS;
    if !is_excluded {
        let expected = expected(engine, line);
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(line));
    }
}

/// Reads a line with `serde_json` only.
fn expected(engine: &Engine, line: &[u8]) -> Option<(String, String, Vec<u8>)> {
    let line_fields: ImportLine<'_> = serde_json::from_slice(line).ok()?;
    let quoted = line_fields.document.get();
    let unquoted: Option<String> = serde_json::from_str(quoted).ok();
    let document = unquoted.as_deref().unwrap_or(quoted);
    let document = engine.prepare(document.as_bytes()).ok()?;
    Some((line_fields.user, line_fields.client, text(engine, document)))
}

/// Puts a document, and reads it back.
fn text(engine: &Engine, document: Prepared) -> Vec<u8> {
    let namespace = engine.namespace("user", "client").unwrap();
    let options = WriteOptions::default();
    namespace.write(document, options).unwrap();
    namespace.get().unwrap().unwrap().read().unwrap()
}
