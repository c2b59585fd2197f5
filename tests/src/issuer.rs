//! An identity provider in this process, which says whatever a test has it say, counts
//! what it is asked, and can be slow or gone.

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

/// Where OpenID Connect has a provider's metadata.
pub const METADATA: &str = "/.well-known/openid-configuration";
/// Where this one has its keys, and looks at tokens.
pub const KEYS: &str = "/keys";
/// Where this one is asked about tokens.
pub const INTROSPECTION: &str = "/introspection";
/// How long a test waits for a question.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running provider. Gone when dropped.
#[derive(Debug)]
pub struct Issuer {
    address: SocketAddr,
    is_tls: bool,
    shared: Arc<Shared>,
    is_stopped: Arc<AtomicBool>,
    is_shut: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

/// What it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Path and query.
    pub target: String,
    /// The Authorization header.
    pub authorization: Option<String>,
    /// The body.
    pub body: String,
}

/// What it answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Further headers, each with its line break.
    pub headers: String,
    /// The body.
    pub body: String,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    /// What it says of tokens; of others, that they are not active.
    tokens: Mutex<HashMap<String, Value>>,
    asked: Mutex<Asked>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Asked {
    questions: Vec<Question>,
    /// Answers wait.
    is_held: bool,
}

impl Answer {
    /// A 200 with this JSON.
    pub fn json(body: &Value) -> Self {
        Self {
            status: 200,
            headers: String::new(),
            body: body.to_string(),
        }
    }

    /// Without a body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: String::new(),
            body: String::new(),
        }
    }
}

impl Issuer {
    /// Starts one with this test key.
    pub fn start(key: &Signer) -> Self {
        Self::listen(key, None)
    }

    /// One that is asked over TLS, and shows this certificate, of `localhost`.
    pub fn start_tls(key: &Signer, tls: ServerConfig) -> Self {
        Self::listen(key, Some(Arc::new(tls)))
    }

    fn listen(key: &Signer, tls: Option<Arc<ServerConfig>>) -> Self {
        let is_tls = tls.is_some();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let (is_stopped, is_shut) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let (ours, stop, shut) = (
            Arc::clone(&shared),
            Arc::clone(&is_stopped),
            Arc::clone(&is_shut),
        );
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let (shared, tls) = (Arc::clone(&ours), tls.clone());
                let stream = stream.expect("a connection");
                if shut.load(Ordering::SeqCst) {
                    continue;
                }
                std::thread::spawn(move || {
                    // Whoever asks may be killed, or not like the certificate.
                    let _ = match tls {
                        None => shared.serve(&stream),
                        Some(tls) => {
                            let connection = ServerConnection::new(tls).expect("TLS");
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
            is_shut,
            accepting: Some(accepting),
        };
        issuer.answer(METADATA, Answer::json(&issuer.metadata()));
        issuer.publish(&[key]);
        issuer
    }

    /// Its metadata, as they usually are.
    pub fn metadata(&self) -> Value {
        let url = self.url();
        json!({
            "issuer": url,
            "jwks_uri": format!("{url}{KEYS}"),
            "introspection_endpoint": format!("{url}{INTROSPECTION}"),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its tokens name as the issuer.
    pub fn url(&self) -> String {
        if self.is_tls {
            return format!("https://localhost:{}", self.address.port());
        }
        format!("http://{}", self.address)
    }

    /// Has it publish these keys.
    pub fn publish(&self, keys: &[&Signer]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.answer(KEYS, Answer::json(&json!({ "keys": keys })));
    }

    /// Has it answer so at this path.
    pub fn answer(&self, path: &str, answer: Answer) {
        let mut answers = self.shared.answers.lock().unwrap();
        answers.insert(path.to_owned(), answer);
    }

    /// Has it say this of a token.
    pub fn say_of(&self, token: &str, said: &Value) {
        let mut tokens = self.shared.tokens.lock().unwrap();
        tokens.insert(token.to_owned(), said.clone());
    }

    /// A token of its own, of this user and client, signed by this key.
    pub fn token(&self, key: &Signer, user: &str, client: &str) -> String {
        let mut claims = token::claims(user, client);
        claims["iss"] = json!(self.url());
        key.sign(&claims)
    }

    /// Has answers wait, or lets them go.
    pub fn hold(&self, is_held: bool) {
        self.shared.asked.lock().unwrap().is_held = is_held;
        self.shared.changed.notify_all();
    }

    /// Closes its door to whoever comes, or opens it. Nobody else gets its address
    /// meanwhile, as it would be where it was gone.
    pub fn shut(&self, is_shut: bool) {
        self.is_shut.store(is_shut, Ordering::SeqCst);
    }

    /// Everything that it was asked.
    pub fn questions(&self) -> Vec<Question> {
        self.shared.asked.lock().unwrap().questions.clone()
    }

    /// How often it was asked at this path.
    pub fn count(&self, path: &str) -> usize {
        let asked = self.shared.asked.lock().unwrap();
        asked.count(path)
    }

    /// Waits until it was asked so often at this path.
    pub fn wait_for(&self, path: &str, count: usize) {
        let asked = self.shared.asked.lock().unwrap();
        let (_asked, waited) = self
            .shared
            .changed
            .wait_timeout_while(asked, PATIENCE, |asked| asked.count(path) < count)
            .unwrap();
        assert!(!waited.timed_out(), "{path} was not asked {count} times");
    }
}

impl Asked {
    fn count(&self, path: &str) -> usize {
        let is_there = |question: &&Question| question.target == path;
        self.questions.iter().filter(is_there).count()
    }
}

impl Shared {
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
                "content-length" => length = value.parse().expect("a length"),
                "authorization" => authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let question = Question {
            target,
            authorization,
            body: String::from_utf8(body).expect("text"),
        };
        let answer = self.answer_to(&question);
        let mut asked = self.asked.lock().unwrap();
        asked.questions.push(question);
        self.changed.notify_all();
        drop(
            self.changed
                .wait_while(asked, |asked| asked.is_held)
                .unwrap(),
        );
        let stream = reader.get_mut();
        write!(
            stream,
            "HTTP/1.1 {} -\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n{}",
            answer.status,
            answer.body.len(),
            answer.headers,
            answer.body
        )?;
        stream.flush()
    }

    fn answer_to(&self, question: &Question) -> Answer {
        let answers = self.answers.lock().unwrap();
        if let Some(answer) = answers.get(&question.target) {
            return answer.clone();
        }
        if question.target != INTROSPECTION {
            return Answer::status(404);
        }
        // Tokens of tests need no decoding.
        let token = question
            .body
            .split('&')
            .find_map(|pair| pair.strip_prefix("token="));
        let tokens = self.tokens.lock().unwrap();
        let said = token.and_then(|token| tokens.get(token)).cloned();
        Answer::json(&said.unwrap_or_else(|| json!({"active": false})))
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.hold(false);
        self.is_stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// A test key with an id.
pub struct Signer {
    name: &'static str,
    id: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    /// `name`: rsa, ec256, ec384 or ed25519.
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
            key: key.expect("a key"),
        }
    }

    /// The public part.
    pub fn jwk(&self) -> Value {
        let text = std::fs::read_to_string(token::fixture("keys/jwks-test-only.json")).unwrap();
        let keys: Value = serde_json::from_str(&text).unwrap();
        let mut key = keys[self.name].clone();
        key["kid"] = json!(self.id);
        key["alg"] = json!(self.algorithm);
        key["use"] = json!("sig");
        key
    }

    /// These claims, signed.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm, "kid": self.id, "typ": "at+jwt"});
        self.sign_with(&header, claims)
    }

    /// The same with this header, whatever it says.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        token::signed(header, claims, self.algorithm, &self.key)
    }

    /// The same with claims that need be none.
    pub fn sign_bytes(&self, header: &Value, claims: &[u8]) -> String {
        token::signed_bytes(header, claims, self.algorithm, &self.key)
    }
}
