//! The oracle for HTTP connections:
//!
//! - No input makes the server panic or hang.
//! - Every response is HTTP/1.1, and every error is one of the error table, with all its members.
//! - The responses do not depend on how the input is split.
//! - A PUT is accepted if and only if its document is valid, and the document is then read back.
//! - No request is executed on a connection after a request whose end is uncertain.
//!
//! An input is the bytes that a client sends, with `$TOKEN` as a placeholder for a valid token, or
//! a list of choices. The connection is a pipe in memory. The clock advances only when every task
//! waits for it, so a hanging connection is detected without waiting.

use std::cell::RefCell;
use std::pin::pin;
use std::time::Duration;

use prefd::fuzzing::{InMemoryServer, KeyFiles};
use prefd_engine::{Change, Durability, Engine, Limits, Namespace, WriteOptions, check};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

use crate::api_error;
use crate::http::Response;
use crate::oracle::choices;
use crate::oracle::http_generator::{CLIENTS, ConnectionScript, FramedRequest, script};
use crate::oracle::reference_validator::accepted;
use crate::oracle::reusable_store::ReusableStore;
use crate::token;

/// A time on the simulated clock that is far longer than every timeout of the server.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// Inline size: larger documents are stored in a blob.
const INLINE_BYTES: u32 = 40;
/// Capacity of the pipe. It is as large as that of a socket, so that every response fits. hyper
/// discards unwritten responses when the next bytes are not valid HTTP.
const PIPE_BYTES: usize = 64 * 1024;

/// Limits that are so small that a few bytes reach each of them.
fn limits() -> Limits {
    let mut limits = Limits::new(3, 8, 64);
    limits.max_body_bytes = 300;
    limits.max_depth = 4;
    limits
}

/// A server with its store, and a valid token for it.
struct HttpOracle {
    store: ReusableStore,
    server: Option<InMemoryServer>,
    runtime: Runtime,
    token: String,
}

/// Runs the oracle on an input.
pub fn run(input: &[u8]) {
    thread_local! {
        static ORACLE: RefCell<Option<HttpOracle>> = const { RefCell::new(None) };
    }
    ORACLE.with_borrow_mut(|oracle| {
        let oracle = oracle.get_or_insert_with(HttpOracle::new);
        let script = match choices(input) {
            Some((_, mut choices)) => script(&mut choices, &limits(), &oracle.token),
            None => ConnectionScript::of(&with_token(input, &oracle.token)),
        };
        oracle.check(&script);
    });
}

fn with_token(input: &[u8], token: &str) -> Vec<u8> {
    const NAME: &[u8] = b"$TOKEN";
    let mut expanded = Vec::new();
    let mut rest = input;
    while let Some(at) = rest.windows(NAME.len()).position(|part| part == NAME) {
        expanded.extend_from_slice(&rest[..at]);
        expanded.extend_from_slice(token.as_bytes());
        rest = &rest[at + NAME.len()..];
    }
    expanded.extend_from_slice(rest);
    expanded
}

impl HttpOracle {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let mut claims = token::claims("u", CLIENTS[0]);
        claims["exp"] = json!(4_102_444_800_u64);
        claims["scope"] = json!("user:preferences:read:foreign user:preferences:write:foreign");
        Self {
            store: ReusableStore::new(|config| {
                config.limits = limits();
                config.inline_bytes = INLINE_BYTES;
            }),
            server: None,
            runtime,
            token: token::hs256(&claims),
        }
    }

    fn check(&mut self, script: &ConnectionScript) {
        let (engine, is_new) = self.store.take();
        if is_new || self.server.is_none() {
            let secret = token::secret_file();
            let keys = KeyFiles {
                secret: Some(&secret),
                ..KeyFiles::default()
            };
            let server = InMemoryServer::new(engine.clone(), &keys, limits().max_body_bytes);
            self.server = Some(server.unwrap());
        }
        let Some(server) = &self.server else { return };
        let at_once = ConnectionScript {
            cuts: Vec::new(),
            ..script.clone()
        };
        let [first, second] = [script, &at_once].map(|script| {
            delete_all(engine);
            let bytes = self.runtime.block_on(exchange(server, engine, script));
            let responses = parsed(&bytes, script);
            responses.iter().for_each(check_shape);
            if let Some(requests) = &script.requests {
                check_documents(engine, requests, &responses);
            }
            for client in CLIENTS {
                check_stored(&namespace(engine, client));
            }
            // Responses that hyper sends itself are not compared, because hyper rejects some
            // incomplete heads only if they arrive in certain pieces.
            let ours = responses
                .iter()
                .filter(|a| a.header("request-id").is_some());
            let summaries = ours.map(|response| (response.status, response.body.len()));
            summaries.collect::<Vec<_>>()
        });
        // Revisions increase from the first run to the second, so a tag in a precondition may match
        // in only one of them.
        let bytes = script.bytes.to_ascii_lowercase();
        let names_tags = ["if-match", "if-none-match"].iter().any(|name| {
            bytes
                .windows(name.len())
                .any(|part| part == name.as_bytes())
        });
        if names_tags {
            return;
        }
        // If the server does not read a body, the connection stays open only if the complete body
        // has already arrived. So one run may have more responses than the other.
        let both = first.len().min(second.len());
        assert!(
            first[..both] == second[..both] && first.is_empty() == second.is_empty(),
            "responses to split input {first:?} differ from those to one piece {second:?}: {}",
            script.shown()
        );
    }
}

fn namespace(engine: &Engine, client: &str) -> Namespace {
    engine.namespace("u", client).unwrap()
}

/// Deletes all documents, so that every run starts with empty namespaces.
fn delete_all(engine: &Engine) {
    for client in CLIENTS {
        let namespace = namespace(engine, client);
        if namespace.revision().unwrap().is_some() {
            let options = WriteOptions {
                durability: Some(Durability::Buffered),
                ..WriteOptions::default()
            };
            namespace.write(Change::Delete, options).unwrap();
        }
    }
}

/// Sends the bytes of a script, and returns all bytes that the server sends.
///
/// # Panics
/// Panics if the server does not close the connection.
async fn exchange(server: &InMemoryServer, engine: &Engine, script: &ConnectionScript) -> Vec<u8> {
    let (client, end) = tokio::io::duplex(PIPE_BYTES);
    let (mut from, mut to) = tokio::io::split(client);
    let send = async move {
        let mut at = 0;
        for cut in script.cuts.iter().copied().chain([script.bytes.len()]) {
            if to.write_all(&script.bytes[at..cut]).await.is_err() {
                break;
            }
            at = cut;
            // Lets the server read this piece before the next one is written.
            tokio::task::yield_now().await;
        }
        if !script.stays_open {
            let _ = to.shutdown().await;
        }
        to
    };
    let receive = async move {
        let mut responses = Vec::new();
        let _ = from.read_to_end(&mut responses).await;
        responses
    };
    let mut exchange = pin!(async {
        let (responses, ..) = tokio::join!(receive, send, server.serve_connection(end));
        responses
    });
    // The engine commits on its own thread, for which the simulated clock does not wait. If the
    // clock reaches the timeout, a further commit waits for all queued ones. Each request can have
    // one commit.
    let requests = script.bytes.windows(6).filter(|word| *word == b"HTTP/1");
    for _ in 0..requests.count() + 3 {
        if let Ok(responses) = tokio::time::timeout(FOREVER, &mut exchange).await {
            return responses;
        }
        let barrier = namespace(engine, "barrier");
        let delete = move || barrier.write(Change::Delete, WriteOptions::default());
        let waited = tokio::task::spawn_blocking(delete);
        waited.await.unwrap().unwrap();
    }
    panic!(
        "the server does not close the connection: {}",
        script.shown()
    );
}

/// Parses the responses that the server sent, except for 100 Continue.
fn parsed(bytes: &[u8], script: &ConnectionScript) -> Vec<Response> {
    let mut rest = bytes;
    let mut responses = Vec::new();
    let may_be_head = script.bytes.windows(5).any(|word| word == b"HEAD ");
    while !rest.is_empty() {
        let mut behind_head = rest;
        let (_, length) = Response::read_head(&mut behind_head).unwrap();
        let is_without = behind_head.is_empty() || behind_head.starts_with(b"HTTP/1.");
        let is_head = may_be_head && is_without && length.is_some_and(|length| length > 0);
        let response = Response::read(&mut rest, is_head).unwrap_or_else(|error| {
            let received = String::from_utf8_lossy(bytes);
            panic!(
                "{error}: not a valid response: {received:?} to {}",
                script.shown()
            )
        });
        if response.status != 100 {
            responses.push(response);
        }
    }
    responses
}

/// Checks the status, the headers and the body of a response.
fn check_shape(response: &Response) {
    let length = response
        .header("content-length")
        .map(|n| n.parse::<usize>().unwrap());
    if response.header("request-id").is_none() {
        // hyper itself rejects requests that are not valid HTTP.
        assert!(matches!(response.status, 400 | 414 | 431), "{response:?}");
        assert!(response.body.is_empty(), "{response:?}");
        return;
    }
    match response.status {
        200 => {
            assert_eq!(response.header("content-type"), Some("application/json"));
            assert!(length.is_some(), "{response:?}");
        }
        204 | 304 => assert!(response.body.is_empty(), "{response:?}"),
        400.. if length.is_some_and(|length| length > 0) && response.body.is_empty() => {
            // The response to a HEAD has a length, but no body.
            let media_type = response.header("content-type");
            assert_eq!(media_type, Some("application/vnd.api+json"), "{response:?}");
        }
        400.. => {
            let code = api_error::check_any(response, "fuzzed");
            assert_ne!(code, "internal-error", "{response:?}");
        }
        _ => panic!("unexpected status: {response:?}"),
    }
}

/// Checks the responses to correctly framed requests, and the stored documents afterwards.
fn check_documents(engine: &Engine, requests: &[FramedRequest], responses: &[Response]) {
    assert!(
        responses.len() <= requests.len(),
        "{requests:?}, {responses:?}"
    );
    let mut documents = CLIENTS.map(|_| None::<String>);
    for (index, (request, response)) in requests.iter().zip(responses).enumerate() {
        let context = || format!("{request:?}, {response:?}");
        let is_last = index + 1 == responses.len();
        assert!(!request.is_last || is_last, "{}: {responses:?}", context());
        let is_done = matches!(response.status, 200 | 204 | 304);
        assert!(!is_done || request.is_allowed, "{}", context());
        let text = accepted(&request.body, &limits());
        if request.is_plain && request.method == "PUT" {
            assert_eq!(response.status == 204, text.is_some(), "{}", context());
        } else if request.is_plain {
            assert!(is_done, "{}", context());
        }
        if !is_done {
            continue;
        }
        let document = &mut documents[request.client];
        match request.method {
            "PUT" => {
                assert!(
                    text.is_some() && response.header("etag").is_some(),
                    "{}",
                    context()
                );
                *document = text;
            }
            "DELETE" => *document = None,
            _ if response.status == 200 => {
                let expected = document.as_deref().unwrap_or("{}");
                let length = response.header("content-length").unwrap();
                assert_eq!(length, expected.len().to_string(), "{}", context());
                if request.method == "GET" {
                    assert_eq!(response.text(), expected, "{}", context());
                }
            }
            _ => {}
        }
    }
    if responses.len() == requests.len() {
        for (client, expected) in CLIENTS.iter().zip(documents) {
            let stored = namespace(engine, client).get().unwrap();
            let stored = stored.map(|d| String::from_utf8(d.read().unwrap()).unwrap());
            assert_eq!(stored, expected, "{client}: {requests:?}");
        }
    }
}

/// Checks that a stored document can be read and is within the limits.
fn check_stored(namespace: &Namespace) {
    if let Some(document) = namespace.get().unwrap() {
        let usage = check(&document.read().unwrap(), &limits()).unwrap();
        assert_eq!(usage, document.stat().usage);
    }
}
