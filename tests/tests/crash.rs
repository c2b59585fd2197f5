//! SIGKILL, again and again, under load: every open succeeds, and what was
//! acknowledged is there, or what was attempted after it, whole.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::BINARY;
use prefd_engine::{Config, Engine, UserUsage};
use prefd_tests::http::{Client, Request};
use prefd_tests::random::Random;
use prefd_tests::server::Launch;
use prefd_tests::token;
use serde_json::Value;

const CONNECTIONS: u64 = 64;
const USERS: u64 = 8;
const CLIENTS_PER_CONNECTION: u64 = 3;

/// How many lives: `PREFD_TEST_KILLS`, or 25.
fn lives() -> u64 {
    std::env::var("PREFD_TEST_KILLS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(25)
}

/// A namespace's last acknowledged write, and those attempted since, by their stamps;
/// stamp 0 is the empty namespace.
#[derive(Debug, Default, Clone)]
struct Allowed {
    acknowledged: u64,
    attempted: Vec<u64>,
}

type Model = BTreeMap<(String, String), Allowed>;

/// A document that says in each of its values which write it is.
fn document(stamp: u64) -> String {
    let pad = "p".repeat(usize::try_from(stamp % 5).unwrap() * 300);
    // Now and then one that goes to a file of its own.
    let large = if stamp.is_multiple_of(97) {
        "l".repeat(300_000)
    } else {
        String::new()
    };
    format!(
        "{{\"stamp\":{stamp},\"pad\":\"{stamp}-{pad}\",\"large\":\"{stamp}-{large}\",\"again\":[{stamp}]}}"
    )
}

/// The stamp of a document, which must be whole.
fn stamp(body: &[u8]) -> u64 {
    if body == b"{}" {
        return 0;
    }
    let value: Value = serde_json::from_slice(body).expect("JSON");
    let stamp = value["stamp"].as_u64().expect("a stamp");
    assert!(body == document(stamp).as_bytes(), "a mixture: {value}");
    stamp
}

/// Writes to namespaces of its own until the server is gone.
fn write(
    client: &mut Client,
    random: &mut Random,
    connection: u64,
    stamps: &AtomicU64,
    model: &Mutex<Model>,
) {
    loop {
        let user = format!("user-{}", connection % USERS);
        let name = format!(
            "client-{connection}-{}",
            random.below(CLIENTS_PER_CONNECTION)
        );
        let stamp = stamps.fetch_add(1, Ordering::Relaxed);
        let is_delete = random.below(8) == 0;
        let attempted = if is_delete { 0 } else { stamp };
        let key = (user.clone(), name.clone());
        model
            .lock()
            .unwrap()
            .entry(key.clone())
            .or_default()
            .attempted
            .push(attempted);
        let token = token::of(&user, &name);
        let request = if is_delete {
            Request::of("DELETE", &name, &token)
        } else {
            Request::of("PUT", &name, &token).body(document(stamp))
        };
        match client.try_request(&request) {
            Ok(response) => {
                assert_eq!(response.status, 204, "{response:?}");
                let allowed = Allowed {
                    acknowledged: attempted,
                    attempted: Vec::new(),
                };
                model.lock().unwrap().insert(key, allowed);
            }
            Err(_) => return,
        }
    }
}

/// Opens the directory as an embedder would, and checks documents, listing and usage.
fn verify(dir: &Path, model: &mut Model, context: &str) {
    let engine =
        Engine::open(Config::new(dir)).unwrap_or_else(|error| panic!("{context}: {error}"));
    let mut expected: BTreeMap<String, BTreeMap<String, (u64, u64)>> = BTreeMap::new();
    for ((user, client), allowed) in model.iter_mut() {
        let namespace = engine.namespace(user, client).unwrap();
        let found = namespace
            .get()
            .unwrap_or_else(|error| panic!("{context}: {user} {client}: {error}"));
        let body = found
            .as_ref()
            .map_or(b"{}".to_vec(), |document| document.read().unwrap());
        let found = stamp(&body);
        assert!(
            found == allowed.acknowledged || allowed.attempted.contains(&found),
            "{context}: {user} {client} holds {found}, allowed is {allowed:?}"
        );
        *allowed = Allowed {
            acknowledged: found,
            attempted: Vec::new(),
        };
        let clients = expected.entry(user.clone()).or_default();
        if found != 0 {
            clients.insert(client.clone(), (4, body.len() as u64));
        }
    }
    for (user, clients) in &expected {
        let listed: BTreeMap<String, (u64, u64)> = engine
            .list(user, None, usize::MAX)
            .unwrap_or_else(|error| panic!("{context}: {error}"))
            .into_iter()
            .map(|entry| {
                (
                    entry.client,
                    (u64::from(entry.stat.usage.keys), entry.stat.usage.bytes),
                )
            })
            .collect();
        assert_eq!(listed, *clients, "{context}: {user}");
        let sum = UserUsage {
            namespaces: clients.len() as u64,
            keys: clients.values().map(|(keys, _)| keys).sum(),
            bytes: clients.values().map(|(_, bytes)| bytes).sum(),
        };
        assert_eq!(engine.usage(user).unwrap(), sum, "{context}: {user}");
    }
    engine.close().unwrap();
}

fn kill_under_load(without_catalogue: bool) {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(BINARY, dir.path());
    let model = Arc::new(Mutex::new(Model::new()));
    let stamps = Arc::new(AtomicU64::new(1));
    for life in 0..lives() {
        let context = format!("life {life}");
        let server = launch.start();
        let attempted_before = stamps.load(Ordering::Relaxed);
        let writers: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let (model, stamps) = (Arc::clone(&model), Arc::clone(&stamps));
                let mut client = server.connect();
                let mut random = Random::new(life * CONNECTIONS + connection);
                std::thread::spawn(move || {
                    write(&mut client, &mut random, connection, &stamps, &model);
                })
            })
            .collect();
        // The kill comes at another point of the load in each life.
        let until = attempted_before + CONNECTIONS + Random::new(life).below(3_000);
        while stamps.load(Ordering::Relaxed) < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        server.kill();
        for writer in writers {
            writer.join().unwrap();
        }
        if without_catalogue {
            std::fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
        }
        if life % 2 == 0 {
            verify(dir.path(), &mut model.lock().unwrap(), &context);
        } else {
            // The next life of the server opens what this one left, unseen by us.
            launch.start().kill();
            verify(dir.path(), &mut model.lock().unwrap(), &context);
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_sigkill() {
    kill_under_load(false);
}

#[test]
fn nor_where_the_catalogue_is_deleted_between_the_lives() {
    kill_under_load(true);
}
