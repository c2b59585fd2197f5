//! sled 0.34.7. Its `flush` calls `sync_file_range`, which does not flush the disk's own
//! cache. sled is the only engine here whose durable puts are not durable.

use std::path::Path;

use super::store::{Session, Store, StoreOptions};
use crate::Result;
use crate::documents::Key;

struct SledStore {
    db: sled::Db,
    durable: bool,
}

pub(super) fn open(dir: &Path, options: StoreOptions) -> Result<Box<dyn Store>> {
    let db = sled::Config::new()
        .path(dir)
        .cache_capacity(options.cache_bytes)
        .open()?;
    Ok(Box::new(SledStore {
        db,
        durable: options.durable,
    }))
}

impl Store for SledStore {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn sync(&self) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}

impl Session for &SledStore {
    fn put(&mut self, key: &Key, document: &[u8]) -> Result<()> {
        self.db.insert(key.joined(), document)?;
        if self.durable {
            self.db.flush()?;
        }
        Ok(())
    }

    fn get(&mut self, key: &Key, on_chunk: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let Some(document) = self.db.get(key.joined())? else {
            return Ok(false);
        };
        on_chunk(&document);
        Ok(true)
    }
}
