//! fjall. Documents of 64 KiB and more are stored apart from their keys, as its
//! documentation advises for large values.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use super::store::{Session, Store, StoreOptions};
use crate::Result;
use crate::documents::Key;

/// Minimum size of documents that are stored apart from their keys.
const LARGE_BYTES: usize = 64 * 1024;

struct FjallStore {
    db: Database,
    documents: Keyspace,
    durable: bool,
}

pub(super) fn open(dir: &Path, options: StoreOptions) -> Result<Box<dyn Store>> {
    let db = Database::builder(dir)
        .cache_size(options.cache_bytes)
        .open()?;
    let separation = (options.value_bytes >= LARGE_BYTES).then(KvSeparationOptions::default);
    let documents = db.keyspace("documents", || {
        KeyspaceCreateOptions::default()
            .expect_point_read_hits(true)
            .with_kv_separation(separation)
    })?;
    Ok(Box::new(FjallStore {
        db,
        documents,
        durable: options.durable,
    }))
}

impl Store for FjallStore {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncAll)?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}

impl Session for &FjallStore {
    fn put(&mut self, key: &Key, document: &[u8]) -> Result<()> {
        self.documents.insert(key.joined(), document)?;
        if self.durable { self.sync() } else { Ok(()) }
    }

    fn get(&mut self, key: &Key, on_chunk: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let Some(document) = self.documents.get(key.joined())? else {
            return Ok(false);
        };
        on_chunk(&document);
        Ok(true)
    }
}
