//! Writes the seed corpus of the fuzzers to `fuzz/corpus`:
//!
//! `cargo run -p prefd-tests --example fuzz_corpus`
//!
//! Run this program again after a change of the on-disk format, or after adding a seed to it. It
//! does not change other files in the corpus.

use std::fs;
use std::path::Path;

use prefd_engine::Limits;
use prefd_tests::golden::Golden;
use prefd_tests::layout::frames;
use prefd_tests::oracle::document::limits;
use prefd_tests::oracle::replay::BaseStore;
use prefd_tests::random::Random;

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let [small, medium, ..] = limits();
    documents(&corpus, "small", &small);
    documents(&corpus, "medium", &medium);
    files(&corpus);
    mixed_frame(&corpus);
    tokens(&corpus);
    requests(&corpus);
    for target in [
        "document_limits",
        "segment_replay",
        "engine_ops",
        "http_request",
        "token",
    ] {
        choices(&corpus, target);
    }
}

fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(dir).expect("the corpus directory can be created");
    fs::write(dir.join(name), bytes).expect("the seed can be written");
}

/// Writes two documents for each limit: one at the limit, and one above it.
fn documents(corpus: &Path, set: &str, limits: &Limits) {
    let keys = |count: u32| {
        let members: Vec<String> = (0..count).map(|n| format!("\"{n}\":{n}")).collect();
        format!("{{{}}}", members.join(","))
    };
    let key = |bytes: u32| format!("{{\"{}\":1}}", "k".repeat(bytes as usize));
    let value = |bytes: u64| {
        let filling = "v".repeat(usize::try_from(bytes).expect("the limit fits into usize") - 2);
        format!("{{\"a\":\"{filling}\"}}")
    };
    let levels = |count: u32| {
        let count = count as usize;
        format!("{{\"a\":{}{}}}", "[".repeat(count), "]".repeat(count))
    };
    let body = |bytes: u64| {
        format!(
            "{{}}{}",
            " ".repeat(usize::try_from(bytes).expect("the limit fits into usize") - 2)
        )
    };
    for (what, over) in [("at", 0), ("over", 1)] {
        let dir = corpus.join("document_limits");
        let name = |limit: &str| format!("{set}-{what}-{limit}");
        write(&dir, &name("max-keys"), keys(limits.max_keys + over));
        write(
            &dir,
            &name("max-key-bytes"),
            key(limits.max_key_bytes + over),
        );
        let over_bytes = u64::from(over);
        write(
            &dir,
            &name("max-value-bytes"),
            value(limits.max_value_bytes + over_bytes),
        );
        write(
            &dir,
            &name("max-body-bytes"),
            body(limits.max_body_bytes + over_bytes),
        );
        write(&dir, &name("max-depth"), levels(limits.max_depth + over));
    }
}

/// Writes the files of a store, and each frame of its segments.
fn files(corpus: &Path) {
    for (path, bytes) in BaseStore::new().files() {
        // The reserve file only reserves disk space.
        if path.ends_with("reserve") {
            continue;
        }
        let name = path.replace('/', "-");
        write(&corpus.join("segment_replay"), &name, &bytes);
        if name.contains("blob") {
            continue;
        }
        write(&corpus.join("frame_decode"), &name, &bytes);
        if bytes.starts_with(b"PREFDSEG") {
            for (index, frame) in frames(&bytes).into_iter().enumerate() {
                let name = format!("{name}-frame-{index}");
                write(&corpus.join("frame_decode"), &name, &bytes[frame.bytes]);
            }
        }
    }
}

/// Writes the last frame of the golden directory of format version 3. Its document has an extent
/// and values of earlier writes, which the engine does not write yet.
fn mixed_frame(corpus: &Path) {
    let golden = Golden::of(3);
    let segment = golden.files("log", "seg").pop();
    let segment = segment.expect("the golden directory has segments");
    let bytes = fs::read(segment).expect("the golden segment can be read");
    let last = frames(&bytes).pop().expect("the segment has frames");
    write(
        &corpus.join("frame_decode"),
        "mixed-frame",
        &bytes[last.bytes],
    );
}

/// Writes recipes for tokens: the signer, the header and the claims.
fn tokens(corpus: &Path) {
    const CLAIMS: &str =
        r#"{"sub":"u","client_id":"c","iss":"https://issuer.test","aud":"prefd","exp":$NOW+60}"#;
    let recipe =
        |signer: &str, header: &str, claims: &str| format!("sign {signer}\n{header}\n{claims}");
    for (name, signer, algorithm) in [
        ("good-hs256", "hs256", "HS256"),
        ("good-es256", "es256", "ES256"),
        ("good-es384", "es384", "ES384"),
        ("good-eddsa", "eddsa", "EdDSA"),
        ("good-rs256", "rs256", "RS256"),
        ("rsa-public-key-as-secret", "rsa-public", "HS256"),
        ("ec-public-key-as-secret", "ec-public", "HS256"),
        ("alg-none", "none", "none"),
        ("alg-none-uppercase", "none", "NONE"),
        ("alg-of-another-key", "hs256", "RS256"),
        ("hs512-with-hs256-secret", "hs512", "HS512"),
        ("another-secret", "other", "HS256"),
    ] {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        write(&corpus.join("token"), name, recipe(signer, &header, CLAIMS));
    }
    for (name, header) in [
        ("crit", r#"{"alg":"HS256","crit":["exp"]}"#),
        ("crit-null", r#"{"alg":"HS256","crit":null}"#),
        ("crit-empty", r#"{"alg":"HS256","crit":[]}"#),
        ("kid", r#"{"alg":"RS256","kid":"rsa"}"#),
        ("jku", r#"{"alg":"HS256","jku":"https://elsewhere.test"}"#),
        ("alg-twice", r#"{"alg":"HS256","alg":"none"}"#),
    ] {
        let signer = if name == "kid" { "rs256" } else { "hs256" };
        write(&corpus.join("token"), name, recipe(signer, header, CLAIMS));
    }
    for (name, claims) in [
        ("exp-missing", r#"{"sub":"u","client_id":"c"}"#),
        (
            "exp-within-leeway",
            r#"{"sub":"u","client_id":"c","exp":$NOW-20}"#,
        ),
        (
            "exp-beyond-leeway",
            r#"{"sub":"u","client_id":"c","exp":$NOW-40}"#,
        ),
        ("exp-text", r#"{"sub":"u","client_id":"c","exp":"$NOW+60"}"#),
        ("exp-huge", r#"{"sub":"u","client_id":"c","exp":1e308}"#),
        ("exp-negative", r#"{"sub":"u","client_id":"c","exp":-1}"#),
        (
            "nbf-beyond-leeway",
            r#"{"sub":"u","client_id":"c","exp":$NOW+60,"nbf":$NOW+40}"#,
        ),
        (
            "nbf-within-leeway",
            r#"{"sub":"u","client_id":"c","exp":$NOW+60,"nbf":$NOW+20}"#,
        ),
        ("azp", r#"{"sub":"u","azp":"c","exp":$NOW+60}"#),
        (
            "client-null",
            r#"{"sub":"u","client_id":null,"azp":"c","exp":$NOW+60}"#,
        ),
        (
            "client-empty-list",
            r#"{"sub":"u","client_id":[],"azp":"c","exp":$NOW+60}"#,
        ),
        (
            "user-with-nul",
            r#"{"sub":"u\u0000","client_id":"c","exp":$NOW+60}"#,
        ),
        (
            "aud-list",
            r#"{"sub":"u","client_id":"c","iss":"https://issuer.test","aud":["x","prefd"],"exp":$NOW+60}"#,
        ),
    ] {
        write(
            &corpus.join("token"),
            name,
            recipe("hs256", r#"{"alg":"HS256"}"#, claims),
        );
    }
}

/// Writes requests.
fn requests(corpus: &Path) {
    const HEAD: &str = "/user/2025-1/preferences/own HTTP/1.1\r\nHost: prefd.test\r\nAuthorization: Bearer $TOKEN\r\n";
    let put = |headers: &str, body: &str| format!("PUT {HEAD}{headers}\r\n{body}");
    let sized = |body: &str| put(&format!("Content-Length: {}\r\n", body.len()), body);
    let get = format!("GET {HEAD}\r\n");
    for (name, bytes) in [
        ("get", get.clone()),
        ("head", format!("HEAD {HEAD}\r\n")),
        ("delete", format!("DELETE {HEAD}\r\n")),
        ("put", sized("{\"a\":1}")),
        ("put-then-get", format!("{}{get}", sized("{\"a\":[1, 2]}"))),
        (
            "put-to-a-blob",
            format!(
                "{}{get}",
                sized(&format!("{{\"a\":\"{}\"}}", "b".repeat(50)))
            ),
        ),
        (
            "put-chunked",
            put(
                "Transfer-Encoding: chunked\r\n",
                "3\r\n{\"a\r\n4;x=y\r\n\":1}\r\n0\r\n\r\n",
            ),
        ),
        (
            "put-with-trailers",
            put(
                "Transfer-Encoding: chunked\r\n",
                "2\r\n{}\r\n0\r\nX: y\r\n\r\n",
            ),
        ),
        (
            "put-with-both-lengths",
            put(
                "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
                "2\r\n{}\r\n0\r\n\r\n",
            ),
        ),
        (
            "put-with-two-lengths",
            put("Content-Length: 2\r\nContent-Length: 3\r\n", "{} "),
        ),
        (
            "put-incomplete-body",
            put("Content-Length: 9\r\n", "{\"a\""),
        ),
        (
            "put-expecting-to-continue",
            put("Expect: 100-continue\r\nContent-Length: 2\r\n", "{}"),
        ),
        (
            "put-if-absent-twice",
            put("If-None-Match: *\r\nContent-Length: 2\r\n", "{}").repeat(2),
        ),
        (
            "put-too-long",
            put("Content-Length: 301\r\n", &" ".repeat(301)),
        ),
        (
            "put-gzip",
            put("Content-Encoding: gzip\r\nContent-Length: 2\r\n", "{}"),
        ),
        ("put-not-json", format!("{}{get}", sized("{\"a\":01}"))),
        (
            "get-unless-modified",
            format!("GET {HEAD}If-None-Match: \"1\", W/\"2\"\r\n\r\n"),
        ),
        (
            "http-1-0",
            "GET /user/2025-1/preferences/own HTTP/1.0\r\n\r\n".to_owned(),
        ),
        (
            "http-2-preface",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        ),
        (
            "no-host",
            "GET /user/2025-1/preferences/own HTTP/1.1\r\n\r\n".to_owned(),
        ),
        (
            "options-asterisk",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        ),
        (
            "absolute-target",
            get.replace("GET /", "GET http://prefd.test/"),
        ),
        (
            "connect",
            "CONNECT prefd.test:80 HTTP/1.1\r\nHost: prefd.test:80\r\n\r\n".to_owned(),
        ),
        (
            "long-target",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(700)),
        ),
        ("not-http", "\u{16}\u{3}\u{1}hello".to_owned()),
    ] {
        write(&corpus.join("http_request"), name, bytes);
    }
}

/// Writes lists of choices, from which a fuzzer starts.
fn choices(corpus: &Path, target: &str) {
    for seed in 0..8_u64 {
        let mut random = Random::new(seed);
        let len = 40 + 20 * seed;
        let first = std::iter::once(seed.to_le_bytes()[0]);
        let bytes: Vec<u8> = first
            .chain((0..len).map(|_| random.draw().to_le_bytes()[0]))
            .collect();
        write(&corpus.join(target), &format!("choices-{seed}"), bytes);
    }
}
