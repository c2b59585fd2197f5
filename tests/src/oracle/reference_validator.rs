//! A reference validator for documents, which is slow and simple on purpose.
//!
//! The validator finds the first byte at which `serde_json` rejects the body. It completes the text
//! before that byte to a JSON object, lets `serde_json` split the object into members, and compares
//! each member with the limits.

use std::ops::RangeInclusive;

use prefd_engine::Limits;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

/// The rule that a violation breaks.
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

/// A violation of a rule.
#[derive(Debug, Clone)]
pub(super) struct RuleViolation {
    pub(super) kind: Rule,
    /// The offset that the engine may report.
    pub(super) at: RangeInclusive<usize>,
    /// The offset of the byte at which a reader can detect the violation.
    detected_at: RangeInclusive<usize>,
}

impl RuleViolation {
    fn new(kind: Rule, at: usize, detected_at: usize) -> Self {
        Self {
            kind,
            at: at..=at,
            detected_at: detected_at..=detected_at,
        }
    }
}

/// Returns the text that is read back, or `None` if the document must be rejected.
pub(super) fn accepted(body: &[u8], limits: &Limits) -> Option<String> {
    validate(body, limits).ok()
}

/// Returns the text that is read back, or the violations of which the engine must report one.
pub(super) fn validate(body: &[u8], limits: &Limits) -> Result<String, Vec<RuleViolation>> {
    let mut violations = Vec::new();
    if body.len() as u64 > limits.max_body_bytes {
        let limit = usize::try_from(limits.max_body_bytes).unwrap();
        violations.push(RuleViolation::new(Rule::BodyTooLong, limit, limit));
    }
    let blank = |byte: &u8| b" \t\n\r".contains(byte);
    let first = body.iter().position(|byte| !blank(byte));
    if let Some(first) = first.filter(|first| b"[\"-0123456789tfn".contains(&body[*first])) {
        violations.push(RuleViolation::new(Rule::NotAnObject, first, first));
        return Err(earliest(violations));
    }
    let wrong = first_invalid_byte(body);
    let known = &body[..wrong.unwrap_or(body.len())];
    let completed = complete(known);
    if known.len() < body.len() || completed.len() > body.len() {
        // An invalid character is reported at its first byte. An incomplete body is reported at its
        // end.
        let start = std::str::from_utf8(&body[..(known.len() + 1).min(body.len())])
            .map_or_else(|error| error.valid_up_to(), |_| known.len());
        let at = if wrong.is_some() { start } else { body.len() };
        violations.push(RuleViolation::new(Rule::Json, at, known.len()));
    }
    measure(&completed, limits, &mut violations);
    if wrong.is_some() {
        // The rejected byte may also exceed a limit.
        let longer = [known, b"0"].concat();
        if can_be_completed(&longer) {
            measure(&complete(&longer), limits, &mut violations);
        }
    }
    // A violation in the completion is not a violation of the body.
    violations.retain(|violation| *violation.detected_at.start() <= known.len());
    if violations.is_empty() {
        let members = members(&completed).expect("a document without violations is valid");
        let members = members
            .iter()
            .map(|(key, value)| format!("{}:{}", key.get(), value.get()));
        let members: Vec<String> = members.collect();
        return Ok(format!("{{{}}}", members.join(",")));
    }
    Err(earliest(violations))
}

/// Removes the violations that are certainly detected after another one.
fn earliest(violations: Vec<RuleViolation>) -> Vec<RuleViolation> {
    let end = violations
        .iter()
        .map(|violation| *violation.detected_at.end())
        .min();
    let comes_first = |violation: &RuleViolation| Some(*violation.detected_at.start()) <= end;
    violations.into_iter().filter(comes_first).collect()
}

pub(super) type Members<'a> = Vec<(&'a RawValue, &'a RawValue)>;

/// Returns the texts of the keys and values of a JSON object, in order.
pub(super) fn members(text: &str) -> Result<Members<'_>, serde_json::Error> {
    struct MemberTexts<'a>(Members<'a>);
    impl<'de> DeserializeSeed<'de> for MemberTexts<'de> {
        type Value = Members<'de>;
        fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
            from.deserialize_map(self)
        }
    }
    impl<'de> Visitor<'de> for MemberTexts<'de> {
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
    let members = MemberTexts(Vec::new()).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(members)
}

/// Returns the offset of the first byte with which the body cannot become valid JSON.
fn first_invalid_byte(body: &[u8]) -> Option<usize> {
    if can_be_completed(body) {
        return None;
    }
    // Every extension of an invalid prefix is invalid, so binary search finds the offset.
    let (mut fine, mut wrong) = (0, body.len());
    while wrong - fine > 1 {
        let middle = usize::midpoint(fine, wrong);
        if can_be_completed(&body[..middle]) {
            fine = middle;
        } else {
            wrong = middle;
        }
    }
    Some(fine)
}

fn can_be_completed(body: &[u8]) -> bool {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        // The body ends within a UTF-8 character, which more bytes can complete.
        Err(error) if error.error_len().is_none() => {
            // Multi-byte characters are valid only in strings.
            let valid = std::str::from_utf8(&body[..error.valid_up_to()]).unwrap();
            return can_be_completed(format!("{valid}\u{fffd}").as_bytes());
        }
        Err(_) => return false,
    };
    if ends_in_bad_escape(text) {
        return false;
    }
    let is_wrong = |text: &str| members(text).is_err_and(|error| error.classify() != Category::Eof);
    // serde_json rejects a number that ends with a sign, a point or an exponent, although more
    // digits can complete the number.
    !is_wrong(text) || !is_wrong(&format!("{text}0"))
}

/// Returns true if the text ends in an incomplete `\u` escape with an invalid digit. serde_json
/// rejects such an escape only after four digits.
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

/// Returns a JSON object that begins with `known`.
fn complete(known: &[u8]) -> String {
    let text = match std::str::from_utf8(known) {
        Ok(text) => text.to_owned(),
        Err(error) => {
            let valid = std::str::from_utf8(&known[..error.valid_up_to()]).unwrap();
            // The replacement has at least as many bytes as the incomplete character.
            format!("{valid}\u{10ffff}")
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
        .unwrap_or_else(|| panic!("cannot complete {text:?} to a JSON object"))
}

/// Returns the brackets that close all open ones at the end of the text. Also returns the offset
/// and the nesting level of each opening bracket.
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

/// Compares every member with the limits.
fn measure(text: &str, limits: &Limits, violations: &mut Vec<RuleViolation>) {
    let members = members(text).expect("the text is a complete JSON object");
    let at = |part: &RawValue| part.get().as_ptr() as usize - text.as_ptr() as usize;
    let mut seen: Vec<String> = Vec::new();
    for (index, (key, value)) in members.iter().enumerate() {
        let (key_at, value_at) = (at(key), at(value));
        let key_end = key_at + key.get().len() - 1;
        if index >= limits.max_keys as usize {
            violations.push(RuleViolation::new(Rule::TooManyKeys, key_at, key_at));
        }
        if let Some(detected_at) = byte_over(key.get(), limits.max_key_bytes as usize) {
            violations.push(RuleViolation::new(
                Rule::KeyTooLong,
                key_at,
                key_at + detected_at,
            ));
        }
        match serde_json::from_str::<String>(key.get()) {
            Ok(name) if seen.contains(&name) => {
                violations.push(RuleViolation::new(Rule::DuplicateKey, key_at, key_end));
            }
            Ok(name) => seen.push(name),
            // The key contains a lone surrogate.
            Err(_) => violations.push(RuleViolation {
                kind: Rule::Json,
                at: key_at..=key_end,
                detected_at: key_at..=key_end,
            }),
        }
        let limit = usize::try_from(limits.max_value_bytes).unwrap();
        if value.get().len() > limit {
            let detected_at = value_at + limit;
            violations.push(RuleViolation::new(
                Rule::ValueTooLong,
                value_at,
                detected_at,
            ));
        }
        let (_, opened) = open_brackets(value.get());
        let too_deep = opened.iter().find(|(_, level)| *level > limits.max_depth);
        if let Some((offset, _)) = too_deep {
            let place = value_at + offset;
            violations.push(RuleViolation::new(Rule::Json, place, place));
        }
    }
}

/// Returns the offset of the last byte of the first character at which the decoded key becomes
/// longer than `limit` bytes.
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
    serde_json::from_str(key.get()).expect("an accepted key is a JSON string")
}
