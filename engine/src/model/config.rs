//! The settings of an engine.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::error::{Error, Result};
use crate::model::limits::Limits;
use crate::platform::clock::{Clock, SystemClock};
use crate::platform::fs::{Disk, Fs};

/// The kinds of crashes that an acknowledged write survives.
///
/// [`Config::durability`] is the default for all writes of an engine.
/// [`crate::WriteOptions::durability`] overrides this default for one write.
///
/// ```
/// use prefd_engine::{Config, Durability, Engine, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let engine = Engine::open(Config::new(path))?;
/// let buffered = WriteOptions {
///     durability: Some(Durability::Buffered),
///     ..WriteOptions::default()
/// };
/// for client in ["editor", "terminal"] {
///     engine.namespace("alice", client)?.write(b"{}", buffered.clone())?;
/// }
/// engine.close()?; // Both writes are durable now.
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// The write survives a crash of the machine. The write is acknowledged only after the log has
    /// been synced with `fdatasync`.
    #[default]
    Sync,
    /// The write survives a crash of the process, but may be lost in a crash of the machine. The
    /// write is acknowledged as soon as the operating system has accepted the bytes, without a
    /// sync. `Buffered` is intended for imports and benchmarks. The next successful
    /// [`Durability::Sync`] write or call of [`crate::Engine::close`] makes all earlier writes
    /// durable.
    Buffered,
}

/// The settings of an engine. [`Config::new`] returns the default settings. To change a setting,
/// assign a value to its field.
///
/// [`crate::Engine::open`] checks the settings and returns [`Error::InvalidConfig`] if a
/// field is out of range.
///
/// ```
/// use prefd_engine::{Config, Engine, Limits};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let mut config = Config::new(path);
/// config.limits = Limits::new(100, 64, 64 * 1024);
/// config.cache_bytes = 256 * 1024 * 1024;
/// let engine = Engine::open(config)?;
/// # engine.close()?;
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The data directory. The directory contains `log/`, `blobs/`, `catalogue/` and `lock`, and is
    /// created if it does not exist.
    pub data_dir: PathBuf,
    /// Opens an existing store for reading, and changes nothing in [`Self::data_dir`]. The
    /// directory can be on a file system that is mounted read-only, and the process needs only the
    /// permission to read it. Default: false.
    ///
    /// The store is recovered in memory, so reads and snapshots return the same documents as after
    /// a normal open. Listings are computed in memory when the first listing is requested, and need
    /// about 100 bytes and the names of user and client for each document. Several engines can have
    /// the directory open for reading at the same time. An engine that has the directory open for
    /// writing excludes all readers, and readers exclude such an engine ([`Error::Locked`]).
    ///
    /// If the directory contains no store, [`crate::Engine::open`] fails with
    /// [`Error::NotAStore`]. Every write, [`crate::Engine::compact`] and [`crate::Engine::erase`]
    /// fail with [`Error::ReadOnly`].
    pub read_only: bool,
    /// The limits for new documents. Documents that are already stored stay readable even if they
    /// exceed the limits.
    pub limits: Limits,
    /// The durability of writes that do not set [`crate::WriteOptions::durability`].
    /// Default: [`Durability::Sync`].
    pub durability: Durability,
    /// The maximum size in bytes of a document that is stored in the log. A document that exceeds
    /// this size is stored in a separate blob file, and is written and read in chunks. Default: 256
    /// KiB. Maximum: 16 MiB.
    pub inline_bytes: u32,
    /// The length in bytes at which a segment of the log is sealed. Default: 64 MiB.
    /// Minimum: 64 KiB. Maximum: 2 GiB.
    pub segment_bytes: u64,
    /// Memory budget in bytes for the cache of recently read documents. Default: 32 MiB.
    pub cache_bytes: u64,
    /// Memory budget in bytes for the writes that wait in the commit queue. If the queue is full,
    /// [`crate::Namespace::write`] waits, and [`crate::WriteOptions::queue_full`] determines
    /// whether [`crate::Namespace::submit`] waits or fails with [`Error::Overloaded`]. Default: 64
    /// MiB.
    pub queue_bytes: u64,
    /// Enables the catalogue, a database that lists documents by user. Without the catalogue,
    /// listings and [`crate::Engine::usage`] fail, but opening and writing are cheaper. If
    /// documents were written without the catalogue, the next open with the catalogue enabled
    /// rebuilds the catalogue. Default: true.
    pub catalogue: bool,
    /// Memory budget in bytes for changes that are not yet in the catalogue. Default: 16 MiB.
    ///
    /// If the pending changes exceed this budget while no listing waits, the pending puts are
    /// dropped from memory. The catalogue later reads the dropped puts from the log, when the write
    /// rate falls or a listing waits. Listings wait until the catalogue is complete. Commits wait
    /// for the catalogue only in two cases: the pending changes exceed the budget while a listing
    /// waits, or the pending deletes alone exceed the budget.
    pub catalogue_pending_bytes: u64,
    /// The cache size in bytes that is passed to sled, the catalogue's database. sled uses more
    /// memory than this. Default: 8 MiB.
    pub catalogue_cache_bytes: u64,
    /// The maximum number of values that are read back from blob files for validation at the same
    /// time. Each validation needs a buffer of up to [`Limits::max_value_bytes`]. The validation of
    /// an invalid value may need a second buffer of the same size. Default: 2. Minimum: 1.
    pub value_checks: usize,
    /// Enables the background thread that reclaims disk space. The thread rewrites segments with
    /// many stale frames, and removes obsolete files. If background compaction is disabled, only
    /// [`crate::Engine::compact`] rewrites segments to reclaim space, and obsolete files are
    /// removed only by [`crate::Engine::compact`], [`crate::Engine::erase`] and
    /// [`crate::Engine::close`]. The next open also removes obsolete segment files. Default: true.
    pub background_compaction: bool,
    /// Disk space in bytes that is reserved for deletes and compaction. If only the reserved space
    /// is left on the disk, puts fail with [`Error::StorageFull`]. Default: 8 MiB.
    pub reserve_bytes: u64,
    /// The maximum number of log segments that are kept open for reading. Default: 32.
    /// Minimum: 1.
    pub open_segments: usize,
    /// The time without commits after which the engine writes a mark to the log. A mark records
    /// that all earlier bytes are on stable storage, so that later damage to them is not mistaken
    /// for a write that a crash has interrupted. A mark costs up to two syncs of the log. While
    /// writes are committed, no mark is written. The engine checks for commits at intervals of this
    /// time, so a mark can be written up to twice this time after the last commit.
    /// [`Duration::MAX`] disables marks. Default: 400 ms.
    pub mark_delay: Duration,
    /// The clock that determines the times of writes and the first revision after an open. Default:
    /// [`SystemClock`].
    pub clock: Arc<dyn Clock>,
    /// The file system. Default: [`Disk`].
    pub fs: Arc<dyn Fs>,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

impl Config {
    /// The largest allowed [`Self::inline_bytes`].
    pub const MAX_INLINE_BYTES: u32 = 16 * 1024 * 1024;
    /// The default of [`Self::inline_bytes`].
    pub const DEFAULT_INLINE_BYTES: u32 = 256 * 1024;
    /// The smallest allowed [`Self::segment_bytes`].
    pub const MIN_SEGMENT_BYTES: u64 = 64 * KIB;
    /// The largest allowed [`Self::segment_bytes`]. Offsets in a segment have 32 bits. The maximum
    /// of `segment_bytes` is well below 4 GiB, because the last frame of a segment may extend past
    /// `segment_bytes`.
    pub const MAX_SEGMENT_BYTES: u64 = 2 * 1024 * MIB;
    /// The maximum number of file descriptors that an open engine uses for its own files: the lock
    /// file, three directories, the active segment, the next segment and the files of the
    /// catalogue. The number also includes one file and one directory for each of the three threads
    /// that open files for a short time: the committer, the compaction thread and the catalogue
    /// thread.
    ///
    /// In addition, an engine uses up to [`Self::open_segments`] descriptors for reading the log,
    /// two descriptors for each call that reads or writes a document in a blob file, and one
    /// descriptor for each [`crate::SnapshotReader`] of a file on disk.
    pub const DESCRIPTORS: u64 = 16;

    /// The default settings for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            read_only: false,
            limits: Limits::default(),
            durability: Durability::default(),
            inline_bytes: Self::DEFAULT_INLINE_BYTES,
            segment_bytes: 64 * MIB,
            cache_bytes: 32 * MIB,
            queue_bytes: 64 * MIB,
            catalogue: true,
            catalogue_pending_bytes: 16 * MIB,
            catalogue_cache_bytes: 8 * MIB,
            value_checks: 2,
            background_compaction: true,
            reserve_bytes: 8 * MIB,
            open_segments: 32,
            mark_delay: Duration::from_millis(400),
            clock: Arc::new(SystemClock),
            fs: Arc::new(Disk),
        }
    }

    /// Checks that the value of each field is in its range.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let refuse = |setting, reason: String| Err(Error::InvalidConfig { setting, reason });
        if self.inline_bytes > Self::MAX_INLINE_BYTES {
            return refuse(
                "inline_bytes",
                format!("must be at most {}", Self::MAX_INLINE_BYTES),
            );
        }
        if !(Self::MIN_SEGMENT_BYTES..=Self::MAX_SEGMENT_BYTES).contains(&self.segment_bytes) {
            return refuse(
                "segment_bytes",
                format!(
                    "must be from {} to {}",
                    Self::MIN_SEGMENT_BYTES,
                    Self::MAX_SEGMENT_BYTES
                ),
            );
        }
        if self.value_checks == 0 || self.open_segments == 0 {
            return refuse(
                "value_checks and open_segments",
                "must be at least 1".to_owned(),
            );
        }
        Ok(())
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("data_dir", &self.data_dir)
            .field("read_only", &self.read_only)
            .field("limits", &self.limits)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}
