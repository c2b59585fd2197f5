//! A store on a simulated disk, and functions to read and write it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prefd_engine::{Change, Config, Engine, Error, WriteOptions};

use crate::sim_disk::{SimDisk, Unsynced};

/// A store on a simulated disk. Its catalogue and its lock file are in a real directory.
pub struct Store {
    /// The real directory. The files on the simulated disk have the same path.
    pub dir: tempfile::TempDir,
    /// The simulated disk, which holds log and blobs.
    pub disk: SimDisk,
    has_catalogue: bool,
}

impl Store {
    /// Creates an empty store.
    #[allow(clippy::new_without_default, reason = "it creates a directory")]
    pub fn new() -> Self {
        Self {
            dir: directory(),
            disk: SimDisk::new(),
            has_catalogue: true,
        }
    }

    /// Creates an empty store without a catalogue. Opening a catalogue takes most of the time of
    /// an open.
    pub fn without_catalogue() -> Self {
        Self {
            has_catalogue: false,
            ..Self::new()
        }
    }

    /// Returns true if the store has a catalogue and so can list documents.
    pub fn has_catalogue(&self) -> bool {
        self.has_catalogue
    }

    /// Returns a copy of the store after a crash, on a new disk and in a new directory.
    pub fn crashed(&self, unsynced: Unsynced) -> Self {
        let after = Self {
            dir: directory(),
            disk: self.disk.crash(unsynced),
            has_catalogue: self.has_catalogue,
        };
        after.disk.rebase(self.dir.path(), after.dir.path());
        after
    }

    /// The configuration of the store: small segments, a small inline size, no cache, and no marks.
    pub fn config(&self) -> Config {
        let mut config = Config::new(self.dir.path());
        config.fs = Arc::new(self.disk.clone());
        config.segment_bytes = Config::MIN_SEGMENT_BYTES;
        config.inline_bytes = 2048;
        config.cache_bytes = 0;
        config.catalogue = self.has_catalogue;
        config.reserve_bytes = 16 * 1024;
        config.background_compaction = false;
        // A test that counts or fails disk operations needs the same operations in each run.
        config.mark_delay = Duration::MAX;
        config
    }

    /// Opens the store.
    pub fn open(&self) -> Result<Engine, Error> {
        Engine::open(self.config())
    }

    /// Path of a file of the store.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Translates the path of a file of `other` to this copy of it.
    pub fn moved(&self, other: &Self, file: &Path) -> PathBuf {
        self.dir
            .path()
            .join(file.strip_prefix(other.dir.path()).unwrap())
    }

    /// The files in a folder that have the given extension.
    pub fn files(&self, folder: &str, extension: &str) -> Vec<PathBuf> {
        let folder = self.dir.path().join(folder);
        let ours = |path: &PathBuf| {
            path.starts_with(&folder) && path.to_string_lossy().ends_with(extension)
        };
        self.disk.files().into_iter().filter(ours).collect()
    }
}

/// Creates a temporary directory, in memory if possible. Tests create thousands of them, and none
/// needs to survive a crash.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Reads the document of user `u` and the given client.
pub fn read(engine: &Engine, client: &str) -> Result<Option<String>, Error> {
    let document = engine.namespace("u", client)?.get()?;
    document
        .map(|d| d.read().map(|bytes| String::from_utf8(bytes).unwrap()))
        .transpose()
}

/// Puts the document of user `u` and the given client.
pub fn put(engine: &Engine, client: &str, body: &str) -> Result<(), Error> {
    engine
        .namespace("u", client)?
        .write(body.as_bytes(), WriteOptions::default())
        .map(drop)
}

/// Deletes the document of user `u` and the given client.
pub fn delete(engine: &Engine, client: &str) -> Result<(), Error> {
    engine
        .namespace("u", client)?
        .write(Change::Delete, WriteOptions::default())
        .map(drop)
}

/// Creates a document with the number of a write in it and `bytes` bytes of padding.
pub fn body(stamp: u64, bytes: usize) -> String {
    format!(
        "{{\"a\":{stamp},\"pad\":\"{}\",\"b\":{stamp}}}",
        "p".repeat(bytes)
    )
}
