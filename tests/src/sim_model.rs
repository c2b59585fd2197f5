//! A model of the contents that a store may have after a crash. Each namespace holds the last
//! write that was acknowledged as durable, or a complete write that was attempted later.
//!
//! [`StoreModel::work`] is a random workload: small and large documents, deletes, preconditions,
//! writes that do not wait for a sync, and compaction.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prefd_engine::{Change, Durability, Engine, Error, Precondition, Revision, WriteOptions};

use crate::random::Random;
use crate::sim_disk::{SimDisk, Unsynced};
use crate::sim_store::body;

/// A document and its revision, if the revision is known. `None` is an empty namespace.
type Content = Option<(String, Option<Revision>)>;

/// The contents that a namespace may have.
#[derive(Default, Clone, Debug)]
struct AllowedContents {
    /// The last write that was acknowledged as durable.
    durable: Content,
    /// Writes attempted after `durable`, in order.
    attempted: Vec<Content>,
    /// The last acknowledged write, which a read returns.
    visible: Content,
}

/// The contents that a store may have.
#[derive(Default, Clone)]
pub struct StoreModel {
    namespaces: BTreeMap<String, AllowedContents>,
    stamp: u64,
    /// The highest revision so far.
    highest: Option<Revision>,
}

/// Number of clients of user `u` to which the workload writes.
const CLIENTS: u64 = 6;

impl StoreModel {
    /// Puts a document with `pad_bytes` bytes of padding, or deletes the document if `pad_bytes` is
    /// `None`, and records the outcome.
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
                    assert!(
                        Some(revision) > self.highest,
                        "a new revision must be higher than all earlier ones"
                    );
                    self.highest = Some(revision);
                }
                allowed.visible = text.map(|text| (text, revision));
                if let Some(last) = allowed.attempted.last_mut() {
                    last.clone_from(&allowed.visible);
                }
                if is_sync {
                    // A sync also makes all earlier writes durable.
                    for allowed in self.namespaces.values_mut() {
                        allowed.settle();
                    }
                }
                Ok(())
            }
            Err(error) => {
                // Only a poisoned store may keep a write that it did not acknowledge.
                if !matches!(error, Error::Poisoned { .. }) {
                    allowed.attempted.pop();
                }
                Err(error)
            }
        }
    }

    /// Runs 40 random operations. Stops at the first error of the disk.
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
                self.check_reads(engine, "during the workload")?;
            }
        }
        Ok(())
    }

    /// Expects the last acknowledged write in every namespace.
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

    /// Checks a store that was opened after a crash, and makes its contents the new durable
    /// contents of the model. `lists` is true if the store has a catalogue.
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
                "{context}: {client} holds {:?}, expected {:?} or one of {:?}",
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

impl AllowedContents {
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

/// Fails only the operation with index `n`. Returns a counter of all operations.
pub fn fail_once_at(disk: &SimDisk, n: u64, kind: io::ErrorKind) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    disk.set_fault(Box::new(move |_, _| {
        (counted.fetch_add(1, Ordering::Relaxed) == n).then_some(kind)
    }));
    count
}

/// Chooses what a crash does to unsynced changes. Seed 0 loses all, seed 1 keeps all, and every
/// other seed keeps a random part.
pub fn unsynced(seed: u64) -> Unsynced {
    match seed {
        0 => Unsynced::Lost,
        1 => Unsynced::Kept,
        seed => Unsynced::Some { seed },
    }
}
