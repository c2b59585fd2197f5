//! The operator's listener: who may ask, and health.

mod common;

use std::io::ErrorKind;

use common::{BINARY, fresh, get, put, status, wait_until};
use prefd_tests::api_error::Expected;
use prefd_tests::http::{Client, Request, Response};
use prefd_tests::issuer::{Issuer, Signer};
use prefd_tests::server::{Launch, Server, prefd_with};
use prefd_tests::token;
use serde_json::{Value, json};

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];
const TOKEN: &str = "an-administrator-s-token";

fn local(method: &str, path: &str) -> Request {
    // With the host that a client on this machine names.
    Request::to("127.0.0.1:8081", method, path)
}

fn ask(server: &Server, request: &Request) -> Response {
    server.connect_admin().request(request)
}

#[test]
fn health_is_told_to_anybody_on_both_listeners() {
    let (server, _dir) = fresh(&ADMIN);
    for path in ["/livez", "/readyz"] {
        for mut client in [server.connect(), server.connect_admin()] {
            let response = client.request(&Request::new("GET", path));
            assert_eq!((response.status, response.text()), (200, "ok\n"), "{path}");
            assert_eq!(
                response.header("content-type"),
                Some("text/plain; charset=utf-8")
            );
            assert_eq!(response.header("cache-control"), Some("no-store"));
            assert!(response.header("request-id").is_some());
            let head = client.request(&Request::new("HEAD", path));
            assert_eq!(
                (head.status, head.header("content-length")),
                (200, Some("3"))
            );
            let refused = client.request(&Request::new("POST", path));
            Expected::code("method-not-allowed").check(&refused, path);
        }
    }
    let response = server.connect().request(&Request::new("GET", "/livez/"));
    Expected::code("not-found").check(&response, "no such page");
}

#[test]
fn it_is_not_ready_while_it_stops() {
    let (server, _dir) = fresh(&[&ADMIN[..], &["--drain-timeout", "20s"]].concat());
    let mut admin = server.connect_admin();
    // A request that is in flight.
    let token = token::of("alice", "xyz");
    let mut client = server.connect();
    let put = Request::of("PUT", "xyz", &token)
        .header("Expect", "100-continue")
        .body("{}");
    client.send(&put.head()).unwrap();
    assert_eq!(client.read_response(false).unwrap().status, 100);
    server.terminate();
    server.wait_for_log("shutdown started");
    let response = admin.request(&Request::new("GET", "/readyz"));
    assert_eq!(response.status, 503);
    let told: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(told, json!({"ready": false, "reasons": ["stopping"]}));
    assert_eq!(admin.request(&Request::new("GET", "/livez")).status, 200);
    client.send(b"{}").unwrap();
    assert_eq!(client.read_response(false).unwrap().status, 204);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn it_is_not_ready_before_its_providers_were_reached() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    issuer.shut(true);
    let (server, _dir) = fresh(&["--oidc-issuer", &issuer.url(), "--require-audience=false"]);
    let ready = || server.connect().request(&Request::new("GET", "/readyz"));
    let response = ready();
    assert_eq!(response.status, 503);
    assert!(response.text().contains("identity-provider-never-reached"));
    issuer.shut(false);
    wait_until("it is ready", || ready().status == 200);
}

#[test]
fn off_this_machine_it_takes_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let launch = Launch::new(BINARY, &dir.path().join("data"));
    let ended = launch.clone().with(&["--admin-listen", "0.0.0.0:0"]).run();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(ended.err.contains("--admin-token-file"), "{}", ended.err);
    let with_token = ["--admin-token-file", file.to_str().unwrap()];
    let server = launch
        .clone()
        .with(&["--admin-listen", "0.0.0.0:0"])
        .with(&with_token)
        .start();
    server.wait_for_log("unencrypted");
    let port = server.admin_address().port();
    let mut client = Client::connect(([127, 0, 0, 1], port).into());
    let metrics = || local("GET", "/metrics");
    let challenge = "Bearer realm=\"prefd admin\"";
    for (request, code) in [
        (metrics(), "missing-token"),
        (
            metrics().bearer("another-token-of-this-length"),
            "invalid-token",
        ),
        (metrics().bearer(&TOKEN[1..]), "invalid-token"),
        (metrics().bearer(""), "invalid-token"),
        // A user's token is none of the administrator's.
        (
            metrics().bearer(&token::of("alice", "xyz")),
            "invalid-token",
        ),
        (local("GET", "/other"), "missing-token"),
    ] {
        let response = client.request(&request);
        assert_eq!(response.status, 401, "{request:?}");
        assert_eq!(response.header("www-authenticate"), Some(challenge));
        assert!(response.text().contains(code), "{response:?}");
    }
    let response = client.request(&metrics().bearer(TOKEN));
    assert_eq!(response.status, 200);
    // By its token a page is allowed as well, and a name of the machine.
    let named = Request::new("GET", "/metrics")
        .header("Origin", "https://x")
        .bearer(TOKEN);
    assert_eq!(client.request(&named).status, 200);
    assert_eq!(client.request(&Request::new("GET", "/readyz")).status, 200);
}

#[test]
fn a_token_that_can_be_guessed_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let start = |name: &str| {
        Launch::new(BINARY, &dir.path().join(name))
            .with(&ADMIN)
            .with(&["--admin-token-file", file.to_str().unwrap()])
            .try_start()
    };
    for (index, unfit) in ["", "short\n", "two lines of\na token that is long"]
        .into_iter()
        .enumerate()
    {
        std::fs::write(&file, unfit).unwrap();
        let ended = start(&format!("data-{index}")).expect_err(unfit);
        assert_eq!(ended.status.code(), Some(1), "{unfit:?}: {ended:?}");
        let told = format!("{} is not a valid admin token file", file.display());
        assert!(ended.err.contains(&told), "{unfit:?}: {}", ended.err);
    }
    std::fs::write(&file, TOKEN).unwrap();
    assert!(start("data").is_ok(), "one that is fit");
}

/// A document, and everything that is done with documents over this listener.
struct Desk<'a> {
    server: &'a Server,
}

impl<'a> Desk<'a> {
    fn of(server: &'a Server) -> Self {
        let token = token::of("x", "c");
        put(&mut server.connect(), "c", &token, "{\"kept\":1}");
        Self { server }
    }

    /// Whoever asks so has this status of every route, and nothing is done.
    fn refuses(&self, caller: &str, status: u16, send: impl Fn(Request) -> Request) {
        let line = "{\"user\":\"y\",\"client\":\"c\",\"document\":{\"put\":1}}\n";
        for (method, path) in [
            ("GET", "/metrics"),
            ("HEAD", "/metrics"),
            ("GET", "/backup"),
            ("GET", "/documents"),
            ("POST", "/documents"),
            ("GET", "/users/x/documents"),
            ("DELETE", "/users/x"),
            ("GET", "/other"),
        ] {
            let request = local(method, path);
            let request = match method {
                "POST" => request.body(line),
                _ => request,
            };
            let response = ask(self.server, &send(request));
            assert_eq!(response.status, status, "{caller}: {method} {path}");
        }
        for (user, document) in [("x", "{\"kept\":1}"), ("y", "{}")] {
            let found = get(&mut self.server.connect(), "c", &token::of(user, "c"));
            assert_eq!(found, document, "{caller}");
        }
        assert!(!self.server.has_logged("backup completed"), "{caller}");
    }
}

#[test]
fn without_the_token_nothing_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let server = Launch::new(BINARY, &dir.path().join("data"))
        .with(&ADMIN)
        .with(&["--admin-token-file", file.to_str().unwrap()])
        .start();
    let desk = Desk::of(&server);
    let users = token::of("x", "c");
    desk.refuses("no token", 401, |request| request);
    desk.refuses("another token", 401, |request| request.bearer("another"));
    desk.refuses("a user's", 401, |request| request.bearer(&users));
    desk.refuses("a page", 401, |request| {
        request.header("Origin", "https://x")
    });
    desk.refuses("another scheme", 401, |request| {
        request.header("Authorization", &format!("Basic {TOKEN}"))
    });
}

#[test]
fn it_can_be_at_a_socket_or_behind_tls() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let asked = |arguments: &[&str], environment: &[(&str, &str)]| {
        prefd_with(BINARY, arguments, environment).status.code()
    };
    let socket = format!("unix:{}", path("admin.sock"));
    let server = Launch::new(BINARY, &dir.path().join("one"))
        .with(&["--admin-listen", &socket])
        .start();
    assert_eq!(asked(&["healthcheck", "--admin", &socket], &[]), Some(0));
    let backup = ["backup", "--admin", &socket, "--to", &path("one.tar")];
    assert_eq!(asked(&backup, &[]), Some(0));
    drop(server);
    assert_eq!(asked(&["healthcheck", "--admin", &socket], &[]), Some(1));

    let names = vec!["localhost".to_owned()];
    let identity = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key, token) = (path("certificate.pem"), path("key.pem"), path("token"));
    std::fs::write(&certificate, identity.cert.pem()).unwrap();
    std::fs::write(&key, identity.signing_key.serialize_pem()).unwrap();
    std::fs::write(&token, TOKEN).unwrap();
    let server = Launch::new(BINARY, &dir.path().join("two"))
        .with(&["--tls-cert-file", &certificate, "--tls-key-file", &key])
        .with(&["--admin-listen", "0.0.0.0:0", "--admin-token-file", &token])
        .start();
    let url = format!("https://localhost:{}", server.admin_address().port());
    assert!(!server.has_logged("unencrypted"));
    let trusting = [("SSL_CERT_FILE", &*certificate)];
    let healthcheck = ["healthcheck", "--admin", &url];
    assert_eq!(asked(&healthcheck, &trusting), Some(0));
    assert_eq!(asked(&healthcheck, &[]), Some(1), "whom nobody trusts");
    let backup = ["backup", "--admin", &url, "--to", &path("two.tar")];
    assert_eq!(asked(&backup, &trusting), Some(1), "without the token");
    let backup = [&backup[..], &["--admin-token-file", &token]].concat();
    assert_eq!(asked(&backup, &trusting), Some(0));
    let in_the_clear = format!("http://localhost:{}", server.admin_address().port());
    let healthcheck = ["healthcheck", "--admin", &in_the_clear];
    assert_eq!(asked(&healthcheck, &[]), Some(1));
}

/// Any site's page can send requests to this machine, under a name that its owner chose.
#[test]
fn a_page_in_a_browser_may_not_ask() {
    let (server, _dir) = fresh(&ADMIN);
    let desk = Desk::of(&server);
    desk.refuses("of an origin", 403, |request| {
        request.header("Origin", "https://evil.example")
    });
    desk.refuses("of a site", 403, |request| {
        request.header("Sec-Fetch-Site", "cross-site")
    });
    for host in ["evil.example", "127.0.0.1.evil.example:8081"] {
        desk.refuses(host, 403, |request| request.at_host(host));
    }
    for host in ["127.0.0.1:8081", "localhost", "[::1]:8081"] {
        assert_eq!(
            ask(&server, &Request::to(host, "GET", "/metrics")).status,
            200,
            "{host}"
        );
    }
    let not_there = ask(&server, &local("GET", "/user/2025-1/preferences/xyz"));
    Expected::code("not-found").check(&not_there, "no document is there");
    let metrics = server.connect().request(&Request::new("GET", "/metrics"));
    Expected::code("not-found").check(&metrics, "and here are no metrics");
}

#[test]
fn where_the_usual_port_is_taken_it_goes_on_without() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let ended = Launch::new(BINARY, dir.path())
        .with(&["--admin-listen", &address])
        .run();
    assert_eq!(
        ended.status.code(),
        Some(1),
        "one that was asked for: {ended:?}"
    );
    // Whoever else has it does as well.
    let _usual = match std::net::TcpListener::bind("127.0.0.1:8081") {
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        usual => Some(usual.unwrap()),
    };
    let server = Launch::new(BINARY, dir.path()).with_default_admin().start();
    server.wait_for_log("admin listener not started");
    assert_eq!(status(&server, &token::of("alice", "xyz")), 200);
    drop(server);
    // Commands would send the token to whoever else that is.
    let secret = dir.path().join("admin-token");
    std::fs::write(&secret, TOKEN).unwrap();
    let ended = Launch::new(BINARY, &dir.path().join("data"))
        .with_default_admin()
        .with(&["--admin-token-file", secret.to_str().unwrap()])
        .run();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.err.contains("127.0.0.1:8081"), "{}", ended.err);
    let (server, _dir) = fresh(&["--admin-listen", "off"]);
    assert_eq!(status(&server, &token::of("alice", "xyz")), 200);
    assert!(!server.has_logged("admin listener"));
}

#[test]
fn without_a_token_it_must_be_asked_under_a_name_of_this_machine() {
    let (server, _dir) = fresh(&ADMIN);
    for head in [
        "GET /metrics HTTP/1.0\r\n",
        "GET /metrics HTTP/1.1\r\n",
        "GET /metrics HTTP/1.1\r\nHost:\r\n",
        "GET /metrics HTTP/1.1\r\nHost: a{b.example\r\n",
        "GET /metrics HTTP/1.1\r\nHost: \u{e9}.example\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost.example\r\n",
        "GET /metrics HTTP/1.1\r\nHost: localhost@evil.example\r\n",
    ] {
        let mut client = server.connect_admin();
        client.send(format!("{head}\r\n").as_bytes()).unwrap();
        let response = client.read_response(false).unwrap();
        let expected = Expected::code("insufficient-scope").source(json!({"header": "Host"}));
        expected.check(&response, head);
    }
    for host in ["localhost", "LOCALHOST:1", "[::1]:8081", "127.9.9.9"] {
        let request = Request::to(host, "GET", "/metrics");
        assert_eq!(ask(&server, &request).status, 200, "{host}");
    }
}
