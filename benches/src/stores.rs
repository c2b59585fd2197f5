//! The engines under test, behind one face: a document is put under a user and a client,
//! and read back.
//!
//! Each is opened as its own documentation advises, with the same budget for its cache.
//! What is durable waits for the strongest sync that the engine offers; `syncs.rs`
//! counts which system calls that comes to.

mod bare;
#[cfg(feature = "peers")]
mod fjall;
#[cfg(feature = "peers")]
mod lmdb;
mod prefd;
#[cfg(feature = "peers")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
#[cfg(feature = "peers")]
mod sled;
#[cfg(feature = "peers")]
mod sqlite;

use std::path::Path;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::documents::Key;

/// An engine under test.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// prefd-engine.
    Prefd,
    /// A file that is appended to, and read at a known place: what the disk and the
    /// system calls allow. It finds, checks and recovers nothing.
    Bare,
    /// sled, which does not sync: see `syncs.rs`.
    Sled,
    /// redb.
    Redb,
    /// fjall.
    Fjall,
    /// LMDB, through heed.
    Lmdb,
    /// SQLite, through rusqlite.
    Sqlite,
    /// RocksDB, through rust-rocksdb.
    Rocksdb,
}

/// How a store is to be opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Memory for the engine's cache of what was read, in bytes.
    pub cache_bytes: u64,
    /// Bytes of a document: engines that keep large values apart are told to.
    pub value_bytes: usize,
    /// How a put is to be made that is not told to be durable.
    pub durable: bool,
}

/// An open store. Threads share it, and each has a session of its own.
pub trait Store: Sync {
    /// What one thread needs to work with it.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// Puts on stable storage what was put so far.
    fn sync(&self) -> Result<()>;

    /// Closes it as its documentation says.
    fn close(self: Box<Self>) -> Result<()>;
}

/// One thread's way to a store.
pub trait Session {
    /// Replaces a document. Where the store was opened as durable, it is on stable
    /// storage afterwards, as far as the engine does that at all.
    fn put(&mut self, key: &Key, document: &[u8]) -> Result<()>;

    /// Hands a document to `see`, in as many pieces as the engine reads it. Whether there
    /// is one.
    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool>;
}

impl Engine {
    /// Those that this build has.
    pub const ALL: &[Self] = &[
        Self::Prefd,
        Self::Bare,
        #[cfg(feature = "peers")]
        Self::Sled,
        #[cfg(feature = "peers")]
        Self::Redb,
        #[cfg(feature = "peers")]
        Self::Fjall,
        #[cfg(feature = "peers")]
        Self::Lmdb,
        #[cfg(feature = "peers")]
        Self::Sqlite,
        #[cfg(feature = "rocksdb")]
        Self::Rocksdb,
    ];

    /// Its name, as reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefd => "prefd",
            Self::Bare => "bare file",
            Self::Sled => "sled",
            Self::Redb => "redb",
            Self::Fjall => "fjall",
            Self::Lmdb => "LMDB",
            Self::Sqlite => "SQLite",
            Self::Rocksdb => "RocksDB",
        }
    }

    /// What it does for a durable put, in its own words.
    pub fn durable_mode(self) -> &'static str {
        match self {
            Self::Prefd => "Durability::Sync",
            Self::Bare => "pwrite, fdatasync",
            Self::Sled => "insert, flush (no fsync: survives no power cut)",
            Self::Redb => "Durability::Immediate",
            Self::Fjall => "insert, persist(SyncAll)",
            Self::Lmdb => "commit, default flags",
            Self::Sqlite => "WAL, synchronous=FULL",
            Self::Rocksdb => "WriteOptions sync",
        }
    }

    /// What it does for a put that need not be durable.
    pub fn plain_mode(self) -> &'static str {
        match self {
            Self::Prefd => "Durability::Buffered",
            Self::Bare => "pwrite",
            Self::Sled | Self::Fjall => "insert",
            Self::Redb => "Durability::None, Immediate every 1,000",
            Self::Lmdb => "commit, NO_SYNC",
            Self::Sqlite => "WAL, synchronous=OFF",
            Self::Rocksdb => "WriteOptions without sync",
        }
    }

    /// Opens a store in a folder, which is made where it is missing.
    pub fn open(self, dir: &Path, options: Options) -> Result<Box<dyn Store>> {
        std::fs::create_dir_all(dir)?;
        match self {
            Self::Prefd => prefd::open(dir, options),
            Self::Bare => bare::open(dir, options),
            #[cfg(feature = "peers")]
            Self::Sled => sled::open(dir, options),
            #[cfg(feature = "peers")]
            Self::Redb => redb::open(dir, options),
            #[cfg(feature = "peers")]
            Self::Fjall => fjall::open(dir, options),
            #[cfg(feature = "peers")]
            Self::Lmdb => lmdb::open(dir, options),
            #[cfg(feature = "peers")]
            Self::Sqlite => sqlite::open(dir, options),
            #[cfg(feature = "rocksdb")]
            Self::Rocksdb => rocksdb::open(dir, options),
            #[allow(unreachable_patterns, reason = "only where some are left out")]
            other => Err(format!("this build does not have {}", other.name()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(session: &mut dyn Session, key: &Key) -> Option<Vec<u8>> {
        let mut document = Vec::new();
        let found = session.get(key, &mut |piece| document.extend_from_slice(piece));
        found.unwrap().then_some(document)
    }

    #[test]
    fn every_engine_replaces_reads_back_and_keeps() {
        for engine in Engine::ALL {
            for durable in [false, true] {
                let dir = tempfile::tempdir_in(".").unwrap();
                let options = Options {
                    cache_bytes: 1 << 20,
                    value_bytes: 100,
                    durable,
                };
                let (mut first, mut second) = (Key::default(), Key::default());
                first.set(1);
                second.set(2);
                let store = engine.open(dir.path(), options).unwrap();
                {
                    let mut session = store.session().unwrap();
                    for text in ["{}", r#"{"a":1}"#] {
                        session.put(&first, text.as_bytes()).unwrap();
                        let found = read(&mut *session, &first);
                        assert_eq!(found.as_deref(), Some(text.as_bytes()), "{engine:?}");
                    }
                    assert_eq!(read(&mut *session, &second), None, "{engine:?}");
                    store.sync().unwrap();
                }
                store.close().unwrap();
                let store = engine.open(dir.path(), options).unwrap();
                let mut session = store.session().unwrap();
                let found = read(&mut *session, &first);
                assert_eq!(found.as_deref(), Some(&br#"{"a":1}"#[..]), "{engine:?}");
            }
        }
    }
}
