//! The engine's limits and JSON rules. Limits are exact to the byte, the verdict does not
//! depend on how a body is split into chunks, and `serde_json` accepts the same JSON.

use std::collections::HashSet;

use prefd_engine::{Config, Engine, Error, Limits, Usage, Violation, WriteOptions, check};
use prefd_tests::oracle::document;
use prefd_tests::random::{Random, seeds};

/// Streams `body`, split at the offsets `cuts`. Returns the usage of the accepted document, or
/// the violation.
fn stream(engine: &Engine, body: &[u8], cuts: &[usize]) -> Result<Usage, Violation> {
    document::stream(engine, body, cuts).map(|document| document.usage())
}

fn engine_with(limits: Limits, inline_bytes: u32) -> (Engine, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.limits = limits;
    config.inline_bytes = inline_bytes;
    (Engine::open(config).unwrap(), dir)
}

/// The smallest of the fuzzers' sets of limits.
fn small_limits() -> Limits {
    let [small, ..] = document::limits();
    small
}

/// Bodies that obey or violate each rule by a small margin.
fn bodies_near_the_rules() -> Vec<Vec<u8>> {
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "{",
        "}",
        "{}",
        " { } ",
        "{}x",
        "{} {}",
        "[]",
        "\"a\"",
        "1",
        "true",
        "nul",
        "x",
        "\u{feff}{}",
        r#"{"a":1}"#,
        r#"{"a" : 1 , "b":2 }"#,
        r#"{"a":1,}"#,
        r#"{,"a":1}"#,
        r#"{"a"1}"#,
        r#"{"a":}"#,
        r#"{"a":,}"#,
        r#"{"a":1 2}"#,
        r#"{"a":1"b":2}"#,
        r#"{"a":tru}"#,
        r#"{"a":truex}"#,
        r#"{"a":01}"#,
        r#"{"a":-}"#,
        r#"{"a":1.}"#,
        r#"{"a":1e}"#,
        r#"{"a":1e+5}"#,
        r#"{"a":-0.5E-3}"#,
        r#"{"a":+1}"#,
        r#"{"a":.5}"#,
        r#"{"a":"x"#,
        r#"{"a":"x"}"#,
        r#"{"a":"\q"}"#,
        r#"{"a":"\u12"}"#,
        r#"{"a":"\ud800"}"#,
        "{\"a\":\"\n\"}",
        "{\"a\":\"\0\"}",
        r#"{"a":[1,2}"#,
        r#"{"a":[1,2]]}"#,
        r#"{"a":{"b":1]}"#,
        r#"{"a":[}"#,
        r#"{"a":{]}}"#,
        r#"{"a":[[[[1]]]]}"#,
        r#"{"a":[[[[[1]]]]]}"#,
        r#"{"a":[[[[{}]]]]}"#,
        r#"{"a":[x[[[[[1]]]]]}"#,
        r#"{"a":"[[[[[["}"#,
        r#"{"a":["\"[[[[["]}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"\ud83d\ude00":1,"😀":2}"#,
        r#"{"\ud800":1}"#,
        r#"{"\ud800\u0041":1}"#,
        r#"{"\ud800x":1}"#,
        r#"{"\udc00":1}"#,
        r#"{"\ud800\n":1}"#,
        r#"{"\x":1}"#,
        r#"{"\u00g0":1}"#,
        r#"{"\u0000":1}"#,
        "{\"\t\":1}",
        r#"{"":1}"#,
        r#"{"":1,"":2}"#,
        r#"{"12345678":1}"#,
        r#"{"123456789":1}"#,
        r#"{"éééé":1}"#,
        r#"{"ééééé":1}"#,
        r#"{"\u00e9\u00e9\u00e9\u00e9":1}"#,
        r#"{"\u00e9\u00e9\u00e9\u00e9x":1}"#,
        r#"{"1234567\u00e9":1}"#,
        r#"{"😀😀":1}"#,
        r#"{"😀😀😀":1}"#,
        r#"{"a":1,"b":2,"c":3}"#,
        r#"{"a":1,"b":2,"c":3,"d":4}"#,
        r#"{"a":1,"b":2,"c":3,d}"#,
        r#"{"a":"1234567890123456789012"}"#,
        r#"{"a":"12345678901234567890123"}"#,
        r#"{"a":123456789012345678901234}"#,
        r#"{"a":1234567890123456789012345}"#,
        r#"{"a":[1,         2,         3]}"#,
        r#"{"a":[1,          2,         3]}"#,
        r#"{"a":[x,          2,         3]}"#,
        r#"{"a":12345678901234567890123-}"#,
        r#"{"a":1234567890123456789012.4}"#,
        r#"{"a":12345678901234567890123.4}"#,
        r#"{"a":1234567890123456789012e+5}"#,
        r#"{"a":01234567890123456789012345}"#,
        "{\"a\":1,\n\n\"b\":[\n1,\n x],\"c\":1}",
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    bodies.extend([
        b"{\"a\":\"\xff\"}".to_vec(),
        b"{\"a\":\"\xc3\"}".to_vec(),
        b"{\"a\":\xc3\xa9}".to_vec(),
        b"{\"a\":x\xff}".to_vec(),
        b"{\"a\":\"\xe2\x82\"}".to_vec(),
        b"{\"\xff\":1}".to_vec(),
        b"{\"a\xc3\":1}".to_vec(),
        b"{\"1234567\xc3\xa9\":1}".to_vec(),
        b"{\"\xff1234567890\":1}".to_vec(),
        b"{\"a\":\"12345678901234567890\xc3\xa9\xc3\xa9\"}".to_vec(),
        b"{\"a\":\"123456789012345678901\xff\xff34\"}".to_vec(),
        format!("{{\"a\":1{}}}", " ".repeat(153)).into_bytes(),
        format!("{{\"a\":1{}}}", " ".repeat(152)).into_bytes(),
        format!("{{\"a\":1}}{}", " ".repeat(200)).into_bytes(),
        format!("{}{{\"a\":[x", " ".repeat(152)).into_bytes(),
    ]);
    bodies
}

#[test]
fn every_split_of_a_body_gives_the_same_verdict() {
    for inline_bytes in [0, 12, 40, 4096] {
        let (engine, _dir) = engine_with(small_limits(), inline_bytes);
        for body in bodies_near_the_rules() {
            let unsplit = check(&body, &small_limits());
            let every_byte: Vec<usize> = (0..body.len()).collect();
            assert_eq!(
                stream(&engine, &body, &every_byte),
                unsplit,
                "{:?} split after every byte",
                String::from_utf8_lossy(&body)
            );
            for cut in 0..=body.len() {
                let split = stream(&engine, &body, &[cut]);
                assert_eq!(
                    split,
                    unsplit,
                    "{:?} split at {cut}",
                    String::from_utf8_lossy(&body)
                );
            }
        }
    }
}

#[test]
fn random_values_are_accepted_exactly_if_serde_json_accepts_them() {
    let limits = Limits::default();
    let alphabet: Vec<&str> = vec![
        "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "00e9", "d83d", "\\ude00", "1", "0", "-",
        ".", "e", "+", "true", "false", "null", " ", "\n", "a", "é", "\u{1}", "\\n", "\\\"",
        "\"k\":", "[1,", "{}",
    ];
    let (mut accepted, mut refused) = (0, 0);
    for seed in seeds(60_000) {
        let mut random = Random::new(seed);
        let length = random.below(9);
        let value: String = (0..length).map(|_| *random.pick(&alphabet)).collect();
        let body = format!("{{\"a\":{value}}}");
        let oracle = serde_json::from_str::<
            std::collections::BTreeMap<String, serde::de::IgnoredAny>,
        >(&body);
        let verdict = check(body.as_bytes(), &limits);
        assert_eq!(
            oracle.is_ok(),
            verdict.is_ok(),
            "seed {seed}: {body:?}: {verdict:?}"
        );
        if verdict.is_ok() {
            accepted += 1;
        } else {
            refused += 1;
        }
    }
    // A run of the default length must include many values of both kinds, or the comparison
    // proves nothing.
    let is_long = accepted + refused >= 60_000;
    assert!(
        !is_long || (accepted > 500 && refused > 500),
        "expected over 500 of each: {accepted} accepted, {refused} refused"
    );
}

#[test]
fn document_with_10_keys_is_accepted_and_with_11_refused() {
    let (engine, _dir) = engine_with(Limits::default(), 256 * 1024);
    let namespace = engine.namespace("u", "c").unwrap();
    let body = |keys: usize| {
        let members: Vec<String> = (0..keys).map(|i| format!("\"k{i}\":{i}")).collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    };
    namespace.write(&body(10), WriteOptions::default()).unwrap();
    let refused = namespace.write(&body(11), WriteOptions::default());
    assert!(matches!(
        refused,
        Err(Error::Rejected(Violation::TooManyKeys {
            limit: 10,
            actual: 11,
            ..
        }))
    ));
    assert_eq!(namespace.get().unwrap().unwrap().read().unwrap(), body(10));
}

#[test]
fn key_of_128_bytes_is_accepted_and_129_refused_however_escaped() {
    let (engine, _dir) = engine_with(Limits::default(), 256 * 1024);
    let namespace = engine.namespace("u", "c").unwrap();
    for (exact, over) in [
        ("x".repeat(128), "x".repeat(129)),
        ("é".repeat(64), format!("{}x", "é".repeat(64))),
        (
            format!("{}x", "é".repeat(63)) + "y",
            format!("x{}", "é".repeat(64)),
        ),
        ("😀".repeat(32), format!("{}é", "😀".repeat(32))),
        ("\\u0061".repeat(128), "\\u0061".repeat(129)),
        (
            "\\ud83d\\ude00".repeat(32),
            format!("{}\\n", "\\ud83d\\ude00".repeat(32)),
        ),
        ("\\\\".repeat(128), "\\\"".repeat(129)),
    ] {
        let accepted = format!("{{\"{exact}\":1}}");
        namespace
            .write(accepted.as_bytes(), WriteOptions::default())
            .unwrap();
        let refused = namespace.write(
            format!("{{\"{over}\":1}}").as_bytes(),
            WriteOptions::default(),
        );
        assert!(
            matches!(
                refused,
                Err(Error::Rejected(Violation::KeyTooLong {
                    limit: 128,
                    actual: 129..=132,
                    ..
                }))
            ),
            "{over}: {refused:?}"
        );
        assert_eq!(
            namespace.get().unwrap().unwrap().read().unwrap(),
            accepted.as_bytes()
        );
    }
}

#[test]
fn value_of_10_mib_is_accepted_and_one_byte_more_refused() {
    const LIMIT: usize = 10_485_760;
    let (engine, _dir) = engine_with(Limits::default(), 256 * 1024);
    let namespace = engine.namespace("u", "c").unwrap();
    let of_type = |kind: &str, bytes: usize| match kind {
        "string" => format!("\"{}\"", "s".repeat(bytes - 2)),
        "escaped" => format!(
            "\"{}{}\"",
            "\\n".repeat((bytes - 2) / 2),
            "x".repeat(bytes % 2)
        ),
        "multi-byte" => format!(
            "\"{}{}\"",
            "é".repeat((bytes - 2) / 2),
            "x".repeat(bytes % 2)
        ),
        "number" => format!("1{}", "0".repeat(bytes - 1)),
        "array" => format!("[{}1]", " ".repeat(bytes - 3)),
        "object" => format!("{{\"k\":\"{}\"}}", "o".repeat(bytes - 8)),
        other => panic!("unknown type of value {other}"),
    };
    for kind in [
        "string",
        "escaped",
        "multi-byte",
        "number",
        "array",
        "object",
    ] {
        let body = |bytes| {
            format!(
                "{{\"before\":true,\"é\":{},\"after\":null}}",
                of_type(kind, bytes)
            )
        };
        let (exact, over) = (body(LIMIT), body(LIMIT + 1));
        namespace
            .write(exact.as_bytes(), WriteOptions::default())
            .unwrap();
        let refused = namespace.write(over.as_bytes(), WriteOptions::default());
        assert!(
            matches!(&refused, Err(Error::Rejected(Violation::ValueTooLong { key, limit: 10_485_760, actual: 10_485_761, .. })) if key == "é"),
            "{kind}: {refused:?}"
        );
        assert_eq!(
            check(over.as_bytes(), &Limits::default()).unwrap_err(),
            match refused {
                Err(Error::Rejected(violation)) => violation,
                other => panic!("expected a refusal, found {other:?}"),
            }
        );
        assert!(
            namespace.get().unwrap().unwrap().read().unwrap() == exact.as_bytes(),
            "{kind}"
        );
    }
}

#[test]
fn depth_of_128_is_accepted_and_129_or_100_000_refused() {
    let nested = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let mixed = |depth: usize| {
        format!(
            "{{\"a\":{}1{}}}",
            "{\"k\":[".repeat(depth / 2),
            "]}".repeat(depth / 2)
        )
    };
    let limits = Limits::default();
    check(nested(128).as_bytes(), &limits).unwrap();
    check(mixed(128).as_bytes(), &limits).unwrap();
    for body in [
        nested(129),
        mixed(130),
        nested(100_000),
        "{\"a\":".to_owned() + &"[".repeat(100_000),
    ] {
        assert!(matches!(
            check(body.as_bytes(), &limits),
            Err(Violation::Json { .. })
        ));
    }
}

#[test]
fn writer_returns_its_first_violation_from_every_later_call() {
    let (engine, _dir) = engine_with(Limits::default(), 256 * 1024);
    let mut writer = engine.writer();
    let refused = |outcome: Result<(), Error>| {
        matches!(outcome, Err(Error::Rejected(Violation::NotAnObject { .. })))
    };
    assert!(refused(writer.write(b"[")));
    assert!(refused(writer.write(b"{}")));
    assert!(refused(writer.finish().map(drop)));
}

#[test]
fn duplicate_keys_are_found_however_they_are_escaped() {
    let spellings = [
        "a",
        "\\u0061",
        "\\n",
        "\\u000a",
        "é",
        "\\u00e9",
        "😀",
        "\\ud83d\\ude00",
        "\\/",
        "/",
    ];
    for seed in seeds(5_000) {
        let mut random = Random::new(seed);
        let mut key = || -> String {
            (0..=random.below(2))
                .map(|_| *random.pick(&spellings))
                .collect()
        };
        let keys = [key(), key(), key()];
        let decoded: HashSet<String> = keys
            .iter()
            .map(|k| serde_json::from_str(&format!("\"{k}\"")).unwrap())
            .collect();
        let body = format!("{{\"{}\":1,\"{}\":2,\"{}\":3}}", keys[0], keys[1], keys[2]);
        let outcome = check(body.as_bytes(), &Limits::default());
        match outcome {
            Ok(usage) => assert_eq!(
                (decoded.len(), usage.bytes),
                (3, body.len() as u64),
                "seed {seed}: {body}"
            ),
            Err(Violation::DuplicateKey { .. }) => {
                assert!(decoded.len() < 3, "seed {seed}: {body}");
            }
            Err(other) => panic!("seed {seed}: {body}: {other}"),
        }
    }
}
