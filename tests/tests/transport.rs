//! Transports: TLS, Unix sockets, and a socket passed by systemd.

mod common;

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{BINARY, wait_until};
use prefd_tests::http::{Request, Response};
use prefd_tests::machine;
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long a test waits for a response.
const PATIENCE: Duration = Duration::from_secs(60);

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A self-signed certificate and its key.
struct Identity {
    certificate: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Identity {
    fn new() -> Self {
        let names = vec!["prefd.test".to_owned()];
        Self {
            certificate: rcgen::generate_simple_self_signed(names).unwrap(),
        }
    }

    fn write(&self, files: &Files) {
        std::fs::write(&files.certificate, self.certificate.cert.pem()).unwrap();
        let key = self.certificate.signing_key.serialize_pem();
        std::fs::write(&files.key, key).unwrap();
    }

    /// Connects as a client that trusts only this certificate.
    fn connect(&self, server: &Server) -> Result<Tls, std::io::Error> {
        self.connect_with_versions(server, rustls::ALL_VERSIONS)
    }

    /// Connects with the given TLS versions as a client that trusts only this certificate.
    fn connect_with_versions(
        &self,
        server: &Server,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Result<Tls, std::io::Error> {
        let config = self.config(versions);
        let name = ServerName::try_from("prefd.test").unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = tcp(server);
        connection.complete_io(&mut stream)?;
        Ok(StreamOwned::new(connection, stream))
    }

    fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.cert.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// Returns true if the server presents this certificate.
    fn is_used_by(&self, server: &Server) -> bool {
        self.connect(server).is_ok()
    }
}

/// The files with the certificate and the key.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn in_folder(folder: &Path) -> Self {
        Self {
            certificate: folder.join("certificate.pem"),
            key: folder.join("key.pem"),
        }
    }

    fn launch(&self, folder: &Path) -> Launch {
        let (certificate, key) = (self.certificate.to_str(), self.key.to_str());
        Launch::new(BINARY, &folder.join("data"))
            .with(&["--tls-cert-file", certificate.unwrap()])
            .with(&["--tls-key-file", key.unwrap()])
    }
}

fn tcp(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn unix(path: &Path) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Reads until the server closes the connection.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = stream.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    bytes
}

/// Sends a request, and reads the response.
fn send(stream: &mut (impl Read + Write), request: &Request) -> Response {
    stream.write_all(&request.bytes()).unwrap();
    Response::read(&mut BufReader::new(stream), false).expect("the server sends a response")
}

fn get(token: &str) -> Request {
    Request::of("GET", "xyz", token)
}

fn put(token: &str, body: impl AsRef<[u8]>) -> Request {
    Request::of("PUT", "xyz", token).body(body)
}

#[test]
fn configured_certificate_enables_tls() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_folder(folder.path());
    let identity = Identity::new();
    identity.write(&files);
    let server = files.launch(folder.path()).start();
    assert!(
        server.origin.starts_with("https://127.0.0.1:"),
        "{}",
        server.origin
    );
    let token = token::of("alice", "xyz");
    let large = format!("{{\"large\":\"{}\"}}", "x".repeat(3_000_000));
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let mut stream = identity.connect_with_versions(&server, &[version]).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        for body in ["{\"small\":1}", &large] {
            assert_eq!(send(&mut stream, &put(&token, body)).status, 204);
            let response = send(&mut stream, &get(&token));
            assert_eq!((response.status, response.text()), (200, body));
        }
    }
    // The response to a refused upload reaches its client.
    let mut stream = identity.connect(&server).unwrap();
    let refused = send(&mut stream, &put(&token, large.replace('}', "")));
    assert_eq!(refused.status, 400, "{refused:?}");
    // A request without TLS must not get an HTTP response.
    let mut plain = tcp(&server);
    plain.write_all(&get(&token).bytes()).unwrap();
    let received = read_to_end(&mut plain);
    assert!(!received.starts_with(b"HTTP/"), "{received:?}");
}

#[test]
fn unfinished_handshakes_do_not_lock_out_other_clients() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_folder(folder.path());
    let identity = Identity::new();
    identity.write(&files);
    let server = files
        .launch(folder.path())
        // The timeout also applies to the regular client, whose handshake must end within it.
        .with(&["--head-timeout", "5s", "--max-connections", "4"])
        .start();
    let mut silent: Vec<TcpStream> = (0..4).map(|_| tcp(&server)).collect();
    // One client sends the beginning of a handshake, and the other ones send nothing.
    silent[0].write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    let mut stream = identity.connect(&server).unwrap();
    assert_eq!(
        send(&mut stream, &get(&token::of("alice", "xyz"))).status,
        200
    );
    for stream in &mut silent {
        read_to_end(stream);
    }
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn sighup_loads_a_new_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_folder(folder.path());
    let (old, new) = (Identity::new(), Identity::new());
    old.write(&files);
    let server = files.launch(folder.path()).start();
    assert!(old.is_used_by(&server) && !new.is_used_by(&server));
    let mut stream = old.connect(&server).unwrap();
    // Only one of the two files is new, so the server keeps the old certificate.
    std::fs::write(&files.certificate, new.certificate.cert.pem()).unwrap();
    server.hang_up();
    server.wait_for_log("reload failed");
    assert!(old.is_used_by(&server));
    new.write(&files);
    server.hang_up();
    server.wait_for_log_times("what=\"log\"", 2);
    assert!(new.is_used_by(&server) && !old.is_used_by(&server));
    let token = token::of("alice", "xyz");
    assert_eq!(
        send(&mut stream, &get(&token)).status,
        200,
        "expected the existing connection to stay open"
    );
}

#[test]
fn invalid_certificate_or_key_prevents_startup() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_folder(folder.path());
    let refuses = |code: i32, word: &str| {
        let ended = files.launch(folder.path()).run();
        assert_eq!(ended.status.code(), Some(code), "{ended:?}");
        assert!(ended.err.contains(word), "{word}: {}", ended.err);
    };
    refuses(1, "certificate.pem");
    Identity::new().write(&files);
    std::fs::write(&files.key, "no key").unwrap();
    refuses(1, "key.pem");
    Identity::new().write(&Files {
        certificate: folder.path().join("other.pem"),
        key: files.key.clone(),
    });
    refuses(1, "key.pem");
    std::fs::write(&files.certificate, "").unwrap();
    refuses(1, "no certificate");
    Identity::new().write(&files);
    for encrypted in [
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
         -----END RSA PRIVATE KEY-----\n",
    ] {
        std::fs::write(&files.key, encrypted).unwrap();
        refuses(1, "encrypted");
    }
    let rsa = token::fixture("keys/rsa-test-only.pem");
    std::fs::copy(rsa, &files.key).unwrap();
    refuses(1, "private key of the first certificate");
    let half = Launch::new(BINARY, &folder.path().join("data"))
        .with(&["--tls-key-file", files.key.to_str().unwrap()])
        .run();
    assert_eq!(half.status.code(), Some(2), "{half:?}");
    assert!(half.err.contains("--tls-cert-file"), "{}", half.err);
}

/// Some editors begin a text file with a byte order mark.
#[test]
fn certificate_and_key_may_begin_with_a_byte_order_mark() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_folder(folder.path());
    let identity = Identity::new();
    identity.write(&files);
    for file in [&files.certificate, &files.key] {
        let text = std::fs::read_to_string(file).unwrap();
        std::fs::write(file, format!("\u{feff}{text}")).unwrap();
    }
    let server = files.launch(folder.path()).start();
    assert!(identity.is_used_by(&server));
}

#[test]
fn certificate_that_expires_soon_causes_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_folder(folder.path());
    let days = |days: u64| Duration::from_secs(token::now() + days * 24 * 60 * 60);
    let (expired, soon) = (
        "TLS certificate has expired, so clients will refuse it",
        "TLS certificate expires soon",
    );
    for (not_after, warning) in [
        (Duration::from_secs(token::now() - 60), Some(expired)),
        (days(3), Some(soon)),
        (days(60), None),
    ] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["prefd.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + not_after;
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        let server = files.launch(folder.path()).start();
        let ended = server.stop_with_log();
        assert_eq!(ended.status.code(), Some(0));
        for other in [expired, soon] {
            let expected = warning == Some(other);
            let logged = ended.err.contains(other);
            assert_eq!(logged, expected, "{other}: {not_after:?}");
        }
    }
}

#[test]
fn unix_socket_is_used_by_one_server_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prefd.sock");
    let listen = format!("unix:{}", path.display());
    let launch =
        |name: &str| Launch::new(BINARY, &folder.path().join(name)).with(&["--listen", &listen]);
    let server = launch("one").start();
    assert_eq!(server.origin, listen);
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o666
    );
    let token = token::of("alice", "xyz");
    let mut stream = unix(&path).unwrap();
    assert_eq!(send(&mut stream, &put(&token, "{\"a\":1}")).status, 204);
    assert_eq!(send(&mut stream, &get(&token)).text(), "{\"a\":1}");
    let second = launch("two").run();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        second.err.contains("cannot listen on unix:"),
        "{}",
        second.err
    );
    // The next server replaces the socket file that a killed server has left.
    server.kill();
    assert!(path.exists());
    let server = launch("one").start();
    let mut stream = unix(&path).unwrap();
    assert_eq!(send(&mut stream, &get(&token)).text(), "{\"a\":1}");
    drop(stream);
    assert_eq!(server.stop().code(), Some(0));
    assert!(!path.exists());
    // The server does not replace a file that is not a socket.
    std::fs::write(&path, "precious").unwrap();
    assert_eq!(launch("one").run().status.code(), Some(1));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn socket_file_of_another_process_is_kept_at_exit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prefd.sock");
    let listen = format!("unix:{}", path.display());
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&["--listen", &listen])
        .start();
    std::fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    assert_eq!(server.stop().code(), Some(0));
    unix(&path).unwrap();
    other.accept().unwrap();
}

#[test]
fn socket_passed_by_systemd_is_used() {
    if !machine::has_socket_activation() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prefd.sock");
    let wrapper = ["systemd-socket-activate", "-l", path.to_str().unwrap()];
    let launch = Launch::new(BINARY, &folder.path().join("data")).under(&wrapper);
    std::thread::scope(|scope| {
        // systemd-socket-activate starts the server when the first client connects.
        let client = scope.spawn(|| {
            let mut stream = None;
            wait_until("the socket to accept connections", || {
                stream = unix(&path).ok();
                stream.is_some()
            });
            send(&mut stream.unwrap(), &get(&token::of("alice", "xyz")))
        });
        let server = launch.start();
        assert_eq!(server.origin, format!("unix:{}", path.display()));
        assert_eq!(client.join().unwrap().status, 200);
    });
}
