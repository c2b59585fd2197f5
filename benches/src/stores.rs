//! The storage engines under test. Each is a [`Store`] that maps a user and a client to a
//! document.
//!
//! Each engine is opened as its own documentation advises, and with the cache size of the phase
//! if it has a cache. A durable put waits for a sync of the engine. The module `syncs` counts the
//! system calls of these syncs.

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
mod store;

use std::path::Path;

use crate::Result;
use crate::contender::Contender;
pub use store::{Session, Store, StoreOptions};

impl Contender {
    /// Opens a store in a folder. Creates the folder if it does not exist.
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
            other => Err(format!(
                "this build does not include a storage engine named {}",
                other.name()
            )
            .into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::Key;
    use crate::scenario::Scenario;

    fn read(session: &mut dyn Session, key: &Key) -> Option<Vec<u8>> {
        let mut document = Vec::new();
        let found = session.get(key, &mut |piece| document.extend_from_slice(piece));
        found.unwrap().then_some(document)
    }

    #[test]
    fn engines_replace_read_and_keep_documents_across_a_reopen() {
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
