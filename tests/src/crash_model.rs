//! What a namespace may hold after a crash: its last acknowledged write, or one that
//! was attempted since, whole.
//!
//! Each namespace has one writer at a time, so its writes are in one order. Documents
//! say in each of their values which write they are.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use prefd_engine::{Config, Engine, UserUsage};
use serde_json::Value;

use crate::http::{Client, Request};
use crate::token;

/// The stamp of a namespace that holds nothing.
pub const EMPTY: u64 = 0;

/// A user and a client.
pub type Name = (String, String);

/// The writes to all namespaces.
#[derive(Debug)]
pub struct Model {
    histories: Mutex<Histories>,
    next_stamp: AtomicU64,
}

/// The writes at a moment.
pub type Histories = BTreeMap<Name, History>;

/// The writes to one namespace, by their stamps.
#[derive(Debug, Clone)]
pub struct History {
    written: Vec<u64>,
    /// Which of them was the last to be acknowledged.
    acknowledged: usize,
}

/// What each namespace may hold.
pub type Allowed = BTreeMap<Name, Vec<u64>>;

/// What each namespace holds.
pub type Found = BTreeMap<Name, u64>;

impl Default for History {
    fn default() -> Self {
        Self::of(EMPTY)
    }
}

impl History {
    fn of(stamp: u64) -> Self {
        Self {
            written: vec![stamp],
            acknowledged: 0,
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        Self {
            histories: Mutex::default(),
            next_stamp: AtomicU64::new(EMPTY + 1),
        }
    }
}

impl Model {
    /// Writes attempted so far.
    pub fn attempts(&self) -> u64 {
        self.next_stamp.load(Ordering::Relaxed) - 1
    }

    /// Puts the next document, or deletes, over HTTP, and records how that went. The
    /// status is 204; or 501, after which the write may be there; or 507, after which
    /// it must not.
    ///
    /// # Errors
    /// Where the server is gone: the write may be there.
    pub fn write(&self, connection: &mut Client, name: &Name, is_delete: bool) -> io::Result<u16> {
        let stamp = self.next_stamp.fetch_add(1, Ordering::Relaxed);
        let (user, client) = name;
        let token = token::of(user, client);
        let request = if is_delete {
            Request::of("DELETE", client, &token)
        } else {
            Request::of("PUT", client, &token).body(document(stamp))
        };
        self.change(name, |history| {
            history.written.push(if is_delete { EMPTY } else { stamp });
        });
        let response = connection.try_request(&request)?;
        self.change(name, |history| match response.status {
            204 => history.acknowledged = history.written.len() - 1,
            507 => drop(history.written.pop()),
            501 => {}
            _ => panic!("{name:?}: {response:?}"),
        });
        Ok(response.status)
    }

    fn change(&self, name: &Name, change: impl FnOnce(&mut History)) {
        change(
            self.histories
                .lock()
                .unwrap()
                .entry(name.clone())
                .or_default(),
        );
    }

    /// Reads every namespace over HTTP: it must hold the last acknowledged write.
    pub fn check_reads(&self, connection: &mut Client, context: &str) {
        for (name, history) in self.histories() {
            let (user, client) = &name;
            let request = Request::of("GET", client, &token::of(user, client));
            let response = connection.request(&request);
            assert_eq!(response.status, 200, "{context}: {name:?}: {response:?}");
            let expected = history.written[history.acknowledged];
            assert_eq!(stamp(&response.body), expected, "{context}: {name:?}");
        }
    }

    /// The writes so far.
    pub fn histories(&self) -> Histories {
        self.histories.lock().unwrap().clone()
    }

    /// What may be found, now that nothing writes.
    pub fn allowed(&self) -> Allowed {
        let now = self.histories();
        allowed_between(&now, &now)
    }

    /// From here on, what was found is what is known to be there.
    pub fn settle(&self, found: Found) {
        let histories = found.into_iter().map(|(name, at)| (name, History::of(at)));
        *self.histories.lock().unwrap() = histories.collect();
    }
}

/// What may be found by whoever looked at some moment between these two.
pub fn allowed_between(before: &Histories, after: &Histories) -> Allowed {
    after
        .iter()
        .map(|(name, history)| {
            let from = before.get(name).map_or(0, |before| before.acknowledged);
            (name.clone(), history.written[from..].to_vec())
        })
        .collect()
}

/// A document that says in each of its values which write it is.
pub fn document(stamp: u64) -> String {
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
pub fn stamp(body: &[u8]) -> u64 {
    if body == b"{}" {
        return EMPTY;
    }
    let value: Value = serde_json::from_slice(body).expect("JSON");
    let stamp = value["stamp"].as_u64().expect("a stamp");
    assert!(body == document(stamp).as_bytes(), "a mixture: {value}");
    stamp
}

/// How many namespaces have lost what was acknowledged, where that is expected: the
/// control of a test. All of them, where the directory does not open.
pub fn count_lost(dir: &Path, allowed: &Allowed) -> usize {
    let Ok(engine) = Engine::open(Config::new(dir)) else {
        return allowed.len();
    };
    let is_kept = |name: &Name, allowed: &[u64]| {
        let namespace = engine.namespace(&name.0, &name.1).unwrap();
        let body = match namespace.get() {
            Ok(Some(document)) => document.read(),
            Ok(None) => Ok(b"{}".to_vec()),
            Err(error) => Err(error),
        };
        body.is_ok_and(|body| allowed.contains(&stamp(&body)))
    };
    let lost = allowed
        .iter()
        .filter(|(name, allowed)| !is_kept(name, allowed));
    lost.count()
}

/// Opens the directory as an embedder would, and checks documents, listing and usage.
/// What a crash leaves is nothing that `prefd verify` finds wrong.
pub fn check(dir: &Path, allowed: &Allowed, context: &str) -> Found {
    let config = Config::new(dir);
    let verified = prefd_engine::verify(&config, &mut |_| {})
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(verified.problems.is_empty(), "{context}: {verified:?}");
    let engine = Engine::open(config).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = documents(&engine, allowed, context);
    for (name, (stamp, _)) in &found {
        let allowed = &allowed[name];
        assert!(
            allowed.contains(stamp),
            "{context}: {name:?} holds {stamp}, allowed is {allowed:?}"
        );
    }
    check_listings(&engine, &found, context);
    engine.close().unwrap();
    let stamps = found.into_iter().map(|(name, (stamp, _))| (name, stamp));
    stamps.collect()
}

/// The stamp and the length of each namespace's document.
fn documents(engine: &Engine, of: &Allowed, context: &str) -> BTreeMap<Name, (u64, u64)> {
    of.keys()
        .map(|name| {
            let namespace = engine.namespace(&name.0, &name.1).unwrap();
            let found = namespace
                .get()
                .unwrap_or_else(|error| panic!("{context}: {name:?}: {error}"));
            let body = found.map_or(b"{}".to_vec(), |document| document.read().unwrap());
            (name.clone(), (stamp(&body), body.len() as u64))
        })
        .collect()
}

fn check_listings(engine: &Engine, found: &BTreeMap<Name, (u64, u64)>, context: &str) {
    let mut expected: BTreeMap<&str, BTreeMap<String, (u64, u64)>> = BTreeMap::new();
    for ((user, client), (stamp, bytes)) in found {
        let clients = expected.entry(user).or_default();
        if *stamp != EMPTY {
            clients.insert(client.clone(), (4, *bytes));
        }
    }
    for (user, clients) in &expected {
        let listed: BTreeMap<String, (u64, u64)> = engine
            .list(user, None, usize::MAX)
            .unwrap_or_else(|error| panic!("{context}: {error}"))
            .into_iter()
            .map(|entry| {
                let usage = entry.stat.usage;
                (entry.client, (u64::from(usage.keys), usage.bytes))
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
}
