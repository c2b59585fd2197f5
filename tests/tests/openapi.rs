//! The OpenAPI document: that it is one, that it is the one in `docs/`, and that what it
//! says of answers is so.

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use common::{BINARY, FULL_DISK, damage_last_document, fresh, put, target, wait_until};
use prefd_tests::api_error::{self, Expected};
use prefd_tests::http::{Request, Response};
use prefd_tests::openapi::{OpenApi, PREFERENCES, TARGET};
use prefd_tests::server::{Launch, Server};
use prefd_tests::vacant::Vacant;
use prefd_tests::{machine, schemathesis, token};
use serde_json::json;

/// Set to have `docs/openapi.json` written instead of compared.
const WRITE: &str = "PREFD_TEST_WRITE_OPENAPI";

fn in_docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json")
}

#[test]
fn the_one_in_docs_is_what_a_server_with_default_settings_gives() {
    let (server, _dir) = fresh(&[]);
    let served = server.connect().request(&Request::new("GET", TARGET));
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(in_docs(), &served.body).unwrap();
    }
    let kept = std::fs::read_to_string(in_docs()).unwrap_or_default();
    let differs = served
        .text()
        .lines()
        .zip(kept.lines())
        .find(|(a, b)| a != b);
    assert!(
        served.text() == kept,
        "docs/openapi.json is not what is served ({differs:?}): look at what has changed, then \
         {WRITE}=1 cargo test -p prefd-tests --test openapi"
    );
}

#[test]
fn it_is_openapi_3_1() {
    if !machine::has_schemathesis() {
        return;
    }
    let judged = schemathesis::command("openapi-spec-validator")
        .args(["--schema", "3.1"])
        .arg(in_docs())
        .output()
        .unwrap();
    assert!(judged.status.success(), "{judged:?}");
}

#[test]
fn it_is_read_without_a_token_and_by_its_tag() {
    let (server, _dir) = fresh(&[]);
    let document = OpenApi::of(&server);
    let mut connection = server.connect();
    let get = connection.request(&Request::new("GET", TARGET));
    document.check(TARGET, "GET", &get, "GET");
    assert_eq!(get.header("content-type"), Some("application/json"));
    let head = connection.request(&Request::new("HEAD", TARGET));
    document.check(TARGET, "HEAD", &head, "HEAD");
    for name in ["content-type", "content-length", "etag", "cache-control"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    let tag = get.header("etag").unwrap();
    for (name, value, status) in [
        ("If-None-Match", tag, 304),
        ("If-None-Match", "*", 304),
        ("If-None-Match", "\"1\"", 200),
        ("If-Match", tag, 200),
        ("If-Match", "\"1\"", 412),
        ("If-Match", "1", 400),
    ] {
        for method in ["GET", "HEAD"] {
            let request = Request::new(method, TARGET).header(name, value);
            let response = connection.request(&request);
            let context = format!("{method}, {name}: {value}");
            assert_eq!(response.status, status, "{context}");
            document.check(TARGET, method, &response, &context);
        }
    }
    for method in ["PUT", "POST", "DELETE", "OPTIONS", "BREW"] {
        let response = connection.request(&Request::new(method, TARGET));
        Expected::code("method-not-allowed").check(&response, method);
        assert_eq!(response.header("allow"), Some("GET, HEAD"));
        document.check(TARGET, method, &response, method);
    }
    for path in [
        "/openapi.json/",
        "/openapi",
        "//openapi.json",
        "/OpenApi.json",
    ] {
        let response = connection.request(&Request::new("GET", path));
        Expected::code("not-found").check(&response, path);
    }
    let other = fresh(&["--max-keys", "3"]);
    let other = other.0.connect().request(&Request::new("HEAD", TARGET));
    assert_ne!(other.header("etag"), Some(tag));
}

#[test]
fn health_is_as_it_says() {
    let nobody = Vacant::new();
    let (ready, _dir) = fresh(&[]);
    let (unready, _other) = fresh(&["--oidc-issuer", &nobody.url(), "--require-audience=false"]);
    for (server, path, status) in [
        (&ready, "/livez", 200),
        (&ready, "/readyz", 200),
        (&unready, "/livez", 200),
        (&unready, "/readyz", 503),
    ] {
        let document = OpenApi::of(server);
        for method in ["GET", "HEAD", "POST"] {
            let response = server.connect().request(&Request::new(method, path));
            let expected = if method == "POST" { 405 } else { status };
            assert_eq!(response.status, expected, "{method} {path}");
            document.check(path, method, &response, path);
        }
    }
}

#[test]
fn it_says_the_versions_and_limits_of_the_server_that_is_asked() {
    let (server, _dir) = fresh(&[
        "--api-version",
        "v1,v2",
        "--max-keys",
        "3",
        "--max-key-bytes",
        "7",
    ]);
    let document = OpenApi::of(&server);
    let versions = document.at("/components/parameters/version/schema/enum");
    assert_eq!(*versions, json!(["v1", "v2"]));
    let keys = document.at("/components/schemas/Preferences/maxProperties");
    let key_bytes = document.at("/components/schemas/Preferences/propertyNames/maxLength");
    assert_eq!((keys, key_bytes), (&json!(3), &json!(7)));
}

#[test]
fn it_has_every_code_and_no_other() {
    let (server, _dir) = fresh(&[]);
    let document = OpenApi::of(&server);
    let table: BTreeSet<&str> = api_error::codes().collect();
    let named = document.at("/components/schemas/ErrorCode/enum");
    let named = named.as_array().unwrap().iter();
    assert_eq!(
        named
            .map(|code| code.as_str().unwrap())
            .collect::<BTreeSet<_>>(),
        table
    );
    let documents = ["no-preferences", "preferences"];
    let examples = document.at("/components/examples").as_object().unwrap();
    let examples = examples.keys().map(String::as_str);
    let of_errors: BTreeSet<&str> = examples.filter(|name| !documents.contains(name)).collect();
    assert_eq!(of_errors, table);
    // An example is an answer.
    for code in table {
        let example = document.at(&format!("/components/examples/{code}/value"));
        let error = &example["errors"][0];
        let challenge = match error["status"].as_str().unwrap() {
            "401" => "Bearer realm=\"prefd\"",
            "403" => "Bearer realm=\"prefd\", error=\"insufficient_scope\"",
            _ => "",
        };
        let mut headers = vec![
            ("content-type", "application/vnd.api+json"),
            ("request-id", error["id"].as_str().unwrap()),
        ];
        headers.extend((!challenge.is_empty()).then_some(("www-authenticate", challenge)));
        headers.extend((error["status"] == "503").then_some(("retry-after", "1")));
        let answer = Response {
            status: error["status"].as_str().unwrap().parse().unwrap(),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: example.to_string().into_bytes(),
        };
        assert_eq!(api_error::check_any(&answer, code), code);
    }
}

/// What a server answered, held against its document.
struct Answers<'a> {
    server: &'a Server,
    document: OpenApi,
    codes: &'a mut BTreeSet<&'static str>,
}

impl<'a> Answers<'a> {
    fn of(server: &'a Server, codes: &'a mut BTreeSet<&'static str>) -> Self {
        let document = OpenApi::of(server);
        Self {
            server,
            document,
            codes,
        }
    }

    fn note(&mut self, method: &str, status: u16, response: &Response) {
        let context = format!("{method} {status}");
        assert_eq!(response.status, status, "{response:?}");
        let code = self.document.check(PREFERENCES, method, response, &context);
        self.codes.extend(code);
    }

    fn ask(&mut self, method: &str, status: u16, request: &Request) -> Response {
        let response = self.server.connect().request(request);
        self.note(method, status, &response);
        response
    }
}

#[test]
fn what_a_server_answers_is_in_its_document() {
    let mut codes = BTreeSet::new();
    successes(&mut codes);
    assert!(codes.is_empty());
    refusals(&mut codes);
    overload(&mut codes);
    stalling(&mut codes);
    failures(&mut codes);
    let mut missing: BTreeSet<&str> = api_error::codes().collect();
    missing.retain(|code| !codes.contains(code));
    // It takes a connection that is served while the store closes.
    assert_eq!(missing, BTreeSet::from(["shutting-down"]));
}

fn successes(codes: &mut BTreeSet<&'static str>) {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let mut answers = Answers::of(&server, codes);
    let of = |method| Request::of(method, "xyz", &token);
    for method in ["GET", "HEAD"] {
        answers.ask(method, 200, &of(method));
    }
    let put = answers.ask("PUT", 204, &of("PUT").body("{\"a\":1}"));
    let tag = put.header("etag").unwrap();
    for method in ["GET", "HEAD"] {
        let got = answers.ask(method, 200, &of(method));
        assert!(got.header("last-modified").is_some());
        answers.ask(method, 304, &of(method).header("If-None-Match", tag));
        let since = got.header("last-modified").unwrap();
        answers.ask(method, 304, &of(method).header("If-Modified-Since", since));
    }
    answers.ask("DELETE", 204, &of("DELETE"));
    answers.ask("DELETE", 204, &of("DELETE"));
}

fn refusals(codes: &mut BTreeSet<&'static str>) {
    let (server, _dir) = fresh(&[
        "--linked-identity-claim",
        "linked",
        "--max-value-bytes",
        "100",
        "--max-body-bytes",
        "2000",
    ]);
    let mut claims = token::claims("alice", "xyz");
    let unlinked = token::hs256(&claims);
    claims["linked"] = json!("yes");
    let token = token::hs256(&claims);
    let mut answers = Answers::of(&server, codes);
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let of = |client, token| Request::of(method, client, token).body("{}");
        let bare = Request::new(method, &target("xyz"));
        answers.ask(method, 401, &bare.clone());
        answers.ask(method, 401, &bare.clone().bearer("x"));
        answers.ask(method, 401, &of("xyz", &unlinked));
        answers.ask(method, 400, &bare.bearer("x").bearer("y"));
        answers.ask(method, 400, &of("%ff", &token));
        answers.ask(method, 400, &of("xyz", &token).header("If-Match", "7"));
        answers.ask(method, 403, &of("abc", &token));
        answers.ask(method, 412, &of("xyz", &token).header("If-Match", "*"));
        answers.ask(
            method,
            404,
            &Request::new(method, "/user/1/preferences/xyz"),
        );
    }
    for method in ["POST", "PATCH", "OPTIONS", "BREW"] {
        answers.ask(method, 405, &Request::of(method, "xyz", &token));
    }
    let eleven: Vec<String> = (0..11).map(|n| format!("\"{n}\":{n}")).collect();
    for (body, status) in [
        ("{".to_owned(), 400),
        ("[]".to_owned(), 400),
        ("{\"a\":1,\"a\":2}".to_owned(), 400),
        (format!("{{{}}}", eleven.join(",")), 413),
        (format!("{{\"{}\":1}}", "k".repeat(129)), 413),
        (format!("{{\"a\":\"{}\"}}", "v".repeat(100)), 413),
        (format!("{{{}}}", " ".repeat(2000)), 413),
    ] {
        answers.ask("PUT", status, &Request::of("PUT", "xyz", &token).body(body));
    }
    for (name, value) in [("Content-Type", "text/plain"), ("Content-Encoding", "gzip")] {
        let request = Request::of("PUT", "xyz", &token).header(name, value);
        answers.ask("PUT", 415, &request.body("{}"));
    }
}

fn overload(codes: &mut BTreeSet<&'static str>) {
    /// More than an upload may bring without room in the budget.
    const NEEDS_ROOM: usize = 20_000;
    let (server, _dir) = fresh(&["--body-budget-bytes", "4096", "--body-budget-wait", "1ms"]);
    let token = token::of("alice", "xyz");
    let mut answers = Answers::of(&server, codes);
    let document = |bytes| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
    // It takes the whole budget, and goes no further.
    let held = Request::of("PUT", "xyz", &token).body(document(2 * NEEDS_ROOM));
    let bytes = held.bytes();
    let hold = || {
        let mut holder = server.connect();
        holder.send(&bytes[..bytes.len() - NEEDS_ROOM / 2]).unwrap();
        holder
    };
    let mut holder = hold();
    let another = Request::of("PUT", "xyz", &token).body(document(NEEDS_ROOM));
    let mut refused = None;
    wait_until("the holder has the budget", || {
        // Where it has stalled for too long, it has been sent away.
        if holder.is_answered_within(Duration::from_millis(1)) {
            holder = hold();
        }
        refused = Some(server.connect().request(&another));
        refused
            .as_ref()
            .is_some_and(|refused| refused.status != 204)
    });
    answers.note("PUT", 503, &refused.unwrap());
}

fn stalling(codes: &mut BTreeSet<&'static str>) {
    let (server, _dir) = fresh(&["--body-timeout", "100ms"]);
    let mut answers = Answers::of(&server, codes);
    let stalled = Request::of("PUT", "xyz", &token::of("alice", "xyz"));
    let mut connection = server.connect();
    let head = stalled.header("Content-Length", "100").head();
    connection.send(&head).unwrap();
    answers.note("PUT", 408, &connection.read_response(false).unwrap());
}

fn failures(codes: &mut BTreeSet<&'static str>) {
    let dir = tempfile::tempdir().unwrap();
    let token = token::of("alice", "xyz");
    let launch = Launch::new(BINARY, dir.path()).with(&["--document-cache-bytes", "0"]);
    let server = launch.start();
    put(&mut server.connect(), "xyz", &token, "{\"a\":1}");
    assert!(server.stop().success());
    damage_last_document(dir.path());
    let server = launch.start();
    let mut answers = Answers::of(&server, codes);
    answers.ask("GET", 501, &Request::of("GET", "xyz", &token));
    drop(server);
    let server = launch.after_shell(FULL_DISK).start();
    let mut answers = Answers::of(&server, codes);
    let large = format!("{{\"large\":\"{}\"}}", "x".repeat(400_000));
    answers.ask("PUT", 507, &Request::of("PUT", "xyz", &token).body(large));
}
