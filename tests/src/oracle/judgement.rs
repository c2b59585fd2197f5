//! What documents are judged by the limits taken literally, slow and plain on purpose: it
//! asks `serde_json` where the body stops being JSON, completes what comes before that,
//! has `serde_json` tell the members apart, and measures each.

use std::ops::RangeInclusive;

use prefd_engine::Limits;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// Which rule a violation is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Json,
    NotAnObject,
    DuplicateKey,
    TooManyKeys,
    KeyTooLong,
    ValueTooLong,
    BodyTooLong,
}

/// A rule that is broken.
#[derive(Debug, Clone)]
pub(super) struct Broken {
    pub(super) kind: Rule,
    /// The offset that is to be reported.
    pub(super) at: RangeInclusive<usize>,
    /// The byte at which it shows.
    shows: RangeInclusive<usize>,
}

impl Broken {
    fn new(kind: Rule, at: usize, shows: usize) -> Self {
        Self {
            kind,
            at: at..=at,
            shows: shows..=shows,
        }
    }
}

/// The text to be read back, where the document is to be accepted.
pub(super) fn accepted(body: &[u8], limits: &Limits) -> Option<String> {
    judgement(body, limits).ok()
}

/// The text to be read back, or what the first violation can be.
pub(super) fn judgement(body: &[u8], limits: &Limits) -> Result<String, Vec<Broken>> {
    let mut broken = Vec::new();
    if body.len() as u64 > limits.max_body_bytes {
        let limit = usize::try_from(limits.max_body_bytes).unwrap();
        broken.push(Broken::new(Rule::BodyTooLong, limit, limit));
    }
    let blank = |byte: &u8| b" \t\n\r".contains(byte);
    let first = body.iter().position(|byte| !blank(byte));
    if let Some(first) = first.filter(|first| b"[\"-0123456789tfn".contains(&body[*first])) {
        broken.push(Broken::new(Rule::NotAnObject, first, first));
        return Err(earliest(broken));
    }
    let wrong = first_wrong(body);
    let known = &body[..wrong.unwrap_or(body.len())];
    let completed = complete(known);
    if known.len() < body.len() || completed.len() > body.len() {
        // A character counts by its first byte, unless it is the end that is wrong.
        let start = std::str::from_utf8(&body[..(known.len() + 1).min(body.len())])
            .map_or_else(|error| error.valid_up_to(), |_| known.len());
        let at = if wrong.is_some() { start } else { body.len() };
        broken.push(Broken::new(Rule::Json, at, known.len()));
    }
    measure(&completed, limits, &mut broken);
    if wrong.is_some() {
        // The wrong byte may be the one too many as well.
        let longer = [known, b"0"].concat();
        if can_go_on(&longer) {
            measure(&complete(&longer), limits, &mut broken);
        }
    }
    // What was only completed has broken nothing.
    broken.retain(|broken| *broken.shows.start() <= known.len());
    if broken.is_empty() {
        let members = members(&completed).expect("it was accepted");
        let members = members
            .iter()
            .map(|(key, value)| format!("{}:{}", key.get(), value.get()));
        let members: Vec<String> = members.collect();
        return Ok(format!("{{{}}}", members.join(",")));
    }
    Err(earliest(broken))
}

/// Those that no other one certainly comes before.
fn earliest(broken: Vec<Broken>) -> Vec<Broken> {
    let end = broken.iter().map(|broken| *broken.shows.end()).min();
    let comes_first = |broken: &Broken| Some(*broken.shows.start()) <= end;
    broken.into_iter().filter(comes_first).collect()
}

pub(super) type Members<'a> = Vec<(&'a RawValue, &'a RawValue)>;

/// Key and value texts, in order, where `text` is one JSON object.
pub(super) fn members(text: &str) -> Result<Members<'_>, serde_json::Error> {
    struct Texts<'a>(Members<'a>);
    impl<'de> DeserializeSeed<'de> for Texts<'de> {
        type Value = Members<'de>;
        fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
            from.deserialize_map(self)
        }
    }
    impl<'de> Visitor<'de> for Texts<'de> {
        type Value = Members<'de>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
            while let Some(member) = map.next_entry()? {
                self.0.push(member);
            }
            Ok(self.0)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = Texts(Vec::new()).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(members)
}

/// The first byte after which no continuation is JSON any more, if there is one.
fn first_wrong(body: &[u8]) -> Option<usize> {
    if can_go_on(body) {
        return None;
    }
    // What is wrong stays wrong, so the place can be searched for by halves.
    let (mut fine, mut wrong) = (0, body.len());
    while wrong - fine > 1 {
        let middle = usize::midpoint(fine, wrong);
        if can_go_on(&body[..middle]) {
            fine = middle;
        } else {
            wrong = middle;
        }
    }
    Some(fine)
}

fn can_go_on(body: &[u8]) -> bool {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        // A character of which a part is there may become whole.
        Err(error) if error.error_len().is_none() => {
            // Such characters are in strings only.
            let whole = std::str::from_utf8(&body[..error.valid_up_to()]).unwrap();
            return can_go_on(format!("{whole}\u{fffd}").as_bytes());
        }
        Err(_) => return false,
    };
    if ends_in_bad_escape(text) {
        return false;
    }
    let is_wrong = |text: &str| members(text).is_err_and(|error| error.classify() != Category::Eof);
    // serde_json calls a number wrong that ends with its sign, point or exponent.
    !is_wrong(text) || !is_wrong(&format!("{text}0"))
}

/// Whether the text ends in `\u` and fewer than four bytes that are not all digits:
/// serde_json waits for the fourth before it calls that wrong.
fn ends_in_bad_escape(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some(backslash) = rest.iter().position(|byte| *byte == b'\\') {
        let escape = &rest[backslash + 1..];
        rest = match escape.strip_prefix(b"u") {
            Some(digits) if digits.len() < 4 => return !digits.iter().all(u8::is_ascii_hexdigit),
            Some(digits) => &digits[4..],
            None => escape.get(1..).unwrap_or_default(),
        };
    }
    false
}

/// An object that begins with `known`.
fn complete(known: &[u8]) -> String {
    let text = match std::str::from_utf8(known) {
        Ok(text) => text.to_owned(),
        Err(error) => {
            let whole = std::str::from_utf8(&known[..error.valid_up_to()]).unwrap();
            // Of as many bytes, or more.
            format!("{whole}\u{10ffff}")
        }
    };
    if members(&text).is_ok() {
        return text;
    }
    let (brackets, _) = open_brackets(&text);
    let mut ends = vec![String::new()];
    for quote in ["\"", "\\\"", "0\"", "00\"", "000\"", "0000\""] {
        ends.push(quote.to_owned());
        ends.push(format!("{quote}:0"));
    }
    for end in [
        "{}", "0", ":0", "\"\":0", "rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l",
    ] {
        ends.push(end.to_owned());
    }
    ends.into_iter()
        .map(|end| format!("{text}{end}{brackets}"))
        .find(|completed| members(completed).is_ok())
        .unwrap_or_else(|| panic!("{text:?} cannot be completed"))
}

/// What closes the brackets that are open at the end, and the offset of each bracket
/// that opens, with its level.
fn open_brackets(text: &str) -> (String, Vec<(usize, u32)>) {
    let (mut closing, mut opened) = (Vec::new(), Vec::new());
    let (mut in_string, mut escaped) = (false, false);
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                closing.push(if byte == b'{' { '}' } else { ']' });
                opened.push((offset, u32::try_from(closing.len()).unwrap()));
            }
            b'}' | b']' => drop(closing.pop()),
            _ => {}
        }
    }
    (closing.into_iter().rev().collect(), opened)
}

/// Measures every member against the limits.
fn measure(text: &str, limits: &Limits, broken: &mut Vec<Broken>) {
    let members = members(text).expect("it was completed");
    let at = |part: &RawValue| part.get().as_ptr() as usize - text.as_ptr() as usize;
    let mut seen: Vec<String> = Vec::new();
    for (index, (key, value)) in members.iter().enumerate() {
        let (key_at, value_at) = (at(key), at(value));
        let key_end = key_at + key.get().len() - 1;
        if index >= limits.max_keys as usize {
            broken.push(Broken::new(Rule::TooManyKeys, key_at, key_at));
        }
        if let Some(shows) = byte_over(key.get(), limits.max_key_bytes as usize) {
            broken.push(Broken::new(Rule::KeyTooLong, key_at, key_at + shows));
        }
        match serde_json::from_str::<String>(key.get()) {
            Ok(name) if seen.contains(&name) => {
                broken.push(Broken::new(Rule::DuplicateKey, key_at, key_end));
            }
            Ok(name) => seen.push(name),
            // A lone surrogate, somewhere in it.
            Err(_) => broken.push(Broken {
                kind: Rule::Json,
                at: key_at..=key_end,
                shows: key_at..=key_end,
            }),
        }
        let limit = usize::try_from(limits.max_value_bytes).unwrap();
        if value.get().len() > limit {
            let shows = value_at + limit;
            broken.push(Broken::new(Rule::ValueTooLong, value_at, shows));
        }
        let (_, opened) = open_brackets(value.get());
        let too_deep = opened.iter().find(|(_, level)| *level > limits.max_depth);
        if let Some((offset, _)) = too_deep {
            let place = value_at + offset;
            broken.push(Broken::new(Rule::Json, place, place));
        }
    }
}

/// The last byte of the first character of a key's text with which it decodes to more
/// than `limit` bytes.
fn byte_over(text: &str, limit: usize) -> Option<usize> {
    let inside = text.get(1..text.len() - 1)?.as_bytes();
    let (mut at, mut bytes) = (0, 0);
    while let Some(byte) = inside.get(at) {
        let unit = |from: usize| {
            let digits = std::str::from_utf8(inside.get(from..from + 4)?).ok()?;
            u32::from_str_radix(digits, 16).ok()
        };
        let (taken, decoded) = match (byte, inside.get(at + 1)) {
            (b'\\', Some(b'u')) => match unit(at + 2)? {
                0..0x80 => (6, 1),
                0x80..0x800 => (6, 2),
                0xd800..0xe000 => (12, 4),
                _ => (6, 3),
            },
            (b'\\', _) => (2, 1),
            _ => (1, 1),
        };
        at += taken;
        bytes += decoded;
        if bytes > limit {
            return Some(at);
        }
    }
    None
}

pub(super) fn decoded(key: &RawValue) -> String {
    serde_json::from_str(key.get()).expect("a key that was accepted")
}
