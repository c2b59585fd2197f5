//! The oracle for sequences of engine operations, compared with a simple model:
//!
//! - Every kind of read returns the last acknowledged write.
//! - A write succeeds if and only if its precondition holds.
//! - After a crash, the complete store has the contents of some moment since the last sync.

use std::collections::BTreeMap;

use arbitrary::Unstructured;
use prefd_engine::{
    Change, Durability, Engine, Error, Precondition, Revision, Revisions, UserUsage, WriteOptions,
};

use crate::oracle::{Choices, choices};
use crate::sim_disk::Unsynced;
use crate::sim_store::{Store, body};

/// Maximum number of operations in an input.
const OPERATIONS: usize = 60;
/// The namespaces, as (user, client). There are few of them, so that documents are overwritten.
const NAMES: [(&str, &str); 5] = [("u", "a"), ("u", "b"), ("u", "é"), ("v", "a"), ("uv", "a")];
/// Body lengths close to the inline size, to the size of one write, and to a segment.
const SIZES: [usize; 7] = [10, 10, 300, 1_980, 2_100, 4_000, 70_000];

/// The contents of a store: revision and body, by index into [`NAMES`].
type Contents = BTreeMap<usize, (Revision, String)>;

/// Runs the oracle on an input. Every byte of it is a choice.
pub fn run(input: &[u8]) {
    let (first, mut choices) =
        choices(input).unwrap_or((0, Unstructured::new(input.get(1..).unwrap_or_default())));
    // Opening sled lasts milliseconds, so only one in eight values of the first byte enables the
    // catalogue and the listings.
    let mut store = ModelledStore::new(first == 1);
    for _ in 0..OPERATIONS {
        if choices.is_empty() {
            break;
        }
        store.step(&mut choices);
    }
    store.check();
}

/// An engine with its store, and the model of its contents.
struct ModelledStore {
    has_catalogue: bool,
    store: Store,
    engine: Engine,
    now: Contents,
    /// Contents after each write since the last sync, up to `now`. After a crash, the store may
    /// have any of them.
    since_sync: Vec<Contents>,
    newest: u64,
    stamp: u64,
}

impl ModelledStore {
    fn new(has_catalogue: bool) -> Self {
        let store = Store::new();
        let engine = open(&store, has_catalogue);
        Self {
            has_catalogue,
            store,
            engine,
            now: Contents::new(),
            since_sync: vec![Contents::new()],
            newest: 0,
            stamp: 0,
        }
    }

    /// Executes one operation. Operations such as `compact` must not change the contents, which a
    /// later `check` verifies.
    fn step(&mut self, choices: &mut Unstructured<'_>) {
        match choices.upto(16) {
            0..=6 => self.put(choices),
            7..=8 => self.delete(choices),
            9..=11 => self.read(choices.upto(NAMES.len() - 1)),
            12 => self.check_listings(choices),
            13 => self.reopen(),
            14 => self.crash(choices),
            15 => self.engine.compact().unwrap(),
            _ => self.check(),
        }
    }

    fn put(&mut self, choices: &mut Unstructured<'_>) {
        let index = choices.upto(NAMES.len() - 1);
        self.stamp += 1;
        let text = if choices.rarely(8) {
            "{}".to_owned()
        } else {
            body(self.stamp, *choices.one(&SIZES))
        };
        let (options, holds) = self.options(choices, index);
        let durability = options.durability;
        let outcome = namespace(&self.engine, index).write(text.as_bytes(), options);
        match (outcome, holds) {
            (Ok(revision), true) => {
                let revision = revision.expect("a put returns a revision");
                assert!(
                    revision.get() > self.newest,
                    "expected a higher revision than all earlier ones, got {revision}"
                );
                self.newest = revision.get();
                self.now.insert(index, (revision, text));
                self.record_write(durability);
            }
            (outcome, holds) => self.expect_precondition_failed(index, holds, outcome.map(drop)),
        }
    }

    fn delete(&mut self, choices: &mut Unstructured<'_>) {
        let index = choices.upto(NAMES.len() - 1);
        let (options, holds) = self.options(choices, index);
        let durability = options.durability;
        match (
            namespace(&self.engine, index).write(Change::Delete, options),
            holds,
        ) {
            (Ok(revision), true) => {
                assert_eq!(revision, None);
                self.now.remove(&index);
                self.record_write(durability);
            }
            (outcome, holds) => self.expect_precondition_failed(index, holds, outcome.map(drop)),
        }
    }

    /// Chooses the options of a write. Returns them, and true if the precondition holds.
    fn options(&self, choices: &mut Unstructured<'_>, index: usize) -> (WriteOptions, bool) {
        let current = self.now.get(&index).map(|(revision, _)| *revision);
        let stale = Revision::new(choices.upto(3) as u64);
        let is_stale = current == Some(stale);
        let not_these = |revisions| Precondition {
            must_match: None,
            must_not_match: Some(revisions),
        };
        let (precondition, holds) = match choices.upto(7) {
            0 => (Precondition::absent(), current.is_none()),
            1 => (Precondition::matches(stale), is_stale),
            2 => match current {
                Some(current) => (Precondition::matches(current), true),
                None => (Precondition::absent(), true),
            },
            3 => (not_these(Revisions::OneOf(vec![stale])), !is_stale),
            _ => (Precondition::none(), true),
        };
        let durability = *choices.one(&[Durability::Sync, Durability::Sync, Durability::Buffered]);
        let options = WriteOptions {
            precondition,
            durability: Some(durability),
            ..WriteOptions::default()
        };
        (options, holds)
    }

    fn record_write(&mut self, durability: Option<Durability>) {
        if durability != Some(Durability::Buffered) {
            self.since_sync.clear();
        }
        self.since_sync.push(self.now.clone());
    }

    fn expect_precondition_failed(&self, index: usize, holds: bool, outcome: Result<(), Error>) {
        let expected = self.now.get(&index).map(|(revision, _)| *revision);
        match outcome {
            Err(Error::PreconditionFailed { current }) if !holds => assert_eq!(current, expected),
            other => panic!("unexpected outcome {other:?}. The precondition holds: {holds}"),
        }
    }

    /// Reads a namespace with every kind of read.
    fn read(&self, index: usize) {
        let namespace = namespace(&self.engine, index);
        let expected = self.now.get(&index);
        let revision = expected.map(|(revision, _)| *revision);
        let bytes = expected.map_or(0, |(_, text)| text.len() as u64);
        assert_eq!(namespace.revision().unwrap(), revision);
        let stat = namespace.stat().unwrap();
        assert_eq!(stat.map(|stat| stat.revision), revision);
        assert_eq!(namespace.usage().unwrap().bytes, bytes);
        let document = namespace.get().unwrap();
        assert_eq!(document.as_ref().map(|d| *d.stat()), stat);
        let text = document.map(|d| String::from_utf8(d.read().unwrap()).unwrap());
        let expected = expected.map(|(_, text)| text);
        assert!(text.as_ref() == expected, "{index}: {}", shown(text));
    }

    /// Reads all namespaces.
    fn check(&self) {
        for index in 0..NAMES.len() {
            self.read(index);
        }
        assert_eq!(self.engine.documents(), self.now.len() as u64);
    }

    fn check_listings(&self, choices: &mut Unstructured<'_>) {
        if !self.has_catalogue {
            return;
        }
        let (user, after) = *choices.one(&NAMES);
        let limit = choices.upto(4);
        let of = |user: &str| {
            let own = self
                .now
                .iter()
                .filter(|(index, _)| NAMES[**index].0 == user);
            let mut own: Vec<_> = own
                .map(|(index, (r, text))| (NAMES[*index].1, *r, text))
                .collect();
            own.sort_unstable_by_key(|(client, ..)| *client);
            own
        };
        let expected = of(user).into_iter().filter(|(client, ..)| *client > after);
        let expected: Vec<_> = expected
            .take(limit)
            .map(|(client, revision, text)| (client.to_owned(), revision, text.len() as u64))
            .collect();
        let listed = self.engine.list(user, Some(after), limit).unwrap();
        let listed = listed
            .into_iter()
            .map(|e| (e.client, e.stat.revision, e.stat.usage.bytes));
        assert_eq!(listed.collect::<Vec<_>>(), expected);
        let keys = |text: &str| if text == "{}" { 0 } else { 3 };
        let usage = UserUsage {
            namespaces: of(user).len() as u64,
            keys: of(user).iter().map(|(_, _, text)| keys(text)).sum(),
            bytes: of(user).iter().map(|(_, _, text)| text.len() as u64).sum(),
        };
        assert_eq!(self.engine.usage(user).unwrap(), usage);
    }

    fn reopen(&mut self) {
        self.engine.close().unwrap();
        self.engine = open(&self.store, self.has_catalogue);
        self.since_sync = vec![self.now.clone()];
    }

    /// Crashes the store and opens it again. Panics if its contents are not those of a moment since
    /// the last sync.
    fn crash(&mut self, choices: &mut Unstructured<'_>) {
        let unsynced = match choices.upto(2) {
            0 => Unsynced::Lost,
            1 => Unsynced::Kept,
            _ => Unsynced::Some {
                seed: choices.upto(usize::from(u16::MAX)) as u64,
            },
        };
        let store = self.store.crashed(unsynced);
        let engine = open(&store, self.has_catalogue);
        self.engine = engine;
        self.store = store;
        let found: Contents = (0..NAMES.len())
            .filter_map(|index| {
                let document = namespace(&self.engine, index).get().unwrap()?;
                let text = String::from_utf8(document.read().unwrap()).unwrap();
                Some((index, (document.stat().revision, text)))
            })
            .collect();
        assert!(
            self.since_sync.contains(&found),
            "after a crash with {unsynced:?}, the contents match no moment since the last sync: {:?}",
            found.keys()
        );
        self.now = found;
        self.since_sync = vec![self.now.clone()];
    }
}

fn open(store: &Store, has_catalogue: bool) -> Engine {
    let mut config = store.config();
    config.catalogue = has_catalogue;
    Engine::open(config).unwrap()
}

fn namespace(engine: &Engine, index: usize) -> prefd_engine::Namespace {
    let (user, client) = NAMES[index];
    engine.namespace(user, client).unwrap()
}

fn shown(text: Option<String>) -> String {
    text.map_or("nothing".to_owned(), |text| text.chars().take(60).collect())
}
