//! Generates documents from choices, and offsets at which to split them.
//!
//! The sizes and counts are close to the limits. The documents contain whitespace wherever JSON
//! allows it, keys with different escapes, and sometimes an error.

use arbitrary::Unstructured;
use prefd_engine::Limits;

use crate::oracle::Choices;

/// Generates a body.
pub(crate) fn body(choices: &mut Unstructured<'_>, limits: &Limits) -> Vec<u8> {
    let mut body = blank(choices);
    body.push(b'{');
    let members = around(choices, limits.max_keys as usize);
    for index in 0..members {
        if index > 0 {
            body.extend(blank(choices));
            body.push(b',');
        }
        body.extend(blank(choices));
        body.extend(key(choices, limits.max_key_bytes as usize));
        body.extend(blank(choices));
        body.push(b':');
        body.extend(blank(choices));
        body.extend(value(choices, limits));
    }
    body.extend(blank(choices));
    body.push(b'}');
    body.extend(blank(choices));
    if choices.rarely(4) {
        damage(choices, &mut body);
    }
    if choices.rarely(8) {
        pad(choices, &mut body, limits);
    }
    body
}

/// Generates offsets at which a body of the given length is split.
pub(crate) fn cuts(choices: &mut Unstructured<'_>, len: usize) -> Vec<usize> {
    match choices.upto(3) {
        0 => Vec::new(),
        1 => (0..len).step_by(choices.upto(6) + 1).collect(),
        _ => {
            let mut cuts: Vec<usize> = (0..=choices.upto(6)).map(|_| choices.upto(len)).collect();
            cuts.sort_unstable();
            cuts
        }
    }
}

/// Chooses a small count, or a count close to the limit.
fn around(choices: &mut Unstructured<'_>, limit: usize) -> usize {
    match choices.upto(5) {
        0 => choices.upto(2),
        1 => limit.saturating_sub(1),
        2 => limit + 1,
        3 => choices.upto(limit + 3),
        _ => limit,
    }
}

fn blank(choices: &mut Unstructured<'_>) -> Vec<u8> {
    let len = choices.upto(15).saturating_sub(12);
    (0..len).map(|_| *choices.one(b" \n\t\r")).collect()
}

/// Generates a JSON string for a key that decodes to about `limit` bytes.
fn key(choices: &mut Unstructured<'_>, limit: usize) -> Vec<u8> {
    if choices.rarely(16) {
        return choices.some_bytes(limit + 8);
    }
    // Each entry is a character as it is written, and its length after decoding.
    let spellings: [(&str, usize); 12] = [
        ("a", 1),
        ("\\u0061", 1),
        ("b", 1),
        ("\\n", 1),
        ("\\u000A", 1),
        ("/", 1),
        ("\\/", 1),
        ("é", 2),
        ("\\u00e9", 2),
        ("€", 3),
        ("😀", 4),
        ("\\uD83d\\ude00", 4),
    ];
    let wanted = match choices.upto(2) {
        0 => choices.upto(2),
        _ => around(choices, limit),
    };
    let mut text = vec![b'"'];
    let mut bytes = 0;
    while bytes < wanted {
        let (spelling, decoded) = *choices.one(&spellings);
        text.extend_from_slice(spelling.as_bytes());
        bytes += decoded;
    }
    if choices.rarely(32) {
        let wrong: &[&[u8]] = &[b"\\ud800", b"\\udc00x", b"\\q", b"\n", b"\xff", b"\xe2\x82"];
        text.extend_from_slice(choices.one::<&[u8]>(wrong));
    }
    text.push(b'"');
    text
}

/// Generates a JSON value with a length or a depth close to the limit.
fn value(choices: &mut Unstructured<'_>, limits: &Limits) -> Vec<u8> {
    let bytes = around(choices, usize::try_from(limits.max_value_bytes).unwrap());
    let fill = |begin: &str, filling: &str, end: &str| {
        let room = bytes.saturating_sub(begin.len() + end.len());
        let filled = filling.repeat(room / filling.len());
        let rest = "x".repeat(if begin == "\"" {
            room % filling.len()
        } else {
            0
        });
        format!("{begin}{filled}{rest}{end}").into_bytes()
    };
    match choices.upto(11) {
        0 => choices
            .one(&["1", "0", "-0.5e+3", "true", "false", "null", "\"\""])
            .as_bytes()
            .to_vec(),
        1 => fill("\"", "s", "\""),
        2 => fill("\"", "\\n", "\""),
        3 => fill("\"", "é", "\""),
        4 => fill("\"", "\\ud83d\\ude00", "\""),
        5 => fill("1", "0", ""),
        6 => fill("[", " ", "1]"),
        7 => fill("{\"k\":\"", "]", "\"}"),
        8 => fill("[", "1,", "1]"),
        9 => {
            let levels = around(choices, limits.max_depth as usize);
            nested(choices, levels)
        }
        10 => choices
            .one(&[
                "01", "1.", "-", "tru", "nulL", "+1", "\"\\x\"", "[1,]", "{\"a\"}", "\u{1}", "[1}",
            ])
            .as_bytes()
            .to_vec(),
        _ => choices.some_bytes(bytes + 4),
    }
}

/// Generates nested arrays and objects.
fn nested(choices: &mut Unstructured<'_>, levels: usize) -> Vec<u8> {
    let (mut open, mut close) = (Vec::new(), Vec::new());
    let pattern = choices.upto(usize::from(u16::MAX));
    for level in 0..levels {
        if pattern >> (level % 16) & 1 == 0 {
            open.push(b'[');
            close.push(b']');
        } else {
            open.extend_from_slice(b"{\"\":");
            close.push(b'}');
        }
    }
    open.extend_from_slice(choices.one(&["1", "\"[{\"", "[]"]).as_bytes());
    close.reverse();
    open.extend(close);
    open
}

/// Makes one random change to a body.
fn damage(choices: &mut Unstructured<'_>, body: &mut Vec<u8>) {
    let at = choices.upto(body.len().saturating_sub(1));
    match choices.upto(3) {
        0 => body.truncate(at),
        1 => drop(body.splice(at..at, choices.some_bytes(6))),
        2 => drop(body.remove(at)),
        _ => body[at] ^= 1 << choices.upto(7),
    }
}

/// Adds whitespace so that the length of the body is close to the limit.
fn pad(choices: &mut Unstructured<'_>, body: &mut Vec<u8>, limits: &Limits) {
    const MOST: usize = 8192;
    let wanted = around(choices, usize::try_from(limits.max_body_bytes).unwrap());
    let missing = wanted.min(MOST).saturating_sub(body.len());
    let at = *choices.one(&[0, body.len()]);
    drop(body.splice(at..at, vec![b' '; missing]));
}
