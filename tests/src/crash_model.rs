//! A model of the documents that a namespace may hold after a crash: the last acknowledged
//! write, or a complete write that was attempted later.
//!
//! Each namespace has one writer at a time, so its writes have a total order. Every write has a
//! number, the stamp, which is in each value of the document.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use prefd_engine::{Config, Engine, UserUsage};
use serde_json::Value;

use crate::http::{Client, Request};
use crate::token;

/// The stamp of an empty namespace.
pub const EMPTY: u64 = 0;

/// The user and the client of a namespace.
pub type Name = (String, String);

/// Records the writes to all namespaces.
#[derive(Debug)]
pub struct CrashModel {
    histories: Mutex<Histories>,
    next_stamp: AtomicU64,
}

/// The writes to each namespace up to some moment.
pub type Histories = BTreeMap<Name, History>;

/// The stamps of the writes to one namespace, in order.
#[derive(Debug, Clone)]
pub struct History {
    written: Vec<u64>,
    /// Index of the last acknowledged write in `written`.
    acknowledged: usize,
}

/// The stamps that each namespace may hold.
pub type Allowed = BTreeMap<Name, Vec<u64>>;

/// The stamp that each namespace holds.
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

impl Default for CrashModel {
    fn default() -> Self {
        Self {
            histories: Mutex::default(),
            next_stamp: AtomicU64::new(EMPTY + 1),
        }
    }
}

impl CrashModel {
    /// Number of writes attempted so far.
    pub fn attempts(&self) -> u64 {
        self.next_stamp.load(Ordering::Relaxed) - 1
    }

    /// Puts a new document or deletes the document over HTTP, records the outcome, and returns
    /// the status.
    ///
    /// The status is 204, 501 or 507. After 501 the write may or may not have taken effect. After
    /// 507 the write must not have taken effect.
    ///
    /// # Errors
    /// Fails if the connection breaks. The write may or may not have taken effect.
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
            _ => panic!("expected 204, 501 or 507 for {name:?}: {response:?}"),
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

    /// Reads every namespace over HTTP, and expects the last acknowledged write.
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

    /// The writes attempted so far.
    pub fn histories(&self) -> Histories {
        self.histories.lock().unwrap().clone()
    }

    /// The stamps that may be found now. No writer may be active.
    pub fn allowed(&self) -> Allowed {
        let now = self.histories();
        allowed_between(&now, &now)
    }

    /// Makes the stamps that were found the last acknowledged writes.
    pub fn settle(&self, found: Found) {
        let histories = found.into_iter().map(|(name, at)| (name, History::of(at)));
        *self.histories.lock().unwrap() = histories.collect();
    }
}

/// The stamps that a reader may find at any moment between `before` and `after`.
pub fn allowed_between(before: &Histories, after: &Histories) -> Allowed {
    after
        .iter()
        .map(|(name, history)| {
            let from = before.get(name).map_or(0, |before| before.acknowledged);
            (name.clone(), history.written[from..].to_vec())
        })
        .collect()
}

/// Creates a document with the stamp in each value.
pub fn document(stamp: u64) -> String {
    let pad = "p".repeat(usize::try_from(stamp % 5).unwrap() * 300);
    // Some documents are large enough to be stored in a blob.
    let large = if stamp.is_multiple_of(97) {
        "l".repeat(300_000)
    } else {
        String::new()
    };
    format!(
        "{{\"stamp\":{stamp},\"pad\":\"{stamp}-{pad}\",\"large\":\"{stamp}-{large}\",\"again\":[{stamp}]}}"
    )
}

/// Returns the stamp of a document. Panics if the document is not exactly one write.
pub fn stamp(body: &[u8]) -> u64 {
    if body == b"{}" {
        return EMPTY;
    }
    let value: Value = serde_json::from_slice(body).expect("a stored document is JSON");
    let stamp = value["stamp"]
        .as_u64()
        .expect("a stored document has a stamp");
    assert!(
        body == document(stamp).as_bytes(),
        "the document mixes two writes: {value}"
    );
    stamp
}

/// Counts the namespaces that have lost an acknowledged write. Control experiments, which expect
/// losses, use this. If the directory does not open, all namespaces count.
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

/// Opens the directory with the engine, and checks documents, listings and usage. `verify` must
/// find no problems in a directory that a crash has left behind.
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
            "{context}: {name:?} holds write {stamp}, expected one of {allowed:?}"
        );
    }
    check_listings(&engine, &found, context);
    engine.close().unwrap();
    let stamps = found.into_iter().map(|(name, (stamp, _))| (name, stamp));
    stamps.collect()
}

/// Returns the stamp and the length of the document in each namespace.
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
