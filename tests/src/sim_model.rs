//! What a store may hold after a crash: for each namespace the last write that was
//! acknowledged as durable, or a later one that was attempted, whole.
//!
//! And a workload that keeps to it: small and large documents, deletes, preconditions,
//! writes that wait for no sync, compaction.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prefd_engine::{Change, Durability, Engine, Error, Precondition, Revision, WriteOptions};

use crate::random::Random;
use crate::sim_disk::{SimDisk, Unsynced};
use crate::sim_store::body;

/// A document as it was written, and the revision that it then has; `None` where the
/// namespace is empty.
type Content = Option<(String, Option<Revision>)>;

/// What a namespace may hold.
#[derive(Default, Clone, Debug)]
struct Allowed {
    /// The last write that was acknowledged as durable.
    durable: Content,
    /// Those attempted since, in their order.
    attempted: Vec<Content>,
    /// What a read sees: the last write that was acknowledged.
    visible: Content,
}

/// What a whole store may hold.
#[derive(Default, Clone)]
pub struct Model {
    namespaces: BTreeMap<String, Allowed>,
    stamp: u64,
    /// The highest revision that was ever seen.
    highest: Option<Revision>,
}

/// How many clients of the user `u` the workload writes to.
const CLIENTS: u64 = 6;

impl Model {
    /// Replaces a document (with one that says which write it is, padded to so many
    /// bytes) or deletes it, and keeps count.
    pub fn write(
        &mut self,
        engine: &Engine,
        client: &str,
        pad_bytes: Option<usize>,
        options: WriteOptions,
    ) -> Result<(), Error> {
        self.stamp += 1;
        let text = pad_bytes.map(|bytes| body(self.stamp, bytes));
        let namespace = engine.namespace("u", client)?;
        let is_sync = options.durability != Some(Durability::Buffered);
        let allowed = self.namespaces.entry(client.to_owned()).or_default();
        allowed
            .attempted
            .push(text.clone().map(|text| (text, None)));
        let change = text
            .as_ref()
            .map_or(Change::Delete, |text| text.as_bytes().into());
        match namespace.write(change, options) {
            Ok(revision) => {
                if let Some(revision) = revision {
                    assert!(Some(revision) > self.highest, "a revision was used twice");
                    self.highest = Some(revision);
                }
                allowed.visible = text.map(|text| (text, revision));
                if let Some(last) = allowed.attempted.last_mut() {
                    last.clone_from(&allowed.visible);
                }
                if is_sync {
                    // With it, everything before it is durable.
                    for allowed in self.namespaces.values_mut() {
                        allowed.settle();
                    }
                }
                Ok(())
            }
            Err(error) => {
                // Only a poisoned store may have what it did not acknowledge.
                if !matches!(error, Error::Poisoned { .. }) {
                    allowed.attempted.pop();
                }
                Err(error)
            }
        }
    }

    /// Writes until the disk fails.
    pub fn work(&mut self, engine: &Engine, random: &mut Random) -> Result<(), Error> {
        for _ in 0..40 {
            if random.below(20) == 0 {
                engine.compact()?;
            }
            let client = format!("c{}", random.below(CLIENTS));
            let pad_bytes = [10, 10, 600, 1_900, 1_900, 4_000, 70_000][random.below(7) as usize];
            let precondition = match random.below(4) {
                0 => Precondition::absent(),
                1 => engine
                    .namespace("u", &client)?
                    .revision()?
                    .map_or(Precondition::none(), Precondition::matches),
                _ => Precondition::none(),
            };
            let options = WriteOptions {
                precondition,
                durability: (random.below(6) == 0).then_some(Durability::Buffered),
                ..WriteOptions::default()
            };
            let pad_bytes = (random.below(5) > 0).then_some(pad_bytes);
            match self.write(engine, &client, pad_bytes, options) {
                Ok(()) | Err(Error::PreconditionFailed { .. }) => {}
                Err(error) => return Err(error),
            }
            if random.below(4) == 0 {
                self.check_reads(engine, "while it writes")?;
            }
        }
        Ok(())
    }

    /// Every namespace holds the last write that was acknowledged.
    fn check_reads(&self, engine: &Engine, context: &str) -> Result<(), Error> {
        for (client, allowed) in &self.namespaces {
            let found = content(engine, client)?;
            assert_eq!(
                brief(&found),
                brief(&allowed.visible),
                "{context}: {client}"
            );
            assert_eq!(found, allowed.visible, "{context}: {client}");
        }
        Ok(())
    }

    /// Checks a store that was opened after a crash, and takes what it holds for what it
    /// must hold from now on. `lists`: it has a catalogue.
    pub fn verify(&mut self, engine: &Engine, lists: bool, context: &str) {
        for (client, allowed) in &mut self.namespaces {
            let found = content(engine, client)
                .unwrap_or_else(|error| panic!("{context}: {client}: {error}"));
            let allows = |content: &Content| match (content, &found) {
                (Some((text, revision)), Some((found, found_revision))) => {
                    text == found && (revision.is_none() || revision == found_revision)
                }
                (content, found) => content.is_none() && found.is_none(),
            };
            assert!(
                allows(&allowed.durable) || allowed.attempted.iter().any(allows),
                "{context}: {client} holds {:?}, allowed is {:?} or one of {:?}",
                brief(&found),
                brief(&allowed.durable),
                allowed.attempted.iter().map(brief).collect::<Vec<_>>(),
            );
            self.highest = self
                .highest
                .max(found.as_ref().and_then(|(_, revision)| *revision));
            allowed.visible.clone_from(&found);
            allowed.settle();
        }
        let listed = match engine.list("u", None, usize::MAX) {
            Err(Error::CatalogueUnavailable { .. }) if !lists => return,
            listed => listed.unwrap_or_else(|error| panic!("{context}: {error}")),
        };
        let listed: Vec<(String, u64)> = listed
            .into_iter()
            .map(|entry| (entry.client, entry.stat.usage.bytes))
            .collect();
        let expected: Vec<(String, u64)> = self
            .namespaces
            .iter()
            .filter_map(|(client, allowed)| {
                Some((client.clone(), allowed.visible.as_ref()?.0.len() as u64))
            })
            .collect();
        assert_eq!(listed, expected, "{context}");
    }
}

impl Allowed {
    fn settle(&mut self) {
        self.durable.clone_from(&self.visible);
        self.attempted.clear();
    }
}

fn content(engine: &Engine, client: &str) -> Result<Content, Error> {
    let document = engine.namespace("u", client)?.get()?;
    document
        .map(|document| {
            let text = String::from_utf8(document.read()?).unwrap();
            Ok((text, Some(document.stat().revision)))
        })
        .transpose()
}

fn brief(content: &Content) -> Option<(&str, Option<Revision>)> {
    content
        .as_ref()
        .map(|(text, revision)| (&text[..30.min(text.len())], *revision))
}

/// Fails the `n`th operation alone. Returns the count of operations so far.
pub fn fail_once_at(disk: &SimDisk, n: u64, kind: io::ErrorKind) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    disk.set_fault(Box::new(move |_, _| {
        (counted.fetch_add(1, Ordering::Relaxed) == n).then_some(kind)
    }));
    count
}

/// What a crash makes of that which was not synced: first all lost, then all kept, and
/// then as the seed picks.
pub fn unsynced(seed: u64) -> Unsynced {
    match seed {
        0 => Unsynced::Lost,
        1 => Unsynced::Kept,
        seed => Unsynced::Some { seed },
    }
}
