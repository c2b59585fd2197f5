//! A store on a simulated disk, and what tests do with one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use prefd_engine::{Change, Config, Engine, Error, WriteOptions};

use crate::sim_disk::{SimDisk, Unsynced};

/// A store on a simulated disk. The catalogue and the lock are in a real directory.
pub struct Store {
    /// The real directory, and the simulated one's path.
    pub dir: tempfile::TempDir,
    /// Where log and blobs are.
    pub disk: SimDisk,
    has_catalogue: bool,
}

impl Store {
    /// An empty one.
    #[allow(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        Self {
            dir: directory(),
            disk: SimDisk::new(),
            has_catalogue: true,
        }
    }

    /// An empty one without a catalogue, which costs most of the time of an open.
    pub fn without_catalogue() -> Self {
        Self {
            has_catalogue: false,
            ..Self::new()
        }
    }

    /// Whether it can list what it holds.
    pub fn has_catalogue(&self) -> bool {
        self.has_catalogue
    }

    /// The same store after a crash, on a disk and in a directory of its own.
    pub fn crashed(&self, unsynced: Unsynced) -> Self {
        let after = Self {
            dir: directory(),
            disk: self.disk.crash(unsynced),
            has_catalogue: self.has_catalogue,
        };
        after.disk.rebase(self.dir.path(), after.dir.path());
        after
    }

    /// Small segments and blobs, and no cache in the way.
    pub fn config(&self) -> Config {
        let mut config = Config::new(self.dir.path());
        config.fs = Arc::new(self.disk.clone());
        config.segment_bytes = Config::MIN_SEGMENT_BYTES;
        config.inline_bytes = 2048;
        config.cache_bytes = 0;
        config.catalogue = self.has_catalogue;
        config.reserve_bytes = 16 * 1024;
        config.background_compaction = false;
        config
    }

    /// Opens it.
    pub fn open(&self) -> Result<Engine, Error> {
        Engine::open(self.config())
    }

    /// A file of it.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Where a file of `other` is in this copy of it.
    pub fn moved(&self, other: &Self, file: &Path) -> PathBuf {
        self.dir
            .path()
            .join(file.strip_prefix(other.dir.path()).unwrap())
    }

    /// The files of a folder that end like this.
    pub fn files(&self, folder: &str, extension: &str) -> Vec<PathBuf> {
        let folder = self.dir.path().join(folder);
        let ours = |path: &PathBuf| {
            path.starts_with(&folder) && path.to_string_lossy().ends_with(extension)
        };
        self.disk.files().into_iter().filter(ours).collect()
    }
}

/// A directory in memory, where the system has such: what is in it need not survive
/// anything, and thousands are made.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// What the user `u` has in a client's namespace.
pub fn read(engine: &Engine, client: &str) -> Result<Option<String>, Error> {
    let document = engine.namespace("u", client)?.get()?;
    document
        .map(|d| d.read().map(|bytes| String::from_utf8(bytes).unwrap()))
        .transpose()
}

/// Puts it there.
pub fn put(engine: &Engine, client: &str, body: &str) -> Result<(), Error> {
    engine
        .namespace("u", client)?
        .write(body.as_bytes(), WriteOptions::default())
        .map(drop)
}

/// Deletes it there.
pub fn delete(engine: &Engine, client: &str) -> Result<(), Error> {
    engine
        .namespace("u", client)?
        .write(Change::Delete, WriteOptions::default())
        .map(drop)
}

/// A body that says which write it is in every value; large ones go to a blob.
pub fn body(stamp: u64, bytes: usize) -> String {
    format!(
        "{{\"a\":{stamp},\"pad\":\"{}\",\"b\":{stamp}}}",
        "p".repeat(bytes)
    )
}
