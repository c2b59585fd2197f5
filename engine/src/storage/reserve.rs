//! The reserve: a file whose only purpose is to occupy disk space. On a full disk, the file can be
//! removed to provide disk space for deletes, compaction or recovery.
//!
//! Deletes and compactions free space, so they must remain possible on a full disk. If the reserve
//! was removed, it is filled again before the next put is committed. If the disk is still full, the
//! put is rejected.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform::fs::Fs;

/// Maximum size in bytes of each write that fills the reserve.
const WRITE_CHUNK_BYTES: usize = 256 * 1024;

/// The reserve of an open store. A size of 0 means that the store has no reserve.
pub(crate) struct Reserve {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    bytes: u64,
    /// True if the file exists and has its full size.
    is_filled: bool,
}

impl Reserve {
    /// Opens the reserve in `dir`, and fills the reserve if the file is missing or has another
    /// size. If the reserve cannot be filled, for example on a full disk, the store has no reserve
    /// until a later [`Self::fill`] succeeds.
    pub(crate) fn open(fs: Arc<dyn Fs>, dir: &Path, bytes: u64) -> Self {
        let mut reserve = Self {
            path: path(dir),
            fs,
            bytes,
            is_filled: false,
        };
        reserve.is_filled = reserve.len() == Some(bytes);
        if !reserve.is_filled {
            let _ = reserve.fs.remove(&reserve.path);
        }
        let _ = reserve.fill();
        reserve
    }

    fn len(&self) -> Option<u64> {
        self.fs.open(&self.path).and_then(|file| file.len()).ok()
    }

    /// Fills the reserve durably. Does nothing if the reserve is already filled. If an error
    /// occurs, the partial file is removed.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        if self.is_filled || self.bytes == 0 {
            return Ok(());
        }
        let written = self.write();
        match &written {
            Ok(()) => self.is_filled = true,
            Err(_) => drop(self.fs.remove(&self.path)),
        }
        written
    }

    fn write(&self) -> io::Result<()> {
        let file = self.fs.create(&self.path)?;
        // The bytes are pseudo-random, because a compressing file system would store zeros in
        // almost no space.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut chunk = vec![0; WRITE_CHUNK_BYTES];
        let mut offset = 0;
        while offset < self.bytes {
            for word in chunk.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            let wanted = usize::try_from(self.bytes - offset).unwrap_or(usize::MAX);
            let bytes = chunk.get(..wanted).unwrap_or(&chunk);
            file.write_all_at(bytes, offset)?;
            offset += bytes.len() as u64;
        }
        // With delayed allocation, a file system allocates blocks only when it writes the data. The
        // sync forces the allocation.
        file.sync()
    }

    /// Removes the reserve file. Returns true if a file was removed.
    pub(crate) fn release(&mut self) -> bool {
        if !self.is_filled {
            return false;
        }
        self.is_filled = false;
        self.fs.remove(&self.path).is_ok()
    }

    /// The path of the reserve file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true if the reserve is filled, or if the store is configured without a reserve.
    pub(crate) fn is_available(&self) -> bool {
        self.is_filled || self.bytes == 0
    }
}

/// Removes the reserve of a store that is not open yet. Returns true if a file was removed.
pub(crate) fn release(fs: &dyn Fs, dir: &Path) -> bool {
    fs.remove(&path(dir)).is_ok()
}

fn path(dir: &Path) -> PathBuf {
    dir.join("reserve")
}
