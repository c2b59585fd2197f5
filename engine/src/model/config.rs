//! How an engine is opened.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::error::{Error, Result};
use crate::model::limits::Limits;
use crate::platform::fs::{Disk, Fs};

/// Which failures an acknowledged write survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the machine: acknowledged after `fdatasync` returned.
    #[default]
    Sync,
    /// A crash of the process only: acknowledged after the operating system took
    /// the bytes. For imports and benchmarks. A later `Sync` write, or
    /// [`crate::Engine::close`], makes everything before it durable.
    Buffered,
}

/// Everything an engine can be told. Start with [`Config::new`] and change fields.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The directory that holds `log/`, `blobs/`, `catalogue/` and `lock`. Created
    /// where it is missing.
    pub data_dir: PathBuf,
    /// What documents may be. Documents stored under wider limits stay readable.
    pub limits: Limits,
    /// What a write waits for, where it does not say so itself.
    pub durability: Durability,
    /// A document up to this many bytes lies in the log; a larger one gets a blob
    /// file of its own, and is never held in memory as a whole. Default 256 KiB,
    /// at most 16 MiB.
    pub inline_bytes: u32,
    /// The length at which a segment of the log is sealed. Default 64 MiB, from
    /// 64 KiB up to 2 GiB.
    pub segment_bytes: u64,
    /// Memory for documents that were read lately. Default 32 MiB.
    pub cache_bytes: u64,
    /// Memory for documents that wait to be committed; over it a blocking put
    /// waits, and a submitted one is refused with [`Error::Overloaded`]. Default
    /// 64 MiB.
    pub queue_bytes: u64,
    /// Whether there is a catalogue. Without one, [`crate::Engine::list`] and
    /// [`crate::Engine::usage`] fail, and opening and writing cost less. It can be
    /// switched on again at any open, and is built then. Default yes.
    pub catalogue: bool,
    /// Memory for changes that the catalogue has still to take in. When it is spent,
    /// writes go on, and listings wait until the catalogue has caught up from the log,
    /// which it does once writes are fewer or a listing waits; then, and where it is
    /// spent on deletes, commits wait for the catalogue. Default 16 MiB.
    pub catalogue_pending_bytes: u64,
    /// Memory that sled is told to use as its cache (it takes more). Default 8 MiB.
    pub catalogue_cache_bytes: u64,
    /// How many values of spooled documents are checked at the same time, each in
    /// a buffer of up to [`Limits::max_value_bytes`], and a second one while it is told
    /// where a refused value goes wrong. Default 2.
    pub value_checks: usize,
    /// Whether a thread of the engine gives space back: it rewrites segments of the log
    /// that are mostly stale, and removes files that nothing needs. Otherwise
    /// [`crate::Engine::compact`] and closing do. Default yes.
    pub background_compaction: bool,
    /// Space on the disk that is kept for deletes and compaction: a put that would
    /// leave less is refused as on a full disk. Default 8 MiB.
    pub reserve_bytes: u64,
    /// Segments of the log that are kept open for reading. Default 32.
    pub open_segments: usize,
    /// The file system. Default: the disk.
    pub fs: Arc<dyn Fs>,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

impl Config {
    /// The longest document that may lie in the log.
    pub const MAX_INLINE_BYTES: u32 = 16 * 1024 * 1024;
    /// The shortest segment.
    pub const MIN_SEGMENT_BYTES: u64 = 64 * KIB;
    /// The longest segment: offsets in the table are 32 bits wide, and a segment
    /// may outgrow this length by one frame.
    pub const MAX_SEGMENT_BYTES: u64 = 2 * 1024 * MIB;
    /// File descriptors that an open engine takes at most, besides
    /// [`Self::open_segments`] and two for each call that reads or writes a large
    /// document: the lock; the segment that is written and the one that follows it; a
    /// file and a folder that the committer, compaction and the catalogue's thread each
    /// has open for a moment; the catalogue's own.
    pub const DESCRIPTORS: u64 = 16;

    /// The defaults, for this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            limits: Limits::default(),
            durability: Durability::default(),
            inline_bytes: 256 * 1024,
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
            fs: Arc::new(Disk),
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
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
            .field("limits", &self.limits)
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}
