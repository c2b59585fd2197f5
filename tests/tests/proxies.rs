//! prefd behind real proxies, with the configurations of docs/deploy: nginx, which reaches
//! it over a socket in the file system, and Caddy, over a port. Only names of files and
//! addresses are put in place of others.

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

/// The name in docs/deploy.
const HOST: &str = "prefd.example.com";
const MIB: usize = 1024 * 1024;
/// curl's exit code where the rest of an answer did not come.
const CURL_PARTIAL: i32 = 18;
/// As long as a token may be, in bytes.
const LONGEST_TOKEN: usize = 8 * 1024;

/// A proxy, and the server behind it. Ended when dropped.
struct Proxy {
    child: Child,
    socket: PathBuf,
    certificate: PathBuf,
    server: Option<Server>,
    folder: tempfile::TempDir,
}

/// The versions of HTTP that a client may speak, as curl has them.
const VERSIONS: [(&str, &str); 2] = [("--http1.1", "1.1"), ("--http2", "2")];

/// A file of docs/deploy, with these words in place of others, each of which it has.
fn deployed(name: &str, words: &[(&str, &str)]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy");
    let mut text = fs::read_to_string(path.join(name)).unwrap();
    for (word, other) in words {
        assert!(text.contains(word), "{name} has no {word:?}");
        text = text.replace(word, other);
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
        // What Debian's nginx.conf is to a file of conf.d. The folder is this user's alone,
        // and root's workers would be another's.
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
        // HTTP/3 and the port of HTTP have no place on a socket.
        let options = "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers {\n\t\tprotocols h1 h2\n\t}\n}\n";
        let text = format!("{options}{}", deployed("Caddyfile", &words));
        fs::write(at("Caddyfile"), text).unwrap();
        let command = ["caddy", "run", "--adapter", "caddyfile", "--config"];
        let child = start(&[&command[..], &[&at("Caddyfile")]].concat(), &folder);
        Self::new(child, certificate, server, folder)
    }

    fn new(child: Child, certificate: PathBuf, server: Server, folder: tempfile::TempDir) -> Self {
        let mut proxy = Self {
            child,
            socket: folder.path().join("proxy.sock"),
            certificate,
            server: Some(server),
            folder,
        };
        wait_until("it listens", || {
            let ended = proxy.child.try_wait().unwrap();
            assert_eq!(ended, None, "{}", proxy.said());
            UnixStream::connect(&proxy.socket).is_ok()
        });
        proxy
    }

    /// What it has said on standard error.
    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// curl's arguments for any request.
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

    /// A request by curl, of this version of HTTP.
    fn ask(&self, version: (&str, &str), path: &str, arguments: &[impl AsRef<OsStr>]) -> Response {
        let (response, is_whole) = self.try_ask(version, path, arguments);
        assert!(is_whole, "{response:?}");
        response
    }

    /// The same, and whether curl has all of the answer.
    fn try_ask(
        &self,
        version: (&str, &str),
        path: &str,
        arguments: &[impl AsRef<OsStr>],
    ) -> (Response, bool) {
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
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        let is_whole = code == Some(0);
        assert!(
            is_whole || code == Some(CURL_PARTIAL),
            "{said}{}",
            self.said()
        );
        let written = String::from_utf8(output.stdout).unwrap();
        let (spoken, status) = written.split_once(' ').unwrap();
        assert_eq!(spoken, version.1);
        // Before the answer's head there may be that of a 100.
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
        (response, is_whole)
    }

    /// A file with these bytes, for `--upload-file`, which puts it as it reads it.
    fn file(&self, bytes: &[u8]) -> String {
        let path = self.folder.path().join("upload");
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Not SIGKILL, which would leave the workers.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

/// Starts a proxy that ends with this thread.
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

fn document(value_bytes: usize) -> Vec<u8> {
    let value = "x".repeat(value_bytes - 2);
    format!("{{\"large\":\"{value}\"}}").into_bytes()
}

/// Everything that a client is promised, through this proxy.
fn passes_everything(proxy: &Proxy) {
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
        let ask = |more: &[&str]| {
            let more = more.iter().map(|argument| (*argument).to_owned());
            let arguments: Vec<String> = authorized.iter().cloned().chain(more).collect();
            proxy.ask(version, &xyz, &arguments)
        };
        for body in [b"{\"small\":1}".to_vec(), document(10 * MIB)] {
            let stored = ask(&["--upload-file", &proxy.file(&body)]);
            assert_eq!(stored.status, 204, "{stored:?}");
            let read = ask(&[]);
            assert_eq!(read.status, 200);
            assert!(read.body == body, "it came back changed");
            let tag = stored.header("etag").unwrap();
            assert_eq!(read.header("etag"), Some(tag));
            assert!(read.header("request-id").is_some());
            let head = ask(&["--head"]);
            let length = head.header("content-length").unwrap();
            assert_eq!(
                (head.status, length),
                (200, body.len().to_string().as_str())
            );
            let unchanged = ask(&["--header", &format!("If-None-Match: {tag}")]);
            assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
        }
        compresses(&ask);
        refuses_uploads(proxy, version, &authorized);
        refuses(proxy, version, &ask);
        // As long as a token may be, and an encoded slash.
        let mut claims = token::claims("alice", "a/b");
        let padding = (LONGEST_TOKEN - token::hs256(&claims).len() - 32) / 4 * 3;
        claims["padding"] = "x".repeat(padding).into();
        let long = token::hs256(&claims);
        assert!((LONGEST_TOKEN - 64..=LONGEST_TOKEN).contains(&long.len()));
        let long = ["--header".to_owned(), bearer(&long)];
        let read = proxy.ask(version, &target("a%2Fb"), &long);
        assert_eq!((read.status, read.text()), (200, "{}"));
        let live = proxy.ask(version, "/livez", &[""; 0]);
        assert_eq!(live.status, 200);
    }
}

/// A document that was compressed on its way, and whose tag still counts.
fn compresses(ask: &impl Fn(&[&str]) -> Response) {
    let large = String::from_utf8(document(5_000)).unwrap();
    let put = ["--request", "PUT", "--data"];
    assert_eq!(ask(&[&put[..], &[&large]].concat()).status, 204);
    let read = ask(&["--compressed"]);
    assert_eq!((read.status, read.text()), (200, large.as_str()));
    assert_eq!(read.header("content-encoding"), Some("gzip"));
    let tag = read.header("etag").unwrap();
    let unchanged = ask(&["--compressed", "--header", &format!("If-None-Match: {tag}")]);
    assert_eq!(unchanged.status, 304);
    let strong = tag.trim_start_matches("W/");
    let if_match = format!("If-Match: {tag}");
    let stored = ask(&[&put[..], &["{\"next\":1}", "--header", &if_match]].concat());
    assert_eq!(stored.status, 204, "{if_match}: {stored:?}");
    let stale = ask(&[
        &put[..],
        &["{}", "--header", &format!("If-Match: {strong}")],
    ]
    .concat());
    assert_eq!(stale.status, 412);
}

/// An error, whole: its body may be missing where `is_whole` is not so.
fn check(response: &Response, is_whole: bool, status: u16, code: &str) {
    assert_eq!(response.status, status, "{response:?}");
    let media_type = response.header("content-type");
    assert_eq!(media_type, Some("application/vnd.api+json"));
    let id = response.header("request-id").unwrap();
    if is_whole {
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(body["errors"][0]["code"], code);
        assert_eq!(body["errors"][0]["id"], id);
    }
}

/// Uploads that are refused while they are sent: the answer reaches the client.
fn refuses_uploads(proxy: &Proxy, version: (&str, &str), authorized: &[String]) {
    // The one value is too large, which shows once a tenth has come; or the length says
    // beforehand that there would be too much.
    let large = (100 * MIB, "max-value-length-exceeded");
    let too_large = (110 * MIB, "max-body-length-exceeded");
    let framings = ["Expect:", "Transfer-Encoding: chunked"];
    for ((bytes, code), framing) in [
        (large, framings[0]),
        (large, framings[1]),
        (too_large, framings[0]),
    ] {
        let file = proxy.file(&document(bytes));
        let upload = ["--header", framing, "--upload-file", &file].map(str::to_owned);
        let arguments = [authorized, &upload].concat();
        let (refused, is_whole) = proxy.try_ask(version, &target("xyz"), &arguments);
        // Of an upload by HTTP/2 curl 7.88 drops what it has not read yet of the answer
        // when it sees that it is refused, although all of it was sent.
        assert!(is_whole || version == VERSIONS[1], "{refused:?}");
        check(&refused, is_whole, 413, code);
    }
}

/// Other refusals, and that nothing has changed.
fn refuses(proxy: &Proxy, version: (&str, &str), ask: &impl Fn(&[&str]) -> Response) {
    assert_eq!(ask(&[]).text(), "{\"next\":1}");
    let refused = proxy.ask(version, &target("xyz"), &[""; 0]);
    check(&refused, true, 401, "missing-token");
    let challenge = refused.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer realm=\"prefd\""));
    let refused = ask(&["--request", "POST", "--data", "{}"]);
    check(&refused, true, 405, "method-not-allowed");
    assert!(refused.header("allow").is_some());
}

#[test]
fn nginx_passes_everything() {
    if machine::has_programs(&["nginx", "curl", "setpriv"]) {
        passes_everything(&Proxy::nginx());
    }
}

#[test]
fn caddy_passes_everything() {
    if !machine::has_programs(&["caddy", "curl", "setpriv"]) {
        return;
    }
    let proxy = Proxy::caddy();
    passes_everything(&proxy);
    // What newer versions of Caddy make of the tag of what they compress.
    let authorized = bearer(&token::of("alice", "xyz"));
    let ask = |more: &[&str]| {
        let arguments = [&["--header", authorized.as_str()], more].concat();
        proxy.ask(VERSIONS[1], &target("xyz"), &arguments)
    };
    let read = ask(&["--head"]);
    let tag = read.header("etag").unwrap().trim_end_matches('"');
    let if_match = format!("If-Match: {tag}-gzip\"");
    let delete = ["--request", "DELETE", "--header", &if_match];
    assert_eq!(ask(&delete).status, 204);
}

#[test]
fn nginx_limits_requests_and_says_that_prefd_is_away() {
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
    let times = |status: &str| statuses.lines().filter(|line| *line == status).count();
    assert!(times("200") >= 100 && times("429") >= 1, "{statuses}");
    assert_eq!(times("200") + times("429"), 400, "{statuses}");
    proxy.server.take().unwrap().kill();
    let answer = loop {
        let answer = proxy.ask(VERSIONS[1], "/livez", &[""; 0]);
        assert_eq!(
            answer.header("content-type"),
            Some("application/vnd.api+json")
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["errors"][0]["status"], answer.status.to_string());
        if answer.status != 429 {
            break answer;
        }
    };
    assert_eq!(answer.status, 503);
}
