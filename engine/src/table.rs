//! The table: where the newest frame of each namespace lies. In memory, rebuilt at
//! every open, and the one place that decides what is current.
//!
//! It knows hashes and places, never names or bytes. An entry takes 41 bytes of a
//! hash map that is between 44 % and 88 % full.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::log::summary::{self, EntryKind};
use crate::names::{NamespaceHash, NamespaceMap};

/// Readers and the committer meet on a lock only within one of these.
const SHARDS: usize = 64;

/// The newest frame of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) revision: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    /// Never [`EntryKind::Lost`], which has no namespace.
    pub(crate) kind: EntryKind,
}

impl Entry {
    pub(crate) fn at(segment: u32, entry: &summary::Entry) -> Self {
        Self {
            revision: entry.revision,
            segment,
            offset: entry.offset,
            bytes: entry.bytes,
            kind: entry.kind,
        }
    }
}

/// A frame that cannot be read, of a namespace that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    /// The highest revision that the frame can have had.
    pub(crate) revision: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

/// What the table knows of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Newest {
    Absent,
    Document(Entry),
    /// The newest frame cannot be read, or what is the newest cannot be told.
    Unreadable {
        segment: u32,
        offset: u32,
    },
}

type Shard = NamespaceMap<Entry>;

pub(crate) struct Table {
    shards: Vec<RwLock<Shard>>,
    /// The loss with the highest revision. Found at the open or never, so that readers
    /// need no lock for it.
    loss: Option<Loss>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            loss: None,
        }
    }
}

impl Table {
    fn shard(&self, hash: NamespaceHash) -> &RwLock<Shard> {
        #[allow(clippy::cast_possible_truncation, reason = "below SHARDS")]
        let index = (hash.shard() % SHARDS as u64) as usize;
        #[allow(clippy::indexing_slicing, reason = "there are SHARDS of them")]
        &self.shards[index]
    }

    /// The entry as it is, damaged and deleted ones included.
    pub(crate) fn entry(&self, hash: NamespaceHash) -> Option<Entry> {
        read(self.shard(hash)).get(&hash).copied()
    }

    /// What is current in a namespace.
    pub(crate) fn newest(&self, hash: NamespaceHash) -> Newest {
        let entry = self.entry(hash);
        if let Some(loss) = self.loss
            && entry.is_none_or(|entry| entry.revision <= loss.revision)
        {
            return Newest::Unreadable {
                segment: loss.segment,
                offset: loss.offset,
            };
        }
        match entry {
            None => Newest::Absent,
            Some(entry) => match entry.kind {
                EntryKind::Put | EntryKind::PutWithBlobs => Newest::Document(entry),
                EntryKind::Delete => Newest::Absent,
                EntryKind::Damaged | EntryKind::Lost => Newest::Unreadable {
                    segment: entry.segment,
                    offset: entry.offset,
                },
            },
        }
    }

    /// Makes `entry` current unless a newer one is there; returns the one that it
    /// replaced.
    pub(crate) fn advance(&self, hash: NamespaceHash, entry: Entry) -> Option<Entry> {
        let mut shard = write(self.shard(hash));
        match shard.get_mut(&hash) {
            Some(current) if current.revision > entry.revision => None,
            Some(current) => Some(std::mem::replace(current, entry)),
            None => {
                shard.insert(hash, entry);
                None
            }
        }
    }

    /// Whether `entry` is what is current.
    pub(crate) fn is_current(&self, hash: NamespaceHash, revision: u64) -> bool {
        self.entry(hash)
            .is_some_and(|entry| entry.revision == revision)
    }

    /// Forgets a delete, if it is what is current: nothing older is left that it
    /// could hide.
    pub(crate) fn forget_delete(&self, hash: NamespaceHash, entry: &Entry) {
        let mut shard = write(self.shard(hash));
        if entry.kind == EntryKind::Delete && shard.get(&hash) == Some(entry) {
            shard.remove(&hash);
        }
    }

    /// Visits what is current, deletes included, in no order.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Entry)) {
        for shard in &self.shards {
            read(shard).values().for_each(&mut visit);
        }
    }

    /// Remembers that a frame was lost.
    pub(crate) fn lose(&mut self, loss: Loss) {
        if self.loss.is_none_or(|worst| worst.revision < loss.revision) {
            self.loss = Some(loss);
        }
    }

    /// The loss with the highest revision.
    pub(crate) fn loss(&self) -> Option<Loss> {
        self.loss
    }

    /// Documents stored.
    pub(crate) fn documents(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| {
                read(shard)
                    .values()
                    .filter(|e| matches!(e.kind, EntryKind::Put | EntryKind::PutWithBlobs))
                    .count() as u64
            })
            .sum()
    }
}

/// A panic elsewhere cannot leave an entry half written: entries are `Copy`.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
