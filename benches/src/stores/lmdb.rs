//! LMDB, through heed: a transaction for each put, and one for each get. It has no cache
//! of its own: it maps its file, and the page cache is its cache.

use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

use super::{Session, Store, StoreOptions};
use crate::Result;
use crate::documents::Key;

/// What the file may grow to: address space, of which nothing is taken at once.
const MAP_BYTES: usize = 64 * 1024 * 1024 * 1024;
const READERS: u32 = 256;

struct LmdbStore {
    env: Env,
    documents: Database<'static, Bytes, Bytes>,
}

pub(super) fn open(dir: &Path, options: StoreOptions) -> Result<Box<dyn Store>> {
    let mut with = EnvOpenOptions::new();
    with.map_size(MAP_BYTES).max_readers(READERS);
    // Safety: the file is in a folder of this run's own, which nothing else maps or
    // changes; and what NO_SYNC can lose in a crash is looked at by nobody.
    #[allow(unsafe_code, reason = "a map can only be opened so")]
    let env = unsafe {
        if !options.durable {
            with.flags(EnvFlags::NO_SYNC);
        }
        with.open(dir)?
    };
    let transaction = env.write_txn()?;
    let documents = env
        .create_databases_and_commit(transaction, |opener, transaction| {
            opener
                .create_database(transaction, None)
                .map(CommitOrAbort::<_, ()>::Commit)
        })?
        .commit()
        .ok_or("not committed")?;
    Ok(Box::new(LmdbStore { env, documents }))
}

impl Store for LmdbStore {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()?;
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

impl Session for &LmdbStore {
    fn put(&mut self, key: &Key, document: &[u8]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.documents
            .put(&mut transaction, key.joined(), document)?;
        Ok(transaction.commit()?)
    }

    fn get(&mut self, key: &Key, see: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let transaction = self.env.read_txn()?;
        let Some(document) = self.documents.get(&transaction, key.joined())? else {
            return Ok(false);
        };
        see(document);
        Ok(true)
    }
}
