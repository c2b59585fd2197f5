//! Connections: whatever a client sends, and however it arrives, the real handler
//! neither panics nor hangs; what it answers is HTTP/1.1, and each error is one of the
//! table, whole; where the bytes were cut changes nothing; and what it says of
//! documents is so: a PUT is taken exactly where the document is right, and read back.
//!
//! An input is what a client sends, as it is, with `$TOKEN` for a token that works; or
//! a list of choices. The connection is a pipe in memory, and the clock stands still
//! unless everybody waits for it: a connection that never ends is told from a slow one
//! without waiting.

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
use crate::oracle::http_shape::{Asked, CLIENTS, Script, script};
use crate::oracle::judgement::accepted;
use crate::oracle::stage::Stage;
use crate::token;

/// Far beyond every timeout of the server, on its own clock.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// Documents above this go to a blob.
const INLINE_BYTES: u32 = 40;
/// What the pipe holds: as much as a socket, so that an answer always fits. hyper throws
/// away what it has still to write when what comes next is no HTTP.
const PIPE_BYTES: usize = 64 * 1024;

/// The limits of documents, so small that a few bytes are at each.
fn limits() -> Limits {
    let mut limits = Limits::new(3, 8, 64);
    limits.max_body_bytes = 300;
    limits.max_depth = 4;
    limits
}

/// A server, and a token that works on it.
struct Scene {
    stage: Stage,
    server: Option<InMemoryServer>,
    runtime: Runtime,
    token: String,
}

/// Judges a whole input.
pub fn run(input: &[u8]) {
    thread_local! {
        static SCENE: RefCell<Option<Scene>> = const { RefCell::new(None) };
    }
    SCENE.with_borrow_mut(|scene| {
        let scene = scene.get_or_insert_with(Scene::new);
        let script = match choices(input) {
            Some((_, mut choices)) => script(&mut choices, &limits(), &scene.token),
            None => Script::of(&with_token(input, &scene.token)),
        };
        scene.judge(&script);
    });
}

fn with_token(input: &[u8], token: &str) -> Vec<u8> {
    const NAME: &[u8] = b"$TOKEN";
    let mut whole = Vec::new();
    let mut rest = input;
    while let Some(at) = rest.windows(NAME.len()).position(|part| part == NAME) {
        whole.extend_from_slice(&rest[..at]);
        whole.extend_from_slice(token.as_bytes());
        rest = &rest[at + NAME.len()..];
    }
    whole.extend_from_slice(rest);
    whole
}

impl Scene {
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
            stage: Stage::new(|config| {
                config.limits = limits();
                config.inline_bytes = INLINE_BYTES;
            }),
            server: None,
            runtime,
            token: token::hs256(&claims),
        }
    }

    fn judge(&mut self, script: &Script) {
        let (engine, is_new) = self.stage.take();
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
        let at_once = Script {
            cuts: Vec::new(),
            ..script.clone()
        };
        let [first, second] = [script, &at_once].map(|script| {
            empty(engine);
            let bytes = self.runtime.block_on(converse(server, engine, script));
            let answers = parsed(&bytes, script);
            answers.iter().for_each(check_shape);
            if let Some(asked) = &script.asked {
                check_documents(engine, asked, &answers);
            }
            for client in CLIENTS {
                check_stored(&namespace(engine, client));
            }
            // Whether hyper calls a head that never ends wrong depends on how it came.
            let ours = answers.iter().filter(|a| a.header("request-id").is_some());
            let told = ours.map(|answer| (answer.status, answer.body.len()));
            told.collect::<Vec<_>>()
        });
        // Revisions grow from one run to the next, so a tag may hold in one of them.
        let bytes = script.bytes.to_ascii_lowercase();
        let names_tags = ["if-match", "if-none-match"].iter().any(|name| {
            bytes
                .windows(name.len())
                .any(|part| part == name.as_bytes())
        });
        if names_tags {
            return;
        }
        // Of a body that is not read, whether the rest has come already decides on
        // whether the connection goes on.
        let both = first.len().min(second.len());
        assert!(
            first[..both] == second[..both] && first.is_empty() == second.is_empty(),
            "{first:?} cut, {second:?} not: {}",
            script.shown()
        );
    }
}

fn namespace(engine: &Engine, client: &str) -> Namespace {
    engine.namespace("u", client).unwrap()
}

/// Every input finds the same documents: none.
fn empty(engine: &Engine) {
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

/// Sends the script and returns all that is answered.
///
/// # Panics
/// Where the connection does not end.
async fn converse(server: &InMemoryServer, engine: &Engine, script: &Script) -> Vec<u8> {
    let (client, end) = tokio::io::duplex(PIPE_BYTES);
    let (mut from, mut to) = tokio::io::split(client);
    let send = async move {
        let mut at = 0;
        for cut in script.cuts.iter().copied().chain([script.bytes.len()]) {
            if to.write_all(&script.bytes[at..cut]).await.is_err() {
                break;
            }
            at = cut;
            // So that the server sees this piece without the next.
            tokio::task::yield_now().await;
        }
        if !script.stays {
            let _ = to.shutdown().await;
        }
        to
    };
    let receive = async move {
        let mut answers = Vec::new();
        let _ = from.read_to_end(&mut answers).await;
        answers
    };
    let mut conversation = pin!(async {
        let (answers, ..) = tokio::join!(receive, send, server.serve_connection(end));
        answers
    });
    // A commit is made by the engine's own thread, which the clock does not know: when
    // it jumps, what is queued is waited for. Each request can have one commit.
    let requests = script.bytes.windows(6).filter(|word| *word == b"HTTP/1");
    for _ in 0..requests.count() + 3 {
        if let Ok(answers) = tokio::time::timeout(FOREVER, &mut conversation).await {
            return answers;
        }
        let barrier = namespace(engine, "barrier");
        let delete = move || barrier.write(Change::Delete, WriteOptions::default());
        let waited = tokio::task::spawn_blocking(delete);
        waited.await.unwrap().unwrap();
    }
    panic!("the connection does not end: {}", script.shown());
}

/// The answers in what the server sent, without those that ask for the body.
fn parsed(bytes: &[u8], script: &Script) -> Vec<Response> {
    let mut rest = bytes;
    let mut answers = Vec::new();
    let may_be_head = script.bytes.windows(5).any(|word| word == b"HEAD ");
    while !rest.is_empty() {
        let mut behind_head = rest;
        let (_, length) = Response::read_head(&mut behind_head).unwrap();
        let is_without = behind_head.is_empty() || behind_head.starts_with(b"HTTP/1.");
        let is_head = may_be_head && is_without && length.is_some_and(|length| length > 0);
        let answer = Response::read(&mut rest, is_head).unwrap_or_else(|error| {
            let answered = String::from_utf8_lossy(bytes);
            panic!("{error}: {answered:?} to {}", script.shown())
        });
        if answer.status != 100 {
            answers.push(answer);
        }
    }
    answers
}

/// Whether it is what the contract has answers be.
fn check_shape(answer: &Response) {
    let length = answer
        .header("content-length")
        .map(|n| n.parse::<usize>().unwrap());
    if answer.header("request-id").is_none() {
        // hyper itself refuses what is no HTTP.
        assert!(matches!(answer.status, 400 | 414 | 431), "{answer:?}");
        assert!(answer.body.is_empty(), "{answer:?}");
        return;
    }
    match answer.status {
        200 => {
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert!(length.is_some(), "{answer:?}");
        }
        204 | 304 => assert!(answer.body.is_empty(), "{answer:?}"),
        400.. if length.is_some_and(|length| length > 0) && answer.body.is_empty() => {
            // To a HEAD.
            let media_type = answer.header("content-type");
            assert_eq!(media_type, Some("application/vnd.api+json"), "{answer:?}");
        }
        400.. => {
            let code = api_error::check_any(answer, "fuzzed");
            assert_ne!(code, "internal-error", "{answer:?}");
        }
        _ => panic!("{answer:?}"),
    }
}

/// Follows the documents through answers to requests that were framed correctly.
fn check_documents(engine: &Engine, asked: &[Asked], answers: &[Response]) {
    assert!(answers.len() <= asked.len(), "{asked:?}, {answers:?}");
    let mut documents = CLIENTS.map(|_| None::<String>);
    for (request, answer) in asked.iter().zip(answers) {
        let context = || format!("{request:?}, {answer:?}");
        let is_done = matches!(answer.status, 200 | 204 | 304);
        assert!(!is_done || request.is_allowed, "{}", context());
        let text = accepted(&request.body, &limits());
        if request.is_plain && request.method == "PUT" {
            assert_eq!(answer.status == 204, text.is_some(), "{}", context());
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
                    text.is_some() && answer.header("etag").is_some(),
                    "{}",
                    context()
                );
                *document = text;
            }
            "DELETE" => *document = None,
            _ if answer.status == 200 => {
                let expected = document.as_deref().unwrap_or("{}");
                let length = answer.header("content-length").unwrap();
                assert_eq!(length, expected.len().to_string(), "{}", context());
                if request.method == "GET" {
                    assert_eq!(answer.text(), expected, "{}", context());
                }
            }
            _ => {}
        }
    }
    if answers.len() == asked.len() {
        for (client, expected) in CLIENTS.iter().zip(documents) {
            let stored = namespace(engine, client).get().unwrap();
            let stored = stored.map(|d| String::from_utf8(d.read().unwrap()).unwrap());
            assert_eq!(stored, expected, "{client}: {asked:?}");
        }
    }
}

/// Whatever is stored can be read, and is a document within the limits.
fn check_stored(namespace: &Namespace) {
    if let Some(document) = namespace.get().unwrap() {
        let usage = check(&document.read().unwrap(), &limits()).unwrap();
        assert_eq!(usage, document.stat().usage);
    }
}
