//! Which violation is reported for a body, and at which offset. The first violation in byte
//! order is reported.

use prefd_engine::{Limits, Violation, check};
use prefd_tests::oracle::document;

/// Returns a short name of the violation, and its offset.
fn verdict(body: &[u8]) -> (&'static str, u64) {
    let [small, ..] = document::limits();
    match check(body, &small) {
        Ok(_) => ("ok", 0),
        Err(Violation::Json { at, .. }) => ("json", at.offset),
        Err(Violation::NotAnObject { at }) => ("not-object", at.offset),
        Err(Violation::DuplicateKey { at, .. }) => ("duplicate", at.offset),
        Err(Violation::TooManyKeys { at, actual: 4, .. }) => ("keys", at.offset),
        Err(Violation::KeyTooLong { at, .. }) => ("key", at.offset),
        Err(Violation::ValueTooLong { at, actual: 25, .. }) => ("value", at.offset),
        Err(Violation::BodyTooLong { limit: 160, .. }) => ("body", 160),
        Err(other) => panic!("unexpected violation {other:?}"),
    }
}

#[test]
fn first_violation_in_byte_order_is_reported() {
    for (body, expected) in [
        (r#"{"a":1}"#, ("ok", 0)),
        ("[1", ("not-object", 0)),
        (" x", ("json", 1)),
        ("", ("json", 0)),
        (r#"{"a":1,"b":2,"c":3,"d"#, ("keys", 19)),
        (r#"{"a":1,"b":2,"c":3,x"#, ("json", 19)),
        (r#"{"a":1,"a":x"#, ("duplicate", 7)),
        (r#"{"123456789\q":1}"#, ("key", 1)),
        (r#"{"1234567\q89":1}"#, ("json", 10)),
        // A syntax error before the byte that exceeds the length or the depth is reported.
        (r#"{"a":[x,          2,         3]}"#, ("json", 6)),
        (r#"{"a":[x[[[[[1]]]]]}"#, ("json", 6)),
        // A syntax error after the byte that exceeds the length or the depth is not reported.
        (r#"{"a":[1,          2,         3x]}"#, ("value", 5)),
        (r#"{"a":[[[[[x"#, ("json", 9)),
        // If the limit cuts a number short, the number is too long but not invalid, because
        // further digits could have completed it.
        (r#"{"a":12345678901234567890123-}"#, ("json", 28)),
        (r#"{"a":12345678901234567890123.4}"#, ("value", 5)),
    ] {
        assert_eq!(verdict(body.as_bytes()), expected, "{body}");
    }
}

/// Regression, found by fuzzing: the offset of the last of the four digits was reported,
/// whichever digit was invalid.
#[test]
fn invalid_unicode_escape_is_reported_at_its_first_invalid_digit() {
    for (body, offset) in [
        (r#"{"a":"\ux123"}"#, 8),
        (r#"{"a":"\u1x23"}"#, 9),
        (r#"{"a":"\u12x3"}"#, 10),
        (r#"{"a":"\u123x"}"#, 11),
        (r#"{"a":"\u1x"#, 9),
        (r#"{"a":"\\\ué0"}"#, 10),
        (r#"{"a":"\\uxyz"#, 12),
        // A new escape begins before the four digits are complete.
        (r#"{"a":"\u1\u"#, 9),
        (r#"{"a":"\u\u1"#, 8),
        (r#"{"\ud\u"#, 5),
    ] {
        assert_eq!(verdict(body.as_bytes()), ("json", offset), "{body}");
    }
    let cut_short = check(br#"{"a":"\u1x"#, &Limits::default());
    let is_invalid_escape = |what: &str| what == "invalid escape";
    assert!(
        matches!(&cut_short, Err(Violation::Json { what, .. }) if is_invalid_escape(what)),
        "{cut_short:?}"
    );
}

/// Regression, found by fuzzing: the offset of the control character was reported instead of
/// the start of the incomplete character.
#[test]
fn incomplete_utf8_before_a_control_character_is_reported_first() {
    assert_eq!(verdict(b"{\"ab\xe2\x82\x02\":1}"), ("json", 4));
    assert_eq!(verdict(b"{\"ab\x02\":1}"), ("json", 4));
}

/// Regression, found by fuzzing: the end of the body was reported instead of the first byte that
/// is not valid outside a string.
#[test]
fn incomplete_utf8_at_the_end_is_reported_if_outside_a_string() {
    assert_eq!(verdict(b"{\"a\":3\xd3"), ("json", 6));
    assert_eq!(verdict(b"{\"a\":[\xe2\x82"), ("json", 6));
    // Inside a string, further bytes could have completed the character.
    assert_eq!(verdict(b"{\"a\":\"\xe2\x82"), ("json", 8));
}

#[test]
fn position_counts_lines_and_columns_from_one() {
    let body = b"{\"a\":1,\n\n \"b\":[\n1,\n  x],\"c\":1}";
    let Err(Violation::Json { at, what }) = check(body, &Limits::default()) else {
        panic!("expected invalid JSON");
    };
    assert_eq!((at.offset, at.line, at.column), (21, 5, 3));
    assert_eq!(what, "expected value");
}
