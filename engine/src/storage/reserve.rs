//! The reserve: a file that only takes up space, so that on a full disk there is room
//! left for what gives space back: deletes, and compaction.
//!
//! It is given up when one of these needs it, and filled again before the next put.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform::fs::Fs;

/// Bytes written at once.
const PIECE_BYTES: usize = 256 * 1024;

pub(crate) struct Reserve {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    bytes: u64,
    is_held: bool,
}

impl Reserve {
    /// The reserve in `dir`, as an earlier life left it, or filled now if there is room.
    pub(crate) fn open(fs: Arc<dyn Fs>, dir: &Path, bytes: u64) -> Self {
        let mut reserve = Self {
            path: path(dir),
            fs,
            bytes,
            is_held: false,
        };
        reserve.is_held = reserve.len() == Some(bytes);
        if !reserve.is_held {
            let _ = reserve.fs.remove(&reserve.path);
        }
        let _ = reserve.fill();
        reserve
    }

    fn len(&self) -> Option<u64> {
        self.fs.open(&self.path).and_then(|file| file.len()).ok()
    }

    /// Takes the space. An error leaves nothing behind.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        if self.is_held || self.bytes == 0 {
            return Ok(());
        }
        let written = self.write();
        match &written {
            Ok(()) => self.is_held = true,
            Err(_) => drop(self.fs.remove(&self.path)),
        }
        written
    }

    fn write(&self) -> io::Result<()> {
        let file = self.fs.create(&self.path)?;
        // Not zeros: a file system that compresses would keep no space for them.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while offset < self.bytes {
            for word in piece.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            let wanted = usize::try_from(self.bytes - offset).unwrap_or(usize::MAX);
            let bytes = piece.get(..wanted).unwrap_or(&piece);
            file.write_all_at(bytes, offset)?;
            offset += bytes.len() as u64;
        }
        // So that the blocks are taken, and not only promised.
        file.sync()
    }

    /// Gives the space up; whether there was any.
    pub(crate) fn release(&mut self) -> bool {
        if !self.is_held {
            return false;
        }
        self.is_held = false;
        self.fs.remove(&self.path).is_ok()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the space is there when it is needed.
    pub(crate) fn is_held(&self) -> bool {
        self.is_held || self.bytes == 0
    }
}

/// Gives up the reserve of a store that is not open yet; whether there was one.
pub(crate) fn release(fs: &dyn Fs, dir: &Path) -> bool {
    fs.remove(&path(dir)).is_ok()
}

fn path(dir: &Path) -> PathBuf {
    dir.join("reserve")
}
