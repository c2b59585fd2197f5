//! An identity provider inside the test process. A test sets its responses, reads the requests
//! that it received, and can let it be slow or refuse connections.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::token;

/// Path of the metadata, as OpenID Connect Discovery defines it.
pub const METADATA: &str = "/.well-known/openid-configuration";
/// Path of the JWKS of this provider.
pub const KEYS: &str = "/keys";
/// Path of the introspection endpoint of this provider.
pub const INTROSPECTION: &str = "/introspection";
/// How long a test waits for a request.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running identity provider. Stopped when dropped.
#[derive(Debug)]
pub struct Issuer {
    address: SocketAddr,
    is_tls: bool,
    shared: Arc<SharedState>,
    is_stopped: Arc<AtomicBool>,
    refuses: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

/// A request that the provider received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedRequest {
    /// Path and query.
    pub target: String,
    /// The Authorization header.
    pub authorization: Option<String>,
    /// The body.
    pub body: String,
}

/// A response that the provider sends.
#[derive(Debug, Clone)]
pub struct CannedResponse {
    /// The status code.
    pub status: u16,
    /// Additional headers, each followed by a line break.
    pub headers: String,
    /// The body.
    pub body: String,
}

#[derive(Debug, Default)]
struct SharedState {
    /// Responses by path.
    responses: Mutex<HashMap<String, CannedResponse>>,
    /// Introspection responses by token. All other tokens are not active.
    tokens: Mutex<HashMap<String, Value>>,
    log: Mutex<RequestLog>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct RequestLog {
    requests: Vec<ReceivedRequest>,
    /// True while responses are held back.
    is_held: bool,
    /// How long the provider needs for each response.
    delay: Duration,
}

impl CannedResponse {
    /// A 200 response with a JSON body.
    pub fn json(body: &Value) -> Self {
        Self {
            status: 200,
            headers: String::new(),
            body: body.to_string(),
        }
    }

    /// A response without a body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: String::new(),
            body: String::new(),
        }
    }
}

impl Issuer {
    /// Starts a provider that publishes the given key.
    pub fn start(key: &Signer) -> Self {
        Self::listen(key, None)
    }

    /// Starts a provider that uses TLS, with a certificate for `localhost`.
    pub fn start_tls(key: &Signer, tls: ServerConfig) -> Self {
        Self::listen(key, Some(Arc::new(tls)))
    }

    fn listen(key: &Signer, tls: Option<Arc<ServerConfig>>) -> Self {
        let is_tls = tls.is_some();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let address = listener.local_addr().unwrap();
        let shared = Arc::<SharedState>::default();
        let (is_stopped, refuses) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (ours, stop, refuse) = (
            Arc::clone(&shared),
            Arc::clone(&is_stopped),
            Arc::clone(&refuses),
        );
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (shared, tls) = (Arc::clone(&ours), tls.clone());
                let stream = stream.expect("the connection is accepted");
                if refuse.load(Ordering::SeqCst) {
                    continue;
                }
                std::thread::spawn(move || {
                    // Errors are ignored: the client may be killed, or reject the certificate.
                    let _ = match tls {
                        None => shared.serve(&stream),
                        Some(tls) => {
                            let connection =
                                ServerConnection::new(tls).expect("the TLS configuration is valid");
                            shared.serve(StreamOwned::new(connection, stream))
                        }
                    };
                });
            }
        });
        let issuer = Self {
            address,
            is_tls,
            shared,
            is_stopped,
            refuses,
            accepting: Some(accepting),
        };
        issuer.respond(METADATA, CannedResponse::json(&issuer.metadata()));
        issuer.publish(&[key]);
        issuer
    }

    /// The default metadata of this provider.
    pub fn metadata(&self) -> Value {
        let url = self.url();
        json!({
            "issuer": url,
            "jwks_uri": format!("{url}{KEYS}"),
            "introspection_endpoint": format!("{url}{INTROSPECTION}"),
        })
    }

    /// The address on which the provider listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The `iss` claim of the provider's tokens.
    pub fn url(&self) -> String {
        if self.is_tls {
            return format!("https://localhost:{}", self.address.port());
        }
        format!("http://{}", self.address)
    }

    /// Publishes the given keys as the JWKS.
    pub fn publish(&self, keys: &[&Signer]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.respond(KEYS, CannedResponse::json(&json!({ "keys": keys })));
    }

    /// Sets the response for a path.
    pub fn respond(&self, path: &str, response: CannedResponse) {
        let mut responses = self.shared.responses.lock().unwrap();
        responses.insert(path.to_owned(), response);
    }

    /// Sets the introspection response for a token.
    pub fn set_introspection(&self, token: &str, introspection: &Value) {
        let mut tokens = self.shared.tokens.lock().unwrap();
        tokens.insert(token.to_owned(), introspection.clone());
    }

    /// Creates a token of this issuer for a user and a client.
    pub fn token(&self, key: &Signer, user: &str, client: &str) -> String {
        let mut claims = token::claims(user, client);
        claims["iss"] = json!(self.url());
        key.sign(&claims)
    }

    /// Holds back all responses, or sends the responses that were held back.
    pub fn hold_responses(&self, is_held: bool) {
        self.shared.log.lock().unwrap().is_held = is_held;
        self.shared.changed.notify_all();
    }

    /// Delays each response, like a slow provider.
    pub fn delay_responses(&self, delay: Duration) {
        self.shared.log.lock().unwrap().delay = delay;
    }

    /// Closes each new connection at once, or accepts connections again. The port stays reserved,
    /// unlike the port of a provider that was stopped.
    pub fn refuse_connections(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::SeqCst);
    }

    /// All requests that the provider received.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.shared.log.lock().unwrap().requests.clone()
    }

    /// Number of requests for a path.
    pub fn count(&self, path: &str) -> usize {
        let log = self.shared.log.lock().unwrap();
        log.count(path)
    }

    /// Waits until the provider has received `count` requests for a path.
    pub fn wait_for(&self, path: &str, count: usize) {
        let log = self.shared.log.lock().unwrap();
        let (_asked, waited) = self
            .shared
            .changed
            .wait_timeout_while(log, PATIENCE, |log| log.count(path) < count)
            .unwrap();
        assert!(!waited.timed_out(), "expected {count} requests for {path}");
    }
}

impl RequestLog {
    fn count(&self, path: &str) -> usize {
        let has_path = |request: &&ReceivedRequest| request.target == path;
        self.requests.iter().filter(has_path).count()
    }
}

impl SharedState {
    fn serve(&self, stream: impl Read + Write) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut length, mut authorization) = (0, None);
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().expect("Content-Length is a number"),
                "authorization" => authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let request = ReceivedRequest {
            target,
            authorization,
            body: String::from_utf8(body).expect("the request body is UTF-8"),
        };
        let response = self.response_to(&request);
        let mut log = self.log.lock().unwrap();
        log.requests.push(request);
        self.changed.notify_all();
        let log = self.changed.wait_while(log, |log| log.is_held).unwrap();
        let delay = log.delay;
        drop(log);
        std::thread::sleep(delay);
        let stream = reader.get_mut();
        write!(
            stream,
            "HTTP/1.1 {} -\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n{}",
            response.status,
            response.body.len(),
            response.headers,
            response.body
        )?;
        stream.flush()
    }

    fn response_to(&self, request: &ReceivedRequest) -> CannedResponse {
        let responses = self.responses.lock().unwrap();
        if let Some(response) = responses.get(&request.target) {
            return response.clone();
        }
        if request.target != INTROSPECTION {
            return CannedResponse::status(404);
        }
        // The tokens of the tests need no percent-encoding.
        let token = request
            .body
            .split('&')
            .find_map(|pair| pair.strip_prefix("token="));
        let tokens = self.tokens.lock().unwrap();
        let introspection = token.and_then(|token| tokens.get(token)).cloned();
        CannedResponse::json(&introspection.unwrap_or_else(|| json!({"active": false})))
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.hold_responses(false);
        self.is_stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// A private test key with a key id.
pub struct Signer {
    name: &'static str,
    id: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    /// Reads the test key with the given name: `rsa`, `ec256`, `ec384` or `ed25519`.
    pub fn new(name: &'static str, id: &str) -> Self {
        let pem = std::fs::read(token::fixture(&format!("keys/{name}-test-only.pem"))).unwrap();
        let (algorithm, key) = match name {
            "rsa" => (Algorithm::RS256, EncodingKey::from_rsa_pem(&pem)),
            "ec256" => (Algorithm::ES256, EncodingKey::from_ec_pem(&pem)),
            "ec384" => (Algorithm::ES384, EncodingKey::from_ec_pem(&pem)),
            _ => (Algorithm::EdDSA, EncodingKey::from_ed_pem(&pem)),
        };
        Self {
            name,
            id: id.to_owned(),
            algorithm,
            key: key.expect("the fixture is a private key"),
        }
    }

    /// The public key as a JWK.
    pub fn jwk(&self) -> Value {
        let text = std::fs::read_to_string(token::fixture("keys/jwks-test-only.json")).unwrap();
        let keys: Value = serde_json::from_str(&text).unwrap();
        let mut key = keys[self.name].clone();
        key["kid"] = json!(self.id);
        key["alg"] = json!(self.algorithm);
        key["use"] = json!("sig");
        key
    }

    /// Signs claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm, "kid": self.id, "typ": "at+jwt"});
        self.sign_with(&header, claims)
    }

    /// Signs claims with the given header. The header may contradict the key.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        token::signed(header, claims, self.algorithm, &self.key)
    }

    /// Signs arbitrary bytes in the place of the claims.
    pub fn sign_bytes(&self, header: &Value, claims: &[u8]) -> String {
        token::signed_bytes(header, claims, self.algorithm, &self.key)
    }
}
