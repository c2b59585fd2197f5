//! The checksums of an extent.

use crate::format::frame::member::EXTENT_CHUNK_BYTES;

/// Computes the checksums of an extent incrementally: one CRC-32 for each chunk of
/// [`EXTENT_CHUNK_BYTES`].
#[derive(Default)]
pub(crate) struct ChunkChecksums {
    /// The checksum of the current chunk so far.
    hasher: crc32fast::Hasher,
    /// Number of bytes of the current chunk that have been hashed.
    hashed: usize,
    /// The checksums of the complete chunks.
    done: Vec<u32>,
}

impl ChunkChecksums {
    /// Begins to compute the checksums of an extent whose first bytes are `bytes`. [`Self::update`]
    /// adds more bytes.
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

    /// Returns the checksums of all chunks, including an incomplete last chunk.
    pub(crate) fn finish(mut self) -> Vec<u32> {
        if self.hashed > 0 {
            self.close_chunk();
        }
        self.done
    }
}
