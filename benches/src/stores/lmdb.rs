//! LMDB, through heed. Each put and each get is one transaction. LMDB maps its file into
//! memory, so it has no cache other than the page cache.

use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

use super::store::{Session, Store, StoreOptions};
use crate::Result;
use crate::documents::Key;

/// Maximum size of the file. This reserves address space, but no memory and no disk space.
const MAP_BYTES: usize = 64 * 1024 * 1024 * 1024;
/// Maximum number of concurrent readers. A phase has at most 64 threads.
const READERS: u32 = 256;

struct LmdbStore {
    env: Env,
    documents: Database<'static, Bytes, Bytes>,
}

pub(super) fn open(dir: &Path, options: StoreOptions) -> Result<Box<dyn Store>> {
    let mut with = EnvOpenOptions::new();
    with.map_size(MAP_BYTES).max_readers(READERS);
    // Safety: the file is in a folder that only this run uses, so nothing else maps or
    // changes it. NO_SYNC can corrupt the file in a system crash, but no run reads the file
    // of an earlier one.
    #[allow(unsafe_code, reason = "heed has no safe function that opens a map")]
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
        .ok_or("LMDB did not commit the new database")?;
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

    fn get(&mut self, key: &Key, on_chunk: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let transaction = self.env.read_txn()?;
        let Some(document) = self.documents.get(&transaction, key.joined())? else {
            return Ok(false);
        };
        on_chunk(document);
        Ok(true)
    }
}
