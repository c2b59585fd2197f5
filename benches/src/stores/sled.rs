//! sled 0.34.7. Its `flush` hands what is written to the disk by `sync_file_range`, and
//! never waits for the disk's own cache: it is the one engine here whose durable row is
//! not.

use std::path::Path;

use super::{Session, Store, StoreOptions};
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

    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let Some(document) = self.db.get(key.joined())? else {
            return Ok(false);
        };
        see(&document);
        Ok(true)
    }
}
