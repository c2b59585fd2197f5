//! The admin listener: access control, health checks, and the addresses that it can have.

mod common;

use std::io::ErrorKind;

use common::{BINARY, fresh, get, put, status, wait_until};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::{Client, Request, Response};
use prefd_tests::issuer::{Issuer, Signer};
use prefd_tests::server::{Launch, Server, prefd_with};
use prefd_tests::token;
use serde_json::{Value, json};

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];
const TOKEN: &str = "an-administrator-s-token";

/// A request with the `Host` header that a client on the same machine sends.
fn local(method: &str, path: &str) -> Request {
    Request::to("127.0.0.1:8081", method, path)
}

fn send_to_admin(server: &Server, request: &Request) -> Response {
    server.connect_admin().request(request)
}

#[test]
fn health_checks_need_no_token_on_either_listener() {
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
            ExpectedError::code("method-not-allowed").check(&refused, path);
        }
    }
    let response = server.connect().request(&Request::new("GET", "/livez/"));
    ExpectedError::code("not-found").check(&response, "/livez/ is not a route");
}

#[test]
fn readyz_is_503_while_the_server_stops() {
    let (server, _dir) = fresh(&[&ADMIN[..], &["--drain-timeout", "20s"]].concat());
    let mut admin = server.connect_admin();
    // While this request waits for its body, the server cannot end.
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
    let health: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(health, json!({"ready": false, "reasons": ["stopping"]}));
    assert_eq!(admin.request(&Request::new("GET", "/livez")).status, 200);
    client.send(b"{}").unwrap();
    assert_eq!(client.read_response(false).unwrap().status, 204);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn readyz_is_503_until_the_identity_provider_is_reached() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    issuer.refuse_connections(true);
    let (server, _dir) = fresh(&["--oidc-issuer", &issuer.url(), "--require-audience=false"]);
    let ready = || server.connect().request(&Request::new("GET", "/readyz"));
    let response = ready();
    assert_eq!(response.status, 503);
    assert!(response.text().contains("identity-provider-never-reached"));
    issuer.refuse_connections(false);
    wait_until("/readyz returns 200", || ready().status == 200);
}

#[test]
fn admin_listener_on_all_interfaces_requires_a_token() {
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
        // A token for the API is not the admin token.
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
    // With the admin token, any Host header and a request from a web page are accepted.
    let from_page = Request::new("GET", "/metrics")
        .header("Origin", "https://x")
        .bearer(TOKEN);
    assert_eq!(client.request(&from_page).status, 200);
    assert_eq!(client.request(&Request::new("GET", "/readyz")).status, 200);
}

#[test]
fn invalid_admin_token_file_prevents_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let start = |name: &str| {
        Launch::new(BINARY, &dir.path().join(name))
            .with(&ADMIN)
            .with(&["--admin-token-file", file.to_str().unwrap()])
            .try_start()
    };
    for (index, invalid) in ["", "short\n", "two lines of\na token that is long"]
        .into_iter()
        .enumerate()
    {
        std::fs::write(&file, invalid).unwrap();
        let ended = start(&format!("data-{index}")).expect_err(invalid);
        assert_eq!(ended.status.code(), Some(1), "{invalid:?}: {ended:?}");
        let error = format!("{} is not a valid admin token file", file.display());
        assert!(ended.err.contains(&error), "{invalid:?}: {}", ended.err);
    }
    std::fs::write(&file, TOKEN).unwrap();
    assert!(
        start("data").is_ok(),
        "the server must start with a valid admin token"
    );
}

/// A server with one document, for checks that every admin route refuses a request.
struct AdminRoutes<'a> {
    server: &'a Server,
}

impl<'a> AdminRoutes<'a> {
    fn new(server: &'a Server) -> Self {
        let token = token::of("x", "c");
        put(&mut server.connect(), "c", &token, "{\"kept\":1}");
        Self { server }
    }

    /// Changes a request to each route with `edit`, and expects the given status. No document
    /// may change, and no backup may be taken.
    fn refuse(&self, case: &str, status: u16, edit: impl Fn(Request) -> Request) {
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
            let response = send_to_admin(self.server, &edit(request));
            assert_eq!(response.status, status, "{case}: {method} {path}");
        }
        for (user, document) in [("x", "{\"kept\":1}"), ("y", "{}")] {
            let found = get(&mut self.server.connect(), "c", &token::of(user, "c"));
            assert_eq!(found, document, "{case}");
        }
        assert!(!self.server.has_logged("backup completed"), "{case}");
    }
}

#[test]
fn every_route_refuses_requests_without_the_admin_token() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let server = Launch::new(BINARY, &dir.path().join("data"))
        .with(&ADMIN)
        .with(&["--admin-token-file", file.to_str().unwrap()])
        .start();
    let routes = AdminRoutes::new(&server);
    let api_token = token::of("x", "c");
    routes.refuse("no token", 401, |request| request);
    routes.refuse("another token", 401, |request| request.bearer("another"));
    routes.refuse("a token for the API", 401, |request| {
        request.bearer(&api_token)
    });
    routes.refuse("an Origin header", 401, |request| {
        request.header("Origin", "https://x")
    });
    routes.refuse("another authentication scheme", 401, |request| {
        request.header("Authorization", &format!("Basic {TOKEN}"))
    });
}

#[test]
fn admin_listener_works_on_a_unix_socket_and_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let exit_code = |arguments: &[&str], environment: &[(&str, &str)]| {
        prefd_with(BINARY, arguments, environment).status.code()
    };
    let socket = format!("unix:{}", path("admin.sock"));
    let server = Launch::new(BINARY, &dir.path().join("one"))
        .with(&["--admin-listen", &socket])
        .start();
    assert_eq!(
        exit_code(&["healthcheck", "--admin", &socket], &[]),
        Some(0)
    );
    let backup = ["backup", "--admin", &socket, "--to", &path("one.tar")];
    assert_eq!(exit_code(&backup, &[]), Some(0));
    drop(server);
    assert_eq!(
        exit_code(&["healthcheck", "--admin", &socket], &[]),
        Some(1)
    );

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
    assert_eq!(exit_code(&healthcheck, &trusting), Some(0));
    assert_eq!(
        exit_code(&healthcheck, &[]),
        Some(1),
        "untrusted certificate"
    );
    let backup = ["backup", "--admin", &url, "--to", &path("two.tar")];
    assert_eq!(exit_code(&backup, &trusting), Some(1), "no admin token");
    let backup = [&backup[..], &["--admin-token-file", &token]].concat();
    assert_eq!(exit_code(&backup, &trusting), Some(0));
    let without_tls = format!("http://localhost:{}", server.admin_address().port());
    let healthcheck = ["healthcheck", "--admin", &without_tls];
    assert_eq!(exit_code(&healthcheck, &[]), Some(1));
}

/// The page of any web site can make a browser send requests to 127.0.0.1. With DNS
/// rebinding, these requests have a `Host` header of the site's choice.
#[test]
fn request_from_a_web_page_is_refused() {
    let (server, _dir) = fresh(&ADMIN);
    let routes = AdminRoutes::new(&server);
    routes.refuse("an Origin header", 403, |request| {
        request.header("Origin", "https://evil.example")
    });
    routes.refuse("a Sec-Fetch-Site header", 403, |request| {
        request.header("Sec-Fetch-Site", "cross-site")
    });
    for host in ["evil.example", "127.0.0.1.evil.example:8081"] {
        routes.refuse(host, 403, |request| request.at_host(host));
    }
    for host in ["127.0.0.1:8081", "localhost", "[::1]:8081"] {
        assert_eq!(
            send_to_admin(&server, &Request::to(host, "GET", "/metrics")).status,
            200,
            "{host}"
        );
    }
    let document = send_to_admin(&server, &local("GET", "/user/2025-1/preferences/xyz"));
    ExpectedError::code("not-found").check(&document, "documents are not on the admin listener");
    let metrics = server.connect().request(&Request::new("GET", "/metrics"));
    ExpectedError::code("not-found").check(&metrics, "metrics are not on the API listener");
}

#[test]
fn server_starts_without_admin_if_the_default_port_is_in_use() {
    let in_use = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = in_use.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let ended = Launch::new(BINARY, dir.path())
        .with(&["--admin-listen", &address])
        .run();
    assert_eq!(
        ended.status.code(),
        Some(1),
        "expected exit code 1 if the --admin-listen address is in use: {ended:?}"
    );
    // If another process already listens on the default port, the test works without its own
    // listener.
    let _default = match std::net::TcpListener::bind("127.0.0.1:8081") {
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        listener => Some(listener.unwrap()),
    };
    let server = Launch::new(BINARY, dir.path()).with_default_admin().start();
    server.wait_for_log("admin listener not started");
    assert_eq!(status(&server, &token::of("alice", "xyz")), 200);
    drop(server);
    // With an admin token file, the start fails: commands would send the admin token to the
    // process that listens on the default port.
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
fn no_response_of_the_admin_listener_may_be_stored_in_a_cache() {
    let (server, _dir) = fresh(&ADMIN);
    let line = json!({"user": "bob", "client": "c", "document": {}}).to_string();
    for (request, status) in [
        (local("POST", "/documents").body(&line), 200),
        (local("GET", "/documents"), 200),
        (local("GET", "/users/bob/documents"), 200),
        (local("GET", "/metrics"), 200),
        (local("GET", "/backup"), 200),
        (local("GET", "/livez"), 200),
        (local("DELETE", "/users/bob"), 200),
        (local("POST", "/documents").body("{"), 400),
        (local("PUT", "/documents"), 405),
        (local("GET", "/nowhere"), 404),
        (Request::to("elsewhere.example", "GET", "/metrics"), 403),
    ] {
        let mut connection = server.connect_admin();
        connection.send(&request.bytes()).unwrap();
        connection.end_sending();
        let received = connection.read_to_end().unwrap();
        let received = String::from_utf8_lossy(&received);
        let (head, _) = received.split_once("\r\n\r\n").unwrap();
        let start = format!("HTTP/1.1 {status} ");
        assert!(head.starts_with(&start), "{request:?}: {head}");
        let line = "\r\ncache-control: no-store\r\n";
        assert!(head.contains(line), "{request:?}: {head}");
    }
}

#[test]
fn tokenless_admin_request_needs_a_loopback_host_header() {
    let (server, _dir) = fresh(&ADMIN);
    for (code, head) in [
        ("insufficient-scope", "GET /metrics HTTP/1.0\r\n"),
        ("insufficient-scope", "GET /metrics HTTP/1.1\r\nHost:\r\n"),
        (
            "insufficient-scope",
            "GET /metrics HTTP/1.1\r\nHost: localhost.example\r\n",
        ),
        // The host of the request target takes precedence over the Host header.
        (
            "insufficient-scope",
            "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n",
        ),
        ("invalid-request", "GET /metrics HTTP/1.1\r\n"),
        (
            "invalid-request",
            "GET /metrics HTTP/1.1\r\nHost: a{b.example\r\n",
        ),
        (
            "invalid-request",
            "GET /metrics HTTP/1.1\r\nHost: \u{e9}.example\r\n",
        ),
        (
            "invalid-request",
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n",
        ),
        (
            "invalid-request",
            "GET /metrics HTTP/1.1\r\nHost: localhost@evil.example\r\n",
        ),
    ] {
        let mut client = server.connect_admin();
        client.send(format!("{head}\r\n").as_bytes()).unwrap();
        let response = client.read_response(false).unwrap();
        let expected = ExpectedError::code(code).source(json!({"header": "Host"}));
        expected.check(&response, head);
    }
    for host in ["localhost", "LOCALHOST:1", "[::1]:8081", "127.9.9.9"] {
        let request = Request::to(host, "GET", "/metrics");
        assert_eq!(send_to_admin(&server, &request).status, 200, "{host}");
    }
}

/// Regression test. The admin listener used the first of two Authorization headers.
#[test]
fn two_authorization_headers_are_400_on_every_admin_route() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    let with_token = Launch::new(BINARY, &dir.path().join("data"))
        .with(&ADMIN)
        .with(&["--admin-token-file", file.to_str().unwrap()])
        .start();
    let (without_token, _dir) = fresh(&ADMIN);
    for server in [&with_token, &without_token] {
        let routes = AdminRoutes::new(server);
        for (first, second) in [(TOKEN, "another"), ("another", TOKEN), (TOKEN, TOKEN)] {
            routes.refuse("two Authorization headers", 400, |request| {
                request.bearer(first).bearer(second)
            });
        }
    }
    let request = local("GET", "/metrics").bearer(TOKEN).bearer(TOKEN);
    let response = send_to_admin(&with_token, &request);
    ExpectedError::code("invalid-request")
        .source(json!({"header": "Authorization"}))
        .check(&response, "two Authorization headers");
}

/// Regression test. An invalid user name was 501 for DELETE, and interrupted the response to GET.
#[test]
fn invalid_user_name_in_an_admin_path_is_400() {
    let (server, _dir) = fresh(&ADMIN);
    let invalid = [
        "%00", "a%0Ab", "%7f", "%C2%80", "%", "%2", "%zz", "%ff", "%C3",
    ];
    let too_long = ["x".repeat(256), "%C3%A9".repeat(128)];
    for name in invalid
        .into_iter()
        .chain(too_long.iter().map(String::as_str))
    {
        for (method, path) in [
            ("DELETE", format!("/users/{name}")),
            ("GET", format!("/users/{name}/documents")),
        ] {
            let response = send_to_admin(&server, &local(method, &path));
            let context = format!("{method} {path}");
            ExpectedError::code("invalid-request").check(&response, &context);
            assert!(response.text().contains("The user ID"), "{context}");
        }
    }
    for path in [
        "/users",
        "/users/",
        "/users//",
        "/users//documents",
        "/users/x/",
        "/users/x/y",
        "/users/x//documents",
        "/users/x/documents/",
        "/users/%00/y",
    ] {
        for method in ["DELETE", "GET"] {
            let response = send_to_admin(&server, &local(method, path));
            ExpectedError::code("not-found").check(&response, &format!("{method} {path}"));
        }
    }
}

#[test]
fn user_name_in_an_admin_path_is_decoded_exactly_once() {
    let (server, _dir) = fresh(&ADMIN);
    let longest = "x".repeat(255);
    for (encoded, user) in [
        ("a%2Fb", "a/b"),
        ("a%2525", "a%25"),
        ("a+b", "a+b"),
        ("..", ".."),
        ("caf%C3%A9", "café"),
        (&longest, &longest),
    ] {
        let token = token::of(user, "c");
        put(&mut server.connect(), "c", &token, "{\"kept\":1}");
        let export = local("GET", &format!("/users/{encoded}/documents")).header("TE", "trailers");
        let mut client = server.connect_admin();
        client
            .send(&export.header("Connection", "close").bytes())
            .unwrap();
        let exported = String::from_utf8(client.read_to_end().unwrap()).unwrap();
        assert!(
            exported.starts_with("HTTP/1.1 200 "),
            "{encoded}: {exported}"
        );
        let user = json!(user).to_string();
        assert!(exported.contains(&user), "{encoded}: {exported}");
        let erased = send_to_admin(&server, &local("DELETE", &format!("/users/{encoded}")));
        assert_eq!(erased.status, 200, "{encoded}");
        assert_eq!(get(&mut server.connect(), "c", &token), "{}", "{encoded}");
    }
}

/// Regression test. A compressed import was reported as a line that is not valid JSON.
#[test]
fn import_with_a_content_encoding_is_415() {
    let (server, _dir) = fresh(&ADMIN);
    let line = "{\"user\":\"y\",\"client\":\"c\",\"document\":{\"put\":1}}\n";
    let import = |encoding| {
        let request = local("POST", "/documents").header("Content-Encoding", encoding);
        send_to_admin(&server, &request.body(line))
    };
    ExpectedError::code("unsupported-media-type")
        .source(json!({"header": "Content-Encoding"}))
        .check(&import("gzip"), "gzip");
    let token = token::of("y", "c");
    assert_eq!(get(&mut server.connect(), "c", &token), "{}");
    assert_eq!(import("identity").status, 200);
    assert_eq!(get(&mut server.connect(), "c", &token), "{\"put\":1}");
}
