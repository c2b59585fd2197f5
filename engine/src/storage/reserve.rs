//! The reserve: files whose only purpose is to occupy disk space and inodes. On a full disk, the
//! reserve is released step by step, to provide space for deletes, compaction and recovery.
//!
//! Deletes and compactions free space, so they must remain possible on a full disk. If a part of
//! the reserve was released, the reserve is filled again before the next put is committed. If the
//! disk is still full, the put is rejected, and the reserve keeps the space that it could get, so
//! that no other program can use up this space.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform::fs::{File, Fs};

/// Maximum size in bytes of each write that fills the reserve.
const WRITE_CHUNK_BYTES: u64 = 256 * 1024;
/// Number of bytes by which one step shortens the reserve. One step is enough for the tail of a
/// small log and for thousands of deletes. A larger step would give more space to other programs.
const STEP_BYTES: u64 = 1024 * 1024;
/// Empty files that occupy inodes. A new segment needs up to three inodes: for the summary of the
/// previous segment, for its own file, and for the new manifest. An erasure creates two segments
/// before it removes a file. A start after a crash can create a segment with its summary, and the
/// summary of the segment that was active. The files are enough for several starts without
/// compaction.
const INODE_FILES: [&str; 12] = [
    "reserve.1",
    "reserve.2",
    "reserve.3",
    "reserve.4",
    "reserve.5",
    "reserve.6",
    "reserve.7",
    "reserve.8",
    "reserve.9",
    "reserve.10",
    "reserve.11",
    "reserve.12",
];

/// The reserve of an open store. A size of 0 means that the store has no reserve.
pub(crate) struct Reserve {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    path: PathBuf,
    bytes: u64,
    /// True if all files exist and have their full size.
    is_filled: bool,
}

impl Reserve {
    /// Opens the reserve in `dir`, and fills the reserve if it does not have its full size. If the
    /// reserve cannot be filled, for example on a full disk, the store has a smaller reserve until
    /// a later [`Self::fill`] succeeds.
    pub(crate) fn open(fs: Arc<dyn Fs>, dir: &Path, bytes: u64) -> Self {
        let mut reserve = Self {
            path: path(dir),
            dir: dir.to_owned(),
            fs,
            bytes,
            is_filled: false,
        };
        if bytes == 0 {
            while release_step(&*reserve.fs, dir) {}
        }
        let _ = reserve.fill();
        reserve
    }

    /// The reserve of a store that is open for reading only: the store has no reserve, and files of
    /// an existing reserve stay as they are.
    pub(crate) fn unused(fs: Arc<dyn Fs>, dir: &Path) -> Self {
        Self {
            path: path(dir),
            dir: dir.to_owned(),
            fs,
            bytes: 0,
            is_filled: false,
        }
    }

    /// Fills the reserve durably. Does nothing if the reserve is already filled. After an error,
    /// the reserve keeps the space that it could get.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        if self.is_filled || self.bytes == 0 {
            return Ok(());
        }
        let mut is_new = false;
        let created = self.create_files(&mut is_new);
        // After an error, the directory is synced too, because some of the files may be new.
        let synced = if is_new {
            self.fs.sync_dir(&self.dir)
        } else {
            Ok(())
        };
        created.and(synced)?;
        self.is_filled = true;
        Ok(())
    }

    /// Creates the missing files, and fills the largest file. Sets `is_new` if a file was created.
    fn create_files(&self, is_new: &mut bool) -> io::Result<()> {
        let file = match self.fs.open_for_write(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = self.fs.create(&self.path)?;
                *is_new = true;
                file
            }
            opened => opened?,
        };
        self.write(&*file)?;
        self.create_inode_files(is_new)
    }

    fn create_inode_files(&self, is_new: &mut bool) -> io::Result<()> {
        for name in INODE_FILES {
            match self.fs.create(&self.dir.join(name)) {
                Ok(_) => *is_new = true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reclaims the inodes that [`Self::release`] has released and that are still free. The space
    /// is not reclaimed, because filling the reserve after each delete would be slow.
    pub(crate) fn reclaim_inodes(&self) {
        let mut is_new = false;
        let _ = self.create_inode_files(&mut is_new);
        if is_new {
            let _ = self.fs.sync_dir(&self.dir);
        }
    }

    fn write(&self, file: &dyn File) -> io::Result<()> {
        let mut offset = file.len()?;
        if offset == self.bytes {
            return Ok(());
        }
        if offset > self.bytes {
            file.set_len(self.bytes)?;
        }
        // The bytes are pseudo-random, because a compressing file system would store zeros in
        // almost no space. The offset is a part of the seed, so that no two chunks are equal.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ offset;
        let mut chunk = Vec::new();
        while offset < self.bytes {
            let len = WRITE_CHUNK_BYTES.min(self.bytes - offset);
            chunk.clear();
            while (chunk.len() as u64) < len {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                chunk.extend_from_slice(&state.to_le_bytes());
            }
            let written = usize::try_from(len).unwrap_or(usize::MAX);
            let bytes = chunk.get(..written).unwrap_or(&chunk);
            file.write_all_at(bytes, offset)?;
            offset += len;
        }
        // With delayed allocation, a file system allocates blocks only when it writes the data. The
        // sync forces the allocation.
        file.sync()
    }

    /// Releases a part of the reserve. Returns false if nothing is left to release.
    pub(crate) fn release(&mut self) -> bool {
        if self.bytes == 0 {
            return false;
        }
        self.is_filled = false;
        release_step(&*self.fs, &self.dir)
    }

    /// The path of the largest reserve file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns true if the reserve is filled, or if the store is configured without a reserve.
    pub(crate) fn is_available(&self) -> bool {
        self.is_filled || self.bytes == 0
    }
}

/// Releases a part of the reserve in `dir`: first the files that occupy only inodes and
/// [`STEP_BYTES`] of space, then [`STEP_BYTES`] at a time, and then the file itself. Returns false
/// if nothing was released.
pub(crate) fn release_step(fs: &dyn Fs, dir: &Path) -> bool {
    let mut released = false;
    for name in INODE_FILES {
        released |= fs.remove(&dir.join(name)).is_ok();
    }
    let path = path(dir);
    let Ok(file) = fs.open_for_write(&path) else {
        return released;
    };
    let left = file.len().unwrap_or(0).saturating_sub(STEP_BYTES);
    if left > 0 && file.set_len(left).is_ok() {
        return true;
    }
    fs.remove(&path).is_ok() || released
}

fn path(dir: &Path) -> PathBuf {
    dir.join("reserve")
}
