//! The checksums of a value that lies in a blob.

use crate::format::frame::meta::EXTENT_CHUNK_BYTES;

/// Checksums a value's bytes as they pass: one CRC-32 for each
/// [`EXTENT_CHUNK_BYTES`].
#[derive(Default)]
pub(crate) struct ChunkChecksums {
    hasher: crc32fast::Hasher,
    hashed: usize,
    done: Vec<u32>,
}

impl ChunkChecksums {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut checksums = Self::default();
        checksums.update(bytes);
        checksums
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = EXTENT_CHUNK_BYTES - self.hashed;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.hasher.update(now);
            self.hashed += now.len();
            if self.hashed == EXTENT_CHUNK_BYTES {
                self.close_chunk();
            }
            bytes = later;
        }
    }

    fn close_chunk(&mut self) {
        self.done.push(std::mem::take(&mut self.hasher).finalize());
        self.hashed = 0;
    }

    pub(crate) fn finish(mut self) -> Vec<u32> {
        if self.hashed > 0 {
            self.close_chunk();
        }
        self.done
    }
}
