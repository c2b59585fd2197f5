//! The OpenAPI document: it is valid, it equals `docs/openapi.json`, and the server's
//! responses match it.

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use common::{BINARY, FULL_DISK, damage_last_document, fresh, put, target, wait_until};
use prefd_tests::api_error::{self, ExpectedError};
use prefd_tests::closed_port::ClosedPort;
use prefd_tests::http::{Request, Response};
use prefd_tests::openapi::{OpenApi, PREFERENCES, TARGET};
use prefd_tests::server::{Launch, Server};
use prefd_tests::{machine, schemathesis, token};
use serde_json::json;

/// Environment variable that makes the test rewrite `docs/openapi.json`.
const WRITE: &str = "PREFD_TEST_WRITE_OPENAPI";

fn path_in_docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json")
}

#[test]
fn docs_openapi_json_equals_the_served_document() {
    let (server, _dir) = fresh(&[]);
    let served = server.connect().request(&Request::new("GET", TARGET));
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(path_in_docs(), &served.body).unwrap();
    }
    let in_docs = std::fs::read_to_string(path_in_docs()).unwrap_or_default();
    let differs = served
        .text()
        .lines()
        .zip(in_docs.lines())
        .find(|(a, b)| a != b);
    assert!(
        served.text() == in_docs,
        "docs/openapi.json must equal the served document, first difference: {differs:?}. If the \
         change is intended, run {WRITE}=1 cargo test -p prefd-tests --test openapi"
    );
}

#[test]
fn document_is_valid_openapi_3_1() {
    if !machine::has_schemathesis() {
        return;
    }
    let validation = schemathesis::command("openapi-spec-validator")
        .args(["--schema", "3.1"])
        .arg(path_in_docs())
        .output()
        .unwrap();
    assert!(validation.status.success(), "{validation:?}");
}

#[test]
fn document_needs_no_token_and_supports_conditional_reads() {
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
        ExpectedError::code("method-not-allowed").check(&response, method);
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
        ExpectedError::code("not-found").check(&response, path);
    }
    let other = fresh(&["--max-keys", "3"]);
    let other = other.0.connect().request(&Request::new("HEAD", TARGET));
    assert_ne!(other.header("etag"), Some(tag));
}

#[test]
fn health_responses_match_the_document() {
    let provider = ClosedPort::new();
    let (ready, _dir) = fresh(&[]);
    let (unready, _other) = fresh(&["--oidc-issuer", &provider.url(), "--require-audience=false"]);
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
fn document_contains_the_configured_versions_and_limits() {
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
fn document_lists_exactly_the_known_error_codes() {
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
    let error_examples: BTreeSet<&str> =
        examples.filter(|name| !documents.contains(name)).collect();
    assert_eq!(error_examples, table);
    // Each example must be a valid error response.
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
            ("cache-control", "no-store"),
            ("request-id", error["id"].as_str().unwrap()),
        ];
        headers.extend((!challenge.is_empty()).then_some(("www-authenticate", challenge)));
        headers.extend((error["status"] == "503").then_some(("retry-after", "1")));
        let response = Response {
            status: error["status"].as_str().unwrap().parse().unwrap(),
            headers: headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: example.to_string().into_bytes(),
        };
        assert_eq!(api_error::check_any(&response, code), code);
    }
}

/// Checks the responses of a server against its OpenAPI document, and collects the error
/// codes.
struct ResponseChecker<'a> {
    server: &'a Server,
    document: OpenApi,
    codes: &'a mut BTreeSet<&'static str>,
}

impl<'a> ResponseChecker<'a> {
    fn of(server: &'a Server, codes: &'a mut BTreeSet<&'static str>) -> Self {
        let document = OpenApi::of(server);
        Self {
            server,
            document,
            codes,
        }
    }

    /// Expects a status, and a response that the document describes.
    fn check(&mut self, method: &str, status: u16, response: &Response) {
        let context = format!("{method} {status}");
        assert_eq!(response.status, status, "{response:?}");
        let code = self.document.check(PREFERENCES, method, response, &context);
        self.codes.extend(code);
    }

    /// Sends a request, and checks the response.
    fn request(&mut self, method: &str, status: u16, request: &Request) -> Response {
        let response = self.server.connect().request(request);
        self.check(method, status, &response);
        response
    }
}

#[test]
fn responses_match_the_document() {
    let mut codes = BTreeSet::new();
    successes(&mut codes);
    assert!(codes.is_empty());
    refusals(&mut codes);
    overload(&mut codes);
    stalling(&mut codes);
    failures(&mut codes);
    let mut missing: BTreeSet<&str> = api_error::codes().collect();
    missing.retain(|code| !codes.contains(code));
    // The error `shutting-down` occurs only while the store closes. This test sends no request
    // at that moment.
    assert_eq!(missing, BTreeSet::from(["shutting-down"]));
}

fn successes(codes: &mut BTreeSet<&'static str>) {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let mut checker = ResponseChecker::of(&server, codes);
    let of = |method| Request::of(method, "xyz", &token);
    for method in ["GET", "HEAD"] {
        checker.request(method, 200, &of(method));
    }
    let put = checker.request("PUT", 204, &of("PUT").body("{\"a\":1}"));
    let tag = put.header("etag").unwrap();
    for method in ["GET", "HEAD"] {
        let got = checker.request(method, 200, &of(method));
        assert!(got.header("last-modified").is_some());
        checker.request(method, 304, &of(method).header("If-None-Match", tag));
    }
    checker.request("DELETE", 204, &of("DELETE"));
    checker.request("DELETE", 204, &of("DELETE"));
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
    let mut checker = ResponseChecker::of(&server, codes);
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let of = |client, token| Request::of(method, client, token).body("{}");
        let bare = Request::new(method, &target("xyz"));
        checker.request(method, 401, &bare.clone());
        checker.request(method, 401, &bare.clone().bearer("x"));
        checker.request(method, 401, &of("xyz", &unlinked));
        checker.request(method, 400, &bare.bearer("x").bearer("y"));
        checker.request(method, 400, &of("%ff", &token));
        checker.request(method, 400, &of("xyz", &token).header("If-Match", "7"));
        checker.request(method, 403, &of("abc", &token));
        checker.request(method, 412, &of("xyz", &token).header("If-Match", "*"));
        checker.request(
            method,
            404,
            &Request::new(method, "/user/1/preferences/xyz"),
        );
    }
    for method in ["POST", "PATCH", "OPTIONS", "BREW"] {
        checker.request(method, 405, &Request::of(method, "xyz", &token));
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
        checker.request("PUT", status, &Request::of("PUT", "xyz", &token).body(body));
    }
    for (name, value) in [("Content-Type", "text/plain"), ("Content-Encoding", "gzip")] {
        let request = Request::of("PUT", "xyz", &token).header(name, value);
        checker.request("PUT", 415, &request.body("{}"));
    }
}

fn overload(codes: &mut BTreeSet<&'static str>) {
    /// Size of a value that makes an upload large enough to need space in the body budget.
    const BUDGETED_BYTES: usize = 20_000;
    let (server, _dir) = fresh(&["--body-budget-bytes", "4096", "--body-budget-wait", "1ms"]);
    let token = token::of("alice", "xyz");
    let mut checker = ResponseChecker::of(&server, codes);
    let document = |bytes| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
    // This upload uses the complete budget, and then stops sending.
    let stalled = Request::of("PUT", "xyz", &token).body(document(2 * BUDGETED_BYTES));
    let bytes = stalled.bytes();
    let hold = || {
        let mut holder = server.connect();
        holder
            .send(&bytes[..bytes.len() - BUDGETED_BYTES / 2])
            .unwrap();
        holder
    };
    let mut holder = hold();
    let another = Request::of("PUT", "xyz", &token).body(document(BUDGETED_BYTES));
    let mut refused = None;
    wait_until("a refusal for lack of body budget", || {
        // The server evicts the stalled upload after a while. Then the test starts another one.
        if holder.wait_for_response(Duration::from_millis(1)) {
            holder = hold();
        }
        refused = Some(server.connect().request(&another));
        refused
            .as_ref()
            .is_some_and(|refused| refused.status != 204)
    });
    checker.check("PUT", 503, &refused.unwrap());
}

fn stalling(codes: &mut BTreeSet<&'static str>) {
    let (server, _dir) = fresh(&["--body-timeout", "100ms"]);
    let mut checker = ResponseChecker::of(&server, codes);
    let stalled = Request::of("PUT", "xyz", &token::of("alice", "xyz"));
    let mut connection = server.connect();
    let head = stalled.header("Content-Length", "100").head();
    connection.send(&head).unwrap();
    checker.check("PUT", 408, &connection.read_response(false).unwrap());
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
    let mut checker = ResponseChecker::of(&server, codes);
    checker.request("GET", 501, &Request::of("GET", "xyz", &token));
    drop(server);
    let server = launch.after_shell(FULL_DISK).start();
    let mut checker = ResponseChecker::of(&server, codes);
    let large = format!("{{\"large\":\"{}\"}}", "x".repeat(400_000));
    checker.request("PUT", 507, &Request::of("PUT", "xyz", &token).body(large));
}
