//! Checksums of the files in a backup.

use std::io::{self, Read};

use crc32fast::Hasher;

/// A reader that passes on the bytes of another reader, counts them, and computes their CRC-32.
pub(super) struct ChecksumReader<R> {
    reader: R,
    bytes: u64,
    hasher: Hasher,
}

impl<R> ChecksumReader<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            bytes: 0,
            hasher: Hasher::new(),
        }
    }

    pub(super) fn get_ref(&self) -> &R {
        &self.reader
    }

    /// Returns the number of bytes that were read, and their CRC-32.
    pub(super) fn finish(self) -> (u64, u32) {
        (self.bytes, self.hasher.finalize())
    }
}

impl<R: Read> Read for ChecksumReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.bytes += read as u64;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}
