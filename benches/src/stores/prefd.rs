//! prefd-engine, opened as the server opens it.

use std::path::Path;

use prefd_engine::{Change, Config, Durability, WriteOptions};

use super::store::{Session, Store, StoreOptions};
use crate::Result;
use crate::documents::Key;

struct PrefdStore(prefd_engine::Engine);

pub(super) fn open(dir: &Path, options: StoreOptions) -> Result<Box<dyn Store>> {
    let mut config = Config::new(dir);
    config.cache_bytes = options.cache_bytes;
    config.durability = if options.durable {
        Durability::Sync
    } else {
        Durability::Buffered
    };
    Ok(Box::new(PrefdStore(prefd_engine::Engine::open(config)?)))
}

impl Store for PrefdStore {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(&self.0))
    }

    fn sync(&self) -> Result<()> {
        // A durable write also makes all earlier writes durable.
        let missing = self.0.namespace("nobody", "nothing")?;
        let options = WriteOptions {
            durability: Some(Durability::Sync),
            ..WriteOptions::default()
        };
        missing.write(Change::Delete, options)?;
        Ok(())
    }

    /// Waits for the catalogue, by listing the user's namespaces.
    fn catch_up(&self, key: &Key) -> Result<bool> {
        let listed = self.0.list(key.user(), None, 1)?;
        if listed.len() == 1 {
            Ok(true)
        } else {
            Err("the catalogue does not list a stored document".into())
        }
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.0.close()?)
    }
}

impl Session for &prefd_engine::Engine {
    fn put(&mut self, key: &Key, document: &[u8]) -> Result<()> {
        let namespace = self.namespace(key.user(), key.client())?;
        namespace.write(document, WriteOptions::default())?;
        Ok(())
    }

    fn get(&mut self, key: &Key, on_chunk: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let Some(document) = prefd_engine::Engine::get(self, key.user(), key.client())? else {
            return Ok(false);
        };
        match document.in_memory() {
            Some(body) => on_chunk(body),
            None => {
                for chunk in document.chunks() {
                    on_chunk(&chunk?);
                }
            }
        }
        Ok(true)
    }
}
