//! SQLite, through rusqlite, with a write-ahead log. Each thread has its own connection and
//! prepared statements.
//!
//! SQLite allows one writer at a time. A writer that finds the database locked sleeps and
//! tries again, which is slow. For this reason, a lock in this process lets one thread put
//! at a time.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::store::{Session, Store, StoreOptions};
use crate::Result;
use crate::documents::Key;

/// How long a connection waits for SQLite's own lock. The lock of this process does not
/// cover checkpoints.
const BUSY: Duration = Duration::from_secs(60);
/// Maximum part of the file that is mapped into memory.
const MMAP_BYTES: i64 = 1 << 30;

struct SqliteStore {
    path: PathBuf,
    options: StoreOptions,
    write_lock: Mutex<()>,
}

struct SqliteSession<'a> {
    connection: Connection,
    write_lock: &'a Mutex<()>,
}

pub(super) fn open(dir: &Path, options: StoreOptions) -> Result<Box<dyn Store>> {
    let store = SqliteStore {
        path: dir.join("documents.sqlite"),
        options,
        write_lock: Mutex::default(),
    };
    store.connect()?.execute_batch(
        "CREATE TABLE IF NOT EXISTS documents (key BLOB PRIMARY KEY, document BLOB NOT NULL)",
    )?;
    Ok(Box::new(store))
}

impl SqliteStore {
    fn connect(&self) -> Result<Connection> {
        let connection = Connection::open(&self.path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = if self.options.durable { "FULL" } else { "OFF" };
        connection.pragma_update(None, "synchronous", synchronous)?;
        // A negative size is in KiB. Each connection has a cache of its own.
        let cache = i64::try_from(self.options.cache_bytes / 1024)?;
        connection.pragma_update(None, "cache_size", -cache)?;
        connection.pragma_update(None, "mmap_size", MMAP_BYTES)?;
        Ok(connection)
    }
}

impl Store for SqliteStore {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(SqliteSession {
            connection: self.connect()?,
            write_lock: &self.write_lock,
        }))
    }

    fn sync(&self) -> Result<()> {
        let connection = self.connect()?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        Ok(connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}

impl Session for SqliteSession<'_> {
    fn put(&mut self, key: &Key, document: &[u8]) -> Result<()> {
        let _guard = self
            .write_lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO documents (key, document) VALUES (?1, ?2)")?
            .execute(params![key.joined(), document])?;
        Ok(())
    }

    fn get(&mut self, key: &Key, on_chunk: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT document FROM documents WHERE key = ?1")?;
        let found = statement
            .query_row([key.joined()], |row| {
                on_chunk(row.get_ref(0)?.as_blob()?);
                Ok(())
            })
            .optional()?;
        Ok(found.is_some())
    }
}
