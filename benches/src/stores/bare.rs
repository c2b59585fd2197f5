//! A bare file: puts append to it, and a map in memory finds the documents. It checks and
//! recovers nothing, so it shows what the disk and the system calls allow.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, RwLock};

use super::store::{Session, Store, StoreOptions};
use crate::Result;
use crate::documents::Key;

/// Error if a thread panicked while it held a lock.
const POISONED: &str = "a thread panicked while it held a lock";

/// Offset and length of each document, by key.
type LocationIndex = HashMap<Box<[u8]>, (u64, usize)>;

struct BareFileStore {
    file: File,
    durable: bool,
    end: Mutex<u64>,
    locations: RwLock<LocationIndex>,
    /// File that the map is written to when the store is closed.
    index: PathBuf,
}

pub(super) fn open(dir: &Path, options: StoreOptions) -> Result<Box<dyn Store>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join("data"))?;
    let end = file.metadata()?.len();
    let index = dir.join("index");
    let locations = if index.exists() {
        read_index(&index)?
    } else {
        HashMap::new()
    };
    Ok(Box::new(BareFileStore {
        file,
        durable: options.durable,
        end: Mutex::new(end),
        locations: RwLock::new(locations),
        index,
    }))
}

fn read_index(path: &Path) -> Result<LocationIndex> {
    let mut locations = HashMap::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let (key, offset, len): (String, u64, usize) = serde_json::from_str(&line?)?;
        locations.insert(key.into_bytes().into_boxed_slice(), (offset, len));
    }
    Ok(locations)
}

impl Store for BareFileStore {
    fn session(&self) -> Result<Box<dyn Session + '_>> {
        Ok(Box::new(BareFileSession {
            store: self,
            buffer: Vec::new(),
        }))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.file.sync_data()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()?;
        let mut index = std::io::BufWriter::new(File::create(&self.index)?);
        for (key, (offset, len)) in self.locations.read().map_err(|_| POISONED)?.iter() {
            let key = String::from_utf8_lossy(key);
            serde_json::to_writer(&mut index, &(key, offset, len))?;
            index.write_all(b"\n")?;
        }
        Ok(index.flush()?)
    }
}

struct BareFileSession<'a> {
    store: &'a BareFileStore,
    buffer: Vec<u8>,
}

impl Session for BareFileSession<'_> {
    fn put(&mut self, key: &Key, document: &[u8]) -> Result<()> {
        let offset = {
            let mut end = self.store.end.lock().map_err(|_| POISONED)?;
            let offset = *end;
            *end += document.len() as u64;
            offset
        };
        self.store.file.write_all_at(document, offset)?;
        if self.store.durable {
            self.store.file.sync_data()?;
        }
        let mut locations = self.store.locations.write().map_err(|_| POISONED)?;
        locations.insert(key.joined().into(), (offset, document.len()));
        Ok(())
    }

    fn get(&mut self, key: &Key, on_chunk: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let locations = self.store.locations.read().map_err(|_| POISONED)?;
        let Some((offset, len)) = locations.get(key.joined()).copied() else {
            return Ok(false);
        };
        drop(locations);
        self.buffer.resize(len, 0);
        self.store.file.read_exact_at(&mut self.buffer, offset)?;
        on_chunk(&self.buffer);
        Ok(true)
    }
}
