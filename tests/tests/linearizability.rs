//! Linearizability over HTTP. Concurrent clients read and write while the real server is killed,
//! terminated and restarted. For each namespace, one order of the operations must explain every
//! response.
//!
//! A request without a response may take effect at any later time, or never. The history of a
//! namespace spans all runs of the server.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, RwLock};
use std::time::Instant;

use common::BINARY;
use prefd_tests::history::{Action, Condition, Operation, Outcome, Tag, check};
use prefd_tests::http::{Client, Request, Response};
use prefd_tests::random::{Random, seeds};
use prefd_tests::server::Launch;
use prefd_tests::token;
use serde_json::Value;

const USER: &str = "user";
const CONNECTIONS: u32 = 24;
/// Number of namespaces that most requests use.
const HOT: u64 = 4;
/// Number of namespaces that the remaining requests use.
const COLD: u64 = 12;
/// How each run of the server ends.
const ENDS: [End; 6] = [
    End::Kill,
    End::Kill,
    End::Kill,
    End::Terminate,
    End::Kill,
    End::Kill,
];
/// Minimum and maximum number of operations per run.
const OPERATIONS: (u64, u64) = (300, 1_500);
/// One document in this many is too large for the log, and is stored in a blob.
const LARGE_EVERY: u64 = 40;
const LARGE_BYTES: usize = 300_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// SIGKILL under load.
    Kill,
    /// SIGTERM under load. In-flight requests are allowed to finish.
    Terminate,
}

/// State that all connections share.
struct SharedState {
    begin: Instant,
    tokens: Vec<String>,
    /// The next value to put. No value is put twice.
    next_value: AtomicU64,
    /// The last tag that a client saw in each namespace, for use in conditions. The tag is usually
    /// current, and sometimes was just replaced.
    last_tags: Vec<AtomicU64>,
    /// How the current run ends. `None` until the end begins.
    end: RwLock<Option<End>>,
}

/// The index of a namespace, and an operation on it.
type Recorded = (usize, Operation);

impl SharedState {
    fn new() -> Self {
        let names = 0..HOT + COLD;
        Self {
            begin: Instant::now(),
            tokens: names
                .clone()
                .map(|index| token::of(USER, &client(index as usize)))
                .collect(),
            next_value: AtomicU64::new(1),
            last_tags: names.map(|_| AtomicU64::new(0)).collect(),
            end: RwLock::new(None),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).expect("the test lasts less than 500 years")
    }
}

fn client(namespace: usize) -> String {
    format!("client-{namespace}")
}

/// A document that contains its value at the beginning and at the end, so that a mixture of two
/// documents is recognized.
fn document(value: u64) -> String {
    let pad = if value.is_multiple_of(LARGE_EVERY) {
        LARGE_BYTES
    } else {
        (value % 7) as usize * 100
    };
    let pad = "p".repeat(pad);
    format!("{{\"value\":{value},\"pad\":\"{pad}\",\"again\":[{value}]}}")
}

/// Returns the value of a document. Panics if the document is not complete.
fn value(body: &[u8]) -> u64 {
    let parsed: Value = serde_json::from_slice(body).expect("the body is JSON");
    let value = parsed["value"].as_u64().expect("the document has a value");
    assert!(
        body == document(value).as_bytes(),
        "expected the complete document {value}"
    );
    value
}

fn tag(response: &Response) -> Option<Tag> {
    let tag = response.header("etag")?;
    let number = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    Some(
        number
            .and_then(|n| n.parse().ok())
            .expect("the ETag is a quoted number"),
    )
}

/// Chooses a random operation and its method, for a namespace whose last known tag is `seen`.
fn choose(random: &mut Random, shared: &SharedState, seen: Tag) -> (Action, &'static str) {
    let condition = match random.below(6) {
        0 | 1 => Condition::Matches(seen),
        2 => Condition::Absent,
        _ => Condition::Always,
    };
    match random.below(20) {
        0..8 => {
            let value = shared.next_value.fetch_add(1, Ordering::Relaxed);
            (Action::Put(value, condition), "PUT")
        }
        8..10 if condition == Condition::Absent => (Action::Delete(Condition::Always), "DELETE"),
        8..10 => (Action::Delete(condition), "DELETE"),
        10..13 => (Action::ReadUnless(seen), "GET"),
        13..15 => (Action::Read, "HEAD"),
        _ => (Action::Read, "GET"),
    }
}

fn request(method: &str, namespace: usize, action: Action, token: &str) -> Request {
    let request = Request::of(method, &client(namespace), token);
    match action {
        Action::Read => request,
        Action::ReadUnless(tag) => request.header("If-None-Match", &format!("\"{tag}\"")),
        Action::Put(value, condition) => {
            conditional(request, condition).body(document(value).as_bytes())
        }
        Action::Delete(condition) => conditional(request, condition),
    }
}

fn conditional(request: Request, condition: Condition) -> Request {
    match condition {
        Condition::Always => request,
        Condition::Matches(tag) => request.header("If-Match", &format!("\"{tag}\"")),
        Condition::Absent => request.header("If-None-Match", "*"),
    }
}

/// Returns the outcome that a response reports. A server that shuts down may respond with 503,
/// which leaves the outcome unknown.
fn outcome(action: Action, method: &str, response: &Response, end: Option<End>) -> Outcome {
    let tag = tag(response);
    match (response.status, action) {
        (200, Action::Read | Action::ReadUnless(_)) => match tag {
            Some(tag) if method == "HEAD" => Outcome::Found(tag, None),
            Some(tag) => Outcome::Found(tag, Some(value(&response.body))),
            None => Outcome::Nothing,
        },
        (304, Action::ReadUnless(_)) => Outcome::Unchanged(tag.expect("a 304 has an ETag")),
        (204, Action::Put(..)) => Outcome::Done(Some(tag.expect("a 204 to a PUT has an ETag"))),
        (204, Action::Delete(_)) => Outcome::Done(None),
        (412, Action::Put(..) | Action::Delete(_)) => Outcome::Failed(tag),
        (503, _) if end == Some(End::Terminate) => Outcome::Unknown,
        _ => panic!("unexpected response to {action:?}: {response:?}"),
    }
}

/// Sends random requests and records their outcomes until the server is gone.
fn send_requests(
    shared: &SharedState,
    connection: u32,
    mut client: Client,
    random: &mut Random,
    record: &Sender<Recorded>,
) {
    loop {
        let namespace = match random.below(8) {
            0 => HOT + random.below(COLD),
            _ => random.below(HOT),
        } as usize;
        let seen = shared.last_tags[namespace].load(Ordering::Relaxed);
        let (action, method) = choose(random, shared, seen);
        let request = request(method, namespace, action, &shared.tokens[namespace]);
        let called = shared.now();
        let response = client.try_request(&request);
        let returned = shared.now();
        let end = *shared.end.read().expect("the lock is not poisoned");
        let outcome = match &response {
            Ok(response) => outcome(action, method, response, end),
            Err(_) if end.is_some() => Outcome::Unknown,
            Err(error) => panic!("a request failed before the server was stopped: {error}"),
        };
        if let Ok(response) = &response
            && let Some(tag) = tag(response)
        {
            shared.last_tags[namespace].store(tag, Ordering::Relaxed);
        }
        let operation = Operation {
            connection,
            called,
            returned,
            action,
            outcome,
        };
        if record.send((namespace, operation)).is_err() || outcome == Outcome::Unknown {
            return;
        }
    }
}

/// Runs the server once under load. Returns the recorded operations.
fn run_server(
    launch: &Launch,
    shared: &Arc<SharedState>,
    random: &mut Random,
    end: End,
) -> Vec<Recorded> {
    *shared.end.write().expect("the lock is not poisoned") = None;
    let server = launch.start();
    let (record, recorded): (Sender<Recorded>, Receiver<Recorded>) = channel();
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            let (shared, record) = (Arc::clone(shared), record.clone());
            let client = server.connect();
            let mut random = Random::new(random.draw());
            std::thread::spawn(move || {
                send_requests(&shared, connection, client, &mut random, &record);
            })
        })
        .collect();
    drop(record);
    let (least, most) = OPERATIONS;
    let count = least + random.below(most - least);
    let mut operations: Vec<Recorded> = recorded.iter().take(count as usize).collect();
    *shared.end.write().expect("the lock is not poisoned") = Some(end);
    match end {
        End::Kill => server.kill(),
        End::Terminate => assert!(
            server.stop().success(),
            "expected exit code 0 after SIGTERM"
        ),
    }
    operations.extend(recorded);
    for connection in connections {
        connection
            .join()
            .expect("no panic in the thread of a connection");
    }
    operations
}

/// Reads every namespace after all writers have ended, so that the checker notices a lost write.
fn read_all(launch: &Launch, shared: &SharedState) -> Vec<Recorded> {
    let server = launch.start();
    let mut client = server.connect();
    let read = |namespace: usize| {
        let request = request("GET", namespace, Action::Read, &shared.tokens[namespace]);
        let called = shared.now();
        let response = client.request(&request);
        let operation = Operation {
            connection: CONNECTIONS,
            called,
            returned: shared.now(),
            action: Action::Read,
            outcome: outcome(Action::Read, "GET", &response, None),
        };
        (namespace, operation)
    };
    (0..shared.tokens.len()).map(read).collect()
}

/// Runs the test with one seed. Returns how often each kind of outcome was recorded.
fn run_seed(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().expect("a temporary directory can be created");
    // Segments are small, so that every run seals some and compaction moves documents.
    let launch = Launch::new(BINARY, dir.path()).with(&["--segment-bytes", "65536"]);
    let shared = Arc::new(SharedState::new());
    let mut histories = vec![Vec::new(); shared.tokens.len()];
    let mut recorded = Vec::new();
    for end in ENDS {
        recorded.extend(run_server(&launch, &shared, &mut random, end));
    }
    recorded.extend(read_all(&launch, &shared));
    let mut counts = BTreeMap::new();
    for (namespace, operation) in recorded {
        *counts.entry(outcome_kind(&operation)).or_default() += 1;
        histories[namespace].push(operation);
    }
    for (namespace, history) in histories.iter().enumerate() {
        if let Err(violation) = check(history) {
            panic!("seed {seed}, {}: {violation}", client(namespace));
        }
    }
    counts
}

fn outcome_kind(operation: &Operation) -> &'static str {
    match (operation.outcome, operation.action.condition()) {
        (Outcome::Unknown, _) => "unknown",
        (Outcome::Done(Some(_)), Condition::Always) => "put",
        (Outcome::Done(Some(_)), Condition::Matches(_)) => "put with If-Match",
        (Outcome::Done(Some(_)), Condition::Absent) => "put with If-None-Match",
        (Outcome::Done(None), _) => "delete",
        (Outcome::Found(_, Some(value)), _) if value.is_multiple_of(LARGE_EVERY) => "large read",
        (Outcome::Found(..), _) => "read",
        (Outcome::Nothing, _) => "absent",
        (Outcome::Unchanged(_), _) => "unchanged",
        (Outcome::Failed(_), _) => "failed condition",
    }
}

#[test]
fn responses_are_linearizable_across_crashes_and_restarts() {
    for seed in seeds(6) {
        let counts = run_seed(seed);
        // All ten kinds of outcome must occur, or the test proves nothing about the missing ones.
        assert_eq!(counts.len(), 10, "seed {seed}: {counts:?}");
    }
}
