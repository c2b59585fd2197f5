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

use crate::Result;
use crate::contender::Contender;
use crate::documents::Key;

/// How a store is to be opened.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
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

    /// Waits for what the engine derives from its documents behind their acknowledgement,
    /// by asking for it. Whether it has such a thing.
    fn catch_up(&self, _key: &Key) -> Result<bool> {
        Ok(false)
    }

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

impl Contender {
    /// Opens a store in a folder, which is made where it is missing.
    pub fn open(self, dir: &Path, options: StoreOptions) -> Result<Box<dyn Store>> {
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
            other => Err(format!("this build does not have a store of {}", other.name()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn read(session: &mut dyn Session, key: &Key) -> Option<Vec<u8>> {
        let mut document = Vec::new();
        let found = session.get(key, &mut |piece| document.extend_from_slice(piece));
        found.unwrap().then_some(document)
    }

    #[test]
    fn every_engine_replaces_reads_back_and_keeps() {
        let engines = Contender::ALL
            .iter()
            .filter(|c| c.supports(Scenario::Durable));
        for engine in engines {
            for durable in [false, true] {
                let dir = tempfile::tempdir_in(".").unwrap();
                let options = StoreOptions {
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
