//! The interface that every storage engine is measured through.

use crate::Result;
use crate::documents::Key;

/// How to open a store.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Size of the engine's read cache, in bytes.
    pub cache_bytes: u64,
    /// Size of a document, in bytes. Some engines store large values apart from their keys.
    pub value_bytes: usize,
    /// Whether [`Session::put`] waits until the document is on stable storage.
    pub durable: bool,
}

/// An open store. All threads share it, and each thread opens a session of its own.
pub trait Store: Sync {
    /// Opens a session for one thread.
    fn session(&self) -> Result<Box<dyn Session + '_>>;

    /// Writes all earlier puts to stable storage.
    fn sync(&self) -> Result<()>;

    /// Waits until the engine has finished the work that it does after it acknowledges a
    /// put. Returns false if the engine has no such work.
    fn catch_up(&self, _key: &Key) -> Result<bool> {
        Ok(false)
    }

    /// Closes the store as the engine's documentation advises.
    fn close(self: Box<Self>) -> Result<()>;
}

/// One thread's access to a store.
pub trait Session {
    /// Inserts or replaces a document. If the store was opened as durable, this waits for
    /// the strongest sync that the engine offers.
    fn put(&mut self, key: &Key, document: &[u8]) -> Result<()>;

    /// Passes the document to `on_chunk`, in as many chunks as the engine reads it in.
    /// Returns false if the document does not exist.
    fn get(&mut self, key: &Key, on_chunk: &mut dyn FnMut(&[u8])) -> Result<bool>;
}
