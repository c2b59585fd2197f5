//! prefd behind real proxies, with the configurations of docs/deploy. nginx connects to prefd
//! over a Unix socket, and Caddy over TCP. The tests change only file names, addresses and the
//! certificate.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{BINARY, target, wait_until};
use prefd_tests::http::Response;
use prefd_tests::machine;
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;
use serde_json::Value;

/// Host name in the configurations of docs/deploy.
const HOST: &str = "prefd.example.com";
const MIB: usize = 1024 * 1024;
/// curl's exit code for a response that ends early.
const CURL_PARTIAL: i32 = 18;
/// curl's exit code for a request that cannot be sent because the connection is closed.
const CURL_SEND_ERROR: i32 = 55;
/// Maximum number of attempts to get the response to a refused HTTP/1.1 upload through Caddy.
/// Caddy 2.6 sometimes closes the connection as soon as it has sent the response. If curl 7.88 is
/// still sending, it then discards the response, and fails with [`CURL_SEND_ERROR`].
const CADDY_UPLOAD_ATTEMPTS: usize = 5;
/// Maximum length of a token.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// A running proxy and the server behind it. Both are stopped on drop.
struct Proxy {
    child: Child,
    socket: PathBuf,
    certificate: PathBuf,
    server: Option<Server>,
    folder: tempfile::TempDir,
    /// Maximum number of attempts to get the response to a refused HTTP/1.1 upload.
    upload_attempts: usize,
}

/// Tested HTTP versions: curl's option, and the version that curl reports.
const VERSIONS: [(&str, &str); 2] = [("--http1.1", "1.1"), ("--http2", "2")];

/// Returns the text of a file in docs/deploy, with each first word replaced by the second one.
/// The file must contain every word.
fn deployed(name: &str, words: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy");
    let mut text = fs::read_to_string(path.join(name)).unwrap();
    for (word, replacement) in words {
        assert!(text.contains(word), "expected {word:?} in {name}");
        text = text.replace(word, replacement);
    }
    text
}

fn write_certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let names = vec![HOST.to_owned()];
    let certified = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    fs::write(&certificate, certified.cert.pem()).unwrap();
    fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

impl Proxy {
    fn nginx() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let upstream = format!("unix:{}", at("prefd.sock"));
        let server = Launch::new(BINARY, &folder.path().join("data"))
            .with(&["--listen", &upstream])
            .start();
        let (certificate, key) = write_certificate(folder.path());
        let listen = format!("listen unix:{} ssl http2;", at("proxy.sock"));
        let words = [
            ("127.0.0.1:8080", upstream.as_str()),
            ("listen [::]:443 ssl http2;", ""),
            ("listen 443 ssl http2;", &listen),
            (
                "/etc/ssl/prefd/certificate.pem",
                certificate.to_str().unwrap(),
            ),
            ("/etc/ssl/prefd/key.pem", key.to_str().unwrap()),
        ];
        fs::write(at("prefd.conf"), deployed("nginx.conf", &words)).unwrap();
        // This file replaces Debian's nginx.conf, which includes the files in conf.d. If nginx
        // runs as root, its workers must, too, because only the current user can access the
        // folder.
        let user = if rustix::process::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = kinds.map(|kind| format!("{kind}_temp_path {};\n", at(kind)));
        let main = format!(
            "{user} pid {}; error_log stderr; events {{}}\n\
             http {{ access_log off; {temporary} include {}; }}",
            at("nginx.pid"),
            at("prefd.conf"),
            temporary = temporary.concat(),
        );
        fs::write(at("nginx.conf"), main).unwrap();
        let command = ["nginx", "-e", "stderr", "-g", "daemon off;", "-c"];
        let child = start(&[&command[..], &[&at("nginx.conf")]].concat(), &folder);
        Self::new(child, certificate, server, folder)
    }

    fn caddy() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let server = Launch::new(BINARY, &folder.path().join("data")).start();
        let (certificate, key) = write_certificate(folder.path());
        let site = format!("{HOST} {{");
        let bound = format!("{site}\n\tbind unix/{}", at("proxy.sock"));
        let words = [
            ("127.0.0.1:8080", server.address.to_string()),
            (&site, bound),
            ("# tls ", "tls ".to_owned()),
            (
                "/etc/ssl/prefd/certificate.pem",
                certificate.to_str().unwrap().to_owned(),
            ),
            ("/etc/ssl/prefd/key.pem", key.to_str().unwrap().to_owned()),
        ];
        let words: Vec<_> = words.iter().map(|(w, o)| (*w, o.as_str())).collect();
        // HTTP/3 and the redirect from the HTTP port do not work on a Unix socket.
        let options = "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {\n\t\tprotocols h1 h2\n\t}\n}\n";
        let text = format!("{options}{}", deployed("Caddyfile", &words));
        fs::write(at("Caddyfile"), text).unwrap();
        let command = ["caddy", "run", "--adapter", "caddyfile", "--config"];
        let child = start(&[&command[..], &[&at("Caddyfile")]].concat(), &folder);
        let mut proxy = Self::new(child, certificate, server, folder);
        proxy.upload_attempts = CADDY_UPLOAD_ATTEMPTS;
        proxy
    }

    fn new(child: Child, certificate: PathBuf, server: Server, folder: tempfile::TempDir) -> Self {
        let mut proxy = Self {
            child,
            socket: folder.path().join("proxy.sock"),
            certificate,
            server: Some(server),
            folder,
            upload_attempts: 1,
        };
        wait_until("the proxy to listen", || {
            let ended = proxy.child.try_wait().unwrap();
            assert_eq!(ended, None, "{}", proxy.stderr());
            UnixStream::connect(&proxy.socket).is_ok()
        });
        proxy
    }

    /// Returns the proxy's standard error.
    fn stderr(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// Returns a curl command with the options of every request.
    fn curl(&self) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--disable", "--silent", "--show-error", "--max-time", "60"])
            .args(["--path-as-is", "--unix-socket"])
            .arg(&self.socket)
            .arg("--cacert")
            .arg(&self.certificate)
            .stdin(Stdio::null());
        curl
    }

    /// Sends a request with curl in the given HTTP version. Expects a complete response.
    fn request(
        &self,
        version: (&str, &str),
        path: &str,
        arguments: &[impl AsRef<OsStr>],
    ) -> Response {
        let outcome = self.try_request(version, path, arguments);
        let (response, is_complete) = outcome.unwrap_or_else(|error| panic!("{error}"));
        assert!(is_complete, "{response:?}");
        response
    }

    /// Sends a request with curl in the given HTTP version. Returns the response, and whether
    /// curl has received it completely. Returns curl's error if the proxy has closed the
    /// connection before curl has sent the request.
    fn try_request(
        &self,
        version: (&str, &str),
        path: &str,
        arguments: &[impl AsRef<OsStr>],
    ) -> Result<(Response, bool), String> {
        let at = |name: &str| self.folder.path().join(name);
        fs::write(at("body"), "").unwrap();
        let output = self
            .curl()
            .arg(version.0)
            .args(["--write-out", "%{http_version} %{http_code}"])
            .arg("--dump-header")
            .arg(at("head"))
            .arg("--output")
            .arg(at("body"))
            .args(arguments)
            .arg(format!("https://{HOST}{path}"))
            .output()
            .unwrap();
        let curl_stderr = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        if code == Some(CURL_SEND_ERROR) {
            return Err(format!("{curl_stderr}{}", self.stderr()));
        }
        let is_complete = code == Some(0);
        assert!(
            is_complete || code == Some(CURL_PARTIAL),
            "{curl_stderr}{}",
            self.stderr()
        );
        let written = String::from_utf8(output.stdout).unwrap();
        let (http_version, status) = written.split_once(' ').unwrap();
        assert_eq!(http_version, version.1);
        // The head of a 100 response may precede the head of the final response.
        let heads = fs::read_to_string(at("head")).unwrap();
        let head = heads.trim_end().rsplit("\r\n\r\n").next().unwrap();
        let headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let response = Response {
            status: status.parse().unwrap(),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect(),
            body: fs::read(at("body")).unwrap(),
        };
        Ok((response, is_complete))
    }

    /// Writes the bytes to a file for `--upload-file`. curl reads the file while it sends it.
    fn file(&self, bytes: &[u8]) -> String {
        let path = self.folder.path().join("upload");
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM also ends the workers. They would survive a SIGKILL of their parent.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

/// Starts a proxy that the kernel ends together with this thread.
fn start(command: &[&str], folder: &tempfile::TempDir) -> Child {
    let stderr = fs::File::create(folder.path().join("stderr")).unwrap();
    Command::new("setpriv")
        .args(["--pdeathsig", "TERM"])
        .args(command)
        .env("PATH", machine::program_path())
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .expect("setpriv starts")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// Returns a document with one value of the given length.
fn document(value_bytes: usize) -> Vec<u8> {
    let value = "x".repeat(value_bytes - 2);
    format!("{{\"large\":\"{value}\"}}").into_bytes()
}

/// Checks that requests through the proxy get the responses that prefd documents.
fn check_requests(proxy: &Proxy) {
    let token = token::of("alice", "xyz");
    let media_type = "Content-Type: application/json".to_owned();
    let authorized = [
        "--header".to_owned(),
        bearer(&token),
        "--header".to_owned(),
        media_type,
    ];
    let xyz = target("xyz");
    for version in VERSIONS {
        let send = |more: &[&str]| {
            let more = more.iter().map(|argument| (*argument).to_owned());
            let arguments: Vec<String> = authorized.iter().cloned().chain(more).collect();
            proxy.request(version, &xyz, &arguments)
        };
        for body in [b"{\"small\":1}".to_vec(), document(10 * MIB)] {
            let stored = send(&["--upload-file", &proxy.file(&body)]);
            assert_eq!(stored.status, 204, "{stored:?}");
            let read = send(&[]);
            assert_eq!(read.status, 200);
            assert!(
                read.body == body,
                "expected GET to return the stored document"
            );
            let tag = stored.header("etag").unwrap();
            assert_eq!(read.header("etag"), Some(tag));
            assert!(read.header("request-id").is_some());
            let head = send(&["--head"]);
            let length = head.header("content-length").unwrap();
            assert_eq!(
                (head.status, length),
                (200, body.len().to_string().as_str())
            );
            let unchanged = send(&["--header", &format!("If-None-Match: {tag}")]);
            assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
        }
        check_compression(&send);
        check_refused_uploads(proxy, version, &authorized);
        check_refusals(proxy, version, &send);
        // A token of almost the maximum length, and an encoded slash in the path.
        let mut claims = token::claims("alice", "a/b");
        let padding = (MAX_TOKEN_BYTES - token::hs256(&claims).len() - 32) / 4 * 3;
        claims["padding"] = "x".repeat(padding).into();
        let long = token::hs256(&claims);
        assert!((MAX_TOKEN_BYTES - 64..=MAX_TOKEN_BYTES).contains(&long.len()));
        let long = ["--header".to_owned(), bearer(&long)];
        let read = proxy.request(version, &target("a%2Fb"), &long);
        assert_eq!((read.status, read.text()), (200, "{}"));
        let live = proxy.request(version, "/livez", &[""; 0]);
        assert_eq!(live.status, 200);
    }
}

/// Checks that the proxy compresses a document, and that the ETag of the compressed response
/// works in preconditions.
fn check_compression(send: &impl Fn(&[&str]) -> Response) {
    let large = String::from_utf8(document(5_000)).unwrap();
    let put = ["--request", "PUT", "--data"];
    assert_eq!(send(&[&put[..], &[&large]].concat()).status, 204);
    let read = send(&["--compressed"]);
    assert_eq!((read.status, read.text()), (200, large.as_str()));
    assert_eq!(read.header("content-encoding"), Some("gzip"));
    let tag = read.header("etag").unwrap();
    let unchanged = send(&["--compressed", "--header", &format!("If-None-Match: {tag}")]);
    assert_eq!(unchanged.status, 304);
    let strong = tag.trim_start_matches("W/");
    let if_match = format!("If-Match: {tag}");
    let stored = send(&[&put[..], &["{\"next\":1}", "--header", &if_match]].concat());
    assert_eq!(stored.status, 204, "{if_match}: {stored:?}");
    let stale = send(
        &[
            &put[..],
            &["{}", "--header", &format!("If-Match: {strong}")],
        ]
        .concat(),
    );
    assert_eq!(stale.status, 412);
}

/// Checks an error response. The body is checked only if the response is complete.
fn check_error(response: &Response, is_complete: bool, status: u16, code: &str) {
    assert_eq!(response.status, status, "{response:?}");
    let media_type = response.header("content-type");
    assert_eq!(media_type, Some("application/vnd.api+json"));
    let id = response.header("request-id").unwrap();
    if is_complete {
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(body["errors"][0]["code"], code);
        assert_eq!(body["errors"][0]["id"], id);
    }
}

/// Checks that a response that refuses an upload reaches the client that is still sending.
fn check_refused_uploads(proxy: &Proxy, version: (&str, &str), authorized: &[String]) {
    // In the first case, prefd detects the oversized value after a tenth of the upload. In the
    // second case, `Content-Length` is above the limit.
    let large_value = (100 * MIB, "max-value-length-exceeded");
    let large_body = (110 * MIB, "max-body-length-exceeded");
    let framings = ["Expect:", "Transfer-Encoding: chunked"];
    for ((bytes, code), framing) in [
        (large_value, framings[0]),
        (large_value, framings[1]),
        (large_body, framings[0]),
    ] {
        let file = proxy.file(&document(bytes));
        let upload = ["--header", framing, "--upload-file", &file].map(str::to_owned);
        let arguments = [authorized, &upload].concat();
        let send = || proxy.try_request(version, &target("xyz"), &arguments);
        let mut outcome = send();
        if version == VERSIONS[0] {
            for _ in 1..proxy.upload_attempts {
                outcome = outcome.or_else(|_| send());
            }
        }
        let (refused, is_complete) = outcome.unwrap_or_else(|error| panic!("{error}"));
        // When the server refuses an HTTP/2 upload, curl 7.88 discards the part of the response
        // that it has not read yet, although the proxy has sent the complete response.
        assert!(is_complete || version == VERSIONS[1], "{refused:?}");
        check_error(&refused, is_complete, 413, code);
    }
}

/// Checks other error responses, and that the document is unchanged.
fn check_refusals(proxy: &Proxy, version: (&str, &str), send: &impl Fn(&[&str]) -> Response) {
    assert_eq!(send(&[]).text(), "{\"next\":1}");
    let refused = proxy.request(version, &target("xyz"), &[""; 0]);
    check_error(&refused, true, 401, "missing-token");
    let challenge = refused.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer realm=\"prefd\""));
    let refused = send(&["--request", "POST", "--data", "{}"]);
    check_error(&refused, true, 405, "method-not-allowed");
    assert!(refused.header("allow").is_some());
}

#[test]
fn requests_through_nginx_get_the_documented_responses() {
    if machine::has_programs(&["nginx", "curl", "setpriv"]) {
        check_requests(&Proxy::nginx());
    }
}

#[test]
fn requests_through_caddy_get_the_documented_responses() {
    if !machine::has_programs(&["caddy", "curl", "setpriv"]) {
        return;
    }
    let proxy = Proxy::caddy();
    check_requests(&proxy);
    // Newer versions of Caddy append `-gzip` to the ETag of a compressed response. prefd must
    // accept this form.
    let authorized = bearer(&token::of("alice", "xyz"));
    let send = |more: &[&str]| {
        let arguments = [&["--header", authorized.as_str()], more].concat();
        proxy.request(VERSIONS[1], &target("xyz"), &arguments)
    };
    let read = send(&["--head"]);
    let tag = read.header("etag").unwrap().trim_end_matches('"');
    let if_match = format!("If-Match: {tag}-gzip\"");
    let delete = ["--request", "DELETE", "--header", &if_match];
    assert_eq!(send(&delete).status, 204);
}

#[test]
fn nginx_sends_429_above_its_rate_and_503_without_prefd() {
    if !machine::has_programs(&["nginx", "curl", "setpriv"]) {
        return;
    }
    let mut proxy = Proxy::nginx();
    let many = proxy
        .curl()
        .args(["--http2", "--output", "/dev/null", "--write-out"])
        .arg("%{http_code}\n")
        .arg(format!("https://{HOST}/livez?[1-400]"))
        .output()
        .unwrap();
    let statuses = String::from_utf8(many.stdout).unwrap();
    let count = |status: &str| statuses.lines().filter(|line| *line == status).count();
    assert!(count("200") >= 100 && count("429") >= 1, "{statuses}");
    assert_eq!(count("200") + count("429"), 400, "{statuses}");
    proxy.server.take().unwrap().kill();
    let response = loop {
        let response = proxy.request(VERSIONS[1], "/livez", &[""; 0]);
        assert_eq!(
            response.header("content-type"),
            Some("application/vnd.api+json")
        );
        assert_eq!(response.header("retry-after"), Some("1"));
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(body["errors"][0]["status"], response.status.to_string());
        if response.status != 429 {
            break response;
        }
    };
    assert_eq!(response.status, 503);
}
