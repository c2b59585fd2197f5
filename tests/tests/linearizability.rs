//! Linearizability over HTTP: what concurrent clients of the real binary see of each
//! namespace, through SIGKILL, SIGTERM and every restart, is what one register shows.
//!
//! A request that was in flight at a kill may have taken effect or not, then or later.
//! The history of a namespace spans all lives, and is judged as a whole.

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
/// Namespaces that most requests go to, and those that the others go to.
const HOT: u64 = 4;
const COLD: u64 = 12;
/// How the lives end, one after the other.
const ENDS: [End; 6] = [
    End::Kill,
    End::Kill,
    End::Kill,
    End::Terminate,
    End::Kill,
    End::Kill,
];
/// Operations of a life, at least and at most.
const OPERATIONS: (u64, u64) = (300, 1_500);
/// One document in so many is past the size that lies in the log.
const LARGE_EVERY: u64 = 40;
const LARGE_BYTES: usize = 300_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// SIGKILL under load.
    Kill,
    /// SIGTERM under load: what is in flight is finished.
    Terminate,
}

/// What the connections share.
struct Shared {
    begin: Instant,
    tokens: Vec<String>,
    /// The next value to put: no value is put twice.
    values: AtomicU64,
    /// The tag that was last seen in each namespace, for conditions: mostly the current
    /// one, sometimes one that is just gone.
    seen: Vec<AtomicU64>,
    /// How this life ends, once it is about to.
    end: RwLock<Option<End>>,
}

/// An operation, and the namespace that it was on.
type Recorded = (usize, Operation);

impl Shared {
    fn new() -> Self {
        let names = 0..HOT + COLD;
        Self {
            begin: Instant::now(),
            tokens: names
                .clone()
                .map(|index| token::of(USER, &client(index as usize)))
                .collect(),
            values: AtomicU64::new(1),
            seen: names.map(|_| AtomicU64::new(0)).collect(),
            end: RwLock::new(None),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).expect("centuries")
    }
}

fn client(namespace: usize) -> String {
    format!("client-{namespace}")
}

/// A document that says in each of its members which one it is.
fn document(value: u64) -> String {
    let pad = if value.is_multiple_of(LARGE_EVERY) {
        LARGE_BYTES
    } else {
        (value % 7) as usize * 100
    };
    let pad = "p".repeat(pad);
    format!("{{\"value\":{value},\"pad\":\"{pad}\",\"again\":[{value}]}}")
}

/// The value of a document, which must be whole.
fn value(body: &[u8]) -> u64 {
    let parsed: Value = serde_json::from_slice(body).expect("JSON");
    let value = parsed["value"].as_u64().expect("a value");
    assert!(body == document(value).as_bytes(), "a mixture: {value}");
    value
}

fn tag(response: &Response) -> Option<Tag> {
    let tag = response.header("etag")?;
    let number = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    Some(number.and_then(|n| n.parse().ok()).expect("a tag"))
}

/// What to ask of a namespace where this tag was seen last.
fn choose(random: &mut Random, shared: &Shared, seen: Tag) -> (Action, &'static str) {
    let condition = match random.below(6) {
        0 | 1 => Condition::Matches(seen),
        2 => Condition::Absent,
        _ => Condition::Always,
    };
    match random.below(20) {
        0..8 => {
            let value = shared.values.fetch_add(1, Ordering::Relaxed);
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

/// What an answer tells. A server that shuts down may refuse, and says nothing then.
fn outcome(action: Action, method: &str, response: &Response, end: Option<End>) -> Outcome {
    let tag = tag(response);
    match (response.status, action) {
        (200, Action::Read | Action::ReadUnless(_)) => match tag {
            Some(tag) if method == "HEAD" => Outcome::Found(tag, None),
            Some(tag) => Outcome::Found(tag, Some(value(&response.body))),
            None => Outcome::Nothing,
        },
        (304, Action::ReadUnless(_)) => Outcome::Unchanged(tag.expect("a tag")),
        (204, Action::Put(..)) => Outcome::Done(Some(tag.expect("a tag"))),
        (204, Action::Delete(_)) => Outcome::Done(None),
        (412, Action::Put(..) | Action::Delete(_)) => Outcome::Failed(tag),
        (503, _) if end == Some(End::Terminate) => Outcome::Unknown,
        _ => panic!("{action:?}: {response:?}"),
    }
}

/// Asks and writes down until the server is gone.
fn converse(
    shared: &Shared,
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
        let seen = shared.seen[namespace].load(Ordering::Relaxed);
        let (action, method) = choose(random, shared, seen);
        let request = request(method, namespace, action, &shared.tokens[namespace]);
        let called = shared.now();
        let answer = client.try_request(&request);
        let returned = shared.now();
        let end = *shared.end.read().expect("no panic");
        let outcome = match &answer {
            Ok(response) => outcome(action, method, response, end),
            Err(_) if end.is_some() => Outcome::Unknown,
            Err(error) => panic!("no answer from a server that is alive: {error}"),
        };
        if let Ok(response) = &answer
            && let Some(tag) = tag(response)
        {
            shared.seen[namespace].store(tag, Ordering::Relaxed);
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

/// One life of the server, and what was recorded in it.
fn live(launch: &Launch, shared: &Arc<Shared>, random: &mut Random, end: End) -> Vec<Recorded> {
    *shared.end.write().expect("no panic") = None;
    let server = launch.start();
    let (record, recorded): (Sender<Recorded>, Receiver<Recorded>) = channel();
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            let (shared, record) = (Arc::clone(shared), record.clone());
            let client = server.connect();
            let mut random = Random::new(random.draw());
            std::thread::spawn(move || {
                converse(&shared, connection, client, &mut random, &record);
            })
        })
        .collect();
    drop(record);
    let (least, most) = OPERATIONS;
    let count = least + random.below(most - least);
    let mut operations: Vec<Recorded> = recorded.iter().take(count as usize).collect();
    *shared.end.write().expect("no panic") = Some(end);
    match end {
        End::Kill => server.kill(),
        End::Terminate => assert!(server.stop().success(), "a clean end"),
    }
    operations.extend(recorded);
    for connection in connections {
        connection.join().expect("a connection's thread");
    }
    operations
}

/// Reads every namespace once nobody writes: what was acknowledged last must be there.
fn read_all(launch: &Launch, shared: &Shared) -> Vec<Recorded> {
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

/// All of it, for one seed; how often each sort of outcome was seen.
fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().expect("a directory");
    // Segments so short that each life seals some, and compaction moves what is read.
    let launch = Launch::new(BINARY, dir.path()).with(&["--segment-bytes", "65536"]);
    let shared = Arc::new(Shared::new());
    let mut histories = vec![Vec::new(); shared.tokens.len()];
    let mut recorded = Vec::new();
    for end in ENDS {
        recorded.extend(live(&launch, &shared, &mut random, end));
    }
    recorded.extend(read_all(&launch, &shared));
    let mut counts = BTreeMap::new();
    for (namespace, operation) in recorded {
        *counts.entry(sort(&operation)).or_default() += 1;
        histories[namespace].push(operation);
    }
    for (namespace, history) in histories.iter().enumerate() {
        if let Err(violation) = check(history) {
            panic!("seed {seed}, {}: {violation}", client(namespace));
        }
    }
    counts
}

fn sort(operation: &Operation) -> &'static str {
    match (operation.outcome, operation.action.condition()) {
        (Outcome::Unknown, _) => "unknown",
        (Outcome::Done(Some(_)), Condition::Always) => "put",
        (Outcome::Done(Some(_)), Condition::Matches(_)) => "put where it matches",
        (Outcome::Done(Some(_)), Condition::Absent) => "put where nothing is",
        (Outcome::Done(None), _) => "delete",
        (Outcome::Found(_, Some(value)), _) if value.is_multiple_of(LARGE_EVERY) => "large read",
        (Outcome::Found(..), _) => "read",
        (Outcome::Nothing, _) => "nothing there",
        (Outcome::Unchanged(_), _) => "unchanged",
        (Outcome::Failed(_), _) => "failed condition",
    }
}

#[test]
fn what_clients_see_through_every_crash_is_one_register() {
    for seed in seeds(6) {
        let counts = run(seed);
        // It proves nothing of what did not happen.
        assert_eq!(counts.len(), 10, "seed {seed}: {counts:?}");
    }
}
