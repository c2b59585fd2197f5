//! redb. Each put is one transaction. Without durability, every 1,000th put is committed
//! durably, as redb's documentation advises.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use super::store::{Session, Store, StoreOptions};
use crate::Result;
use crate::documents::Key;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("documents");
/// Puts per durable commit, if puts need not be durable. Without durable commits, the file
/// only grows.
const PUTS_PER_COMMIT: u64 = 1000;

struct RedbStore {
    db: Database,
    durable: bool,
    puts: AtomicU64,
}

pub(super) fn open(dir: &Path, options: StoreOptions) -> Result<Box<dyn Store>> {
    let db = Database::builder()
        .set_cache_size(options.cache_bytes as usize)
        .create(dir.join("documents.redb"))?;
    let store = RedbStore {
        db,
        durable: options.durable,
        puts: AtomicU64::new(0),
    };
    store.commit(Durability::Immediate, None)?;
    Ok(Box::new(store))
}

impl RedbStore {
    fn commit(&self, durability: Durability, put: Option<(&[u8], &[u8])>) -> Result<()> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            if let Some((key, document)) = put {
                table.insert(key, document)?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Store for RedbStore {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(self))
    }

    /// Commits a put, because an empty commit does not make earlier commits durable.
    fn sync(&self) -> Result<()> {
        self.commit(Durability::Immediate, Some((b"sync", b"")))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}

impl Session for &RedbStore {
    fn put(&mut self, key: &Key, document: &[u8]) -> Result<()> {
        let puts = self.puts.fetch_add(1, Ordering::Relaxed);
        let durability = if self.durable || puts.is_multiple_of(PUTS_PER_COMMIT) {
            Durability::Immediate
        } else {
            Durability::None
        };
        self.commit(durability, Some((key.joined(), document)))
    }

    fn get(&mut self, key: &Key, on_chunk: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let table = self.db.begin_read()?.open_table(TABLE)?;
        let Some(document) = table.get(key.joined())? else {
            return Ok(false);
        };
        on_chunk(document.value());
        Ok(true)
    }
}
