//! Which violation a body is refused for, and where: the first one in the order of its
//! bytes.

use prefd_engine::{Limits, Violation, check};
use prefd_tests::oracle::document;

/// The violation's name and offset.
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
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn the_first_violation_in_the_order_of_the_bytes_is_reported() {
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
        // A value's own syntax error comes before its being too long or too deep...
        (r#"{"a":[x,          2,         3]}"#, ("json", 6)),
        (r#"{"a":[x[[[[[1]]]]]}"#, ("json", 6)),
        // ...but not one that lies behind.
        (r#"{"a":[1,          2,         3x]}"#, ("value", 5)),
        (r#"{"a":[[[[[x"#, ("json", 9)),
        // A number cut by the limit could have gone on well.
        (r#"{"a":12345678901234567890123-}"#, ("json", 28)),
        (r#"{"a":12345678901234567890123.4}"#, ("value", 5)),
    ] {
        assert_eq!(verdict(body.as_bytes()), expected, "{body}");
    }
}

/// Found by the fuzzer of documents: the last of the four was told, whichever it was.
#[test]
fn the_character_that_is_no_digit_of_an_escape_is_told() {
    for (body, offset) in [
        (r#"{"a":"\ux123"}"#, 8),
        (r#"{"a":"\u1x23"}"#, 9),
        (r#"{"a":"\u12x3"}"#, 10),
        (r#"{"a":"\u123x"}"#, 11),
        (r#"{"a":"\u1x"#, 9),
        (r#"{"a":"\\\ué0"}"#, 10),
        (r#"{"a":"\\uxyz"#, 12),
        // Another escape where digits belong.
        (r#"{"a":"\u1\u"#, 9),
        (r#"{"a":"\u\u1"#, 8),
        (r#"{"\ud\u"#, 5),
    ] {
        assert_eq!(verdict(body.as_bytes()), ("json", offset), "{body}");
    }
    let cut_short = check(br#"{"a":"\u1x"#, &Limits::default());
    let says = |what: &str| what == "invalid escape";
    assert!(
        matches!(&cut_short, Err(Violation::Json { what, .. }) if says(what)),
        "{cut_short:?}"
    );
}

/// Found by the fuzzer of documents: the control character was told instead.
#[test]
fn a_character_that_a_control_character_cuts_short_is_told_by_its_start() {
    assert_eq!(verdict(b"{\"ab\xe2\x82\x02\":1}"), ("json", 4));
    assert_eq!(verdict(b"{\"ab\x02\":1}"), ("json", 4));
}

/// Found by the fuzzer of documents: the end of the body was told instead.
#[test]
fn a_character_that_the_end_cuts_short_is_told_where_none_can_be() {
    assert_eq!(verdict(b"{\"a\":3\xd3"), ("json", 6));
    assert_eq!(verdict(b"{\"a\":[\xe2\x82"), ("json", 6));
    // Inside of a string it could have become whole.
    assert_eq!(verdict(b"{\"a\":\"\xe2\x82"), ("json", 8));
}

#[test]
fn positions_count_lines_and_bytes_from_one() {
    let body = b"{\"a\":1,\n\n \"b\":[\n1,\n  x],\"c\":1}";
    let Err(Violation::Json { at, what }) = check(body, &Limits::default()) else {
        panic!("accepted");
    };
    assert_eq!((at.offset, at.line, at.column), (21, 5, 3));
    assert_eq!(what, "expected value");
}
