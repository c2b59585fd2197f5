//! A line of an import: what is read of it piece by piece is what `serde_json` says of the
//! whole line, and its document is the one that stands in it.
//!
//! An input is a line; or a list of choices, from which one that is nearly right is put
//! together. Through how small a buffer it is read, its length says.

use std::cell::RefCell;

use prefd::fuzzing::read_line;
use prefd_engine::{Engine, Prepared, WriteOptions};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::oracle::stage::Stage;
use crate::oracle::{Choices, choices};

/// What a line is put together from.
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
/// Deeper than that, where two readers stop counting need not be the same.
const MAX_BRACKETS: usize = 100;

#[derive(Deserialize)]
struct Whole<'a> {
    user: String,
    client: String,
    #[serde(borrow)]
    document: &'a RawValue,
}

/// Judges a whole input.
pub fn run(input: &[u8]) {
    thread_local! {
        static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
    }
    let line = match choices(input) {
        Some((pieces, mut choices)) => {
            let pieces = (0..4 + 2 * pieces).map(|_| *choices.one(&PIECES));
            format!("{{{}}}", pieces.collect::<String>()).into_bytes()
        }
        None => input.to_vec(),
    };
    STAGE.with_borrow_mut(|stage| {
        let stage = stage.get_or_insert_with(|| Stage::new(|_| {}));
        judge(stage.take().0, &line);
    });
}

fn judge(engine: &Engine, line: &[u8]) {
    let found = read_line(engine, line, 1 + line.len() % 61);
    let found = found.map(|(user, client, document)| (user, client, text(engine, document)));
    let brackets = line.iter().filter(|byte| b"[{".contains(byte)).count();
    // Several lines, or none; what is a line for serde_json alone; and what is too deep.
    let is_beyond = line.contains(&b'\n')
        || line.trim_ascii().is_empty()
        || line.trim_ascii_start().starts_with(b"[")
        || brackets > MAX_BRACKETS;
    if !is_beyond {
        let said = said(engine, line);
        assert_eq!(found, said, "{}", String::from_utf8_lossy(line));
    }
}

/// What a line says, by `serde_json` alone.
fn said(engine: &Engine, line: &[u8]) -> Option<(String, String, Vec<u8>)> {
    let whole: Whole<'_> = serde_json::from_slice(line).ok()?;
    let quoted = whole.document.get();
    let unquoted: Option<String> = serde_json::from_str(quoted).ok();
    let document = unquoted.as_deref().unwrap_or(quoted);
    let document = engine.prepare(document.as_bytes()).ok()?;
    Some((whole.user, whole.client, text(engine, document)))
}

/// A document as it is read once it was put.
fn text(engine: &Engine, document: Prepared) -> Vec<u8> {
    let namespace = engine.namespace("user", "client").unwrap();
    let options = WriteOptions::default();
    namespace.write(document, options).unwrap();
    namespace.get().unwrap().unwrap().read().unwrap()
}
