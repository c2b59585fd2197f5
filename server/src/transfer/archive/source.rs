//! The bytes of a backup that is read.

use std::io::{self, Read};

use crate::transfer::archive::error::ArchiveError;

/// Size of a tar block in bytes. Headers are one block long, and the data of a file fills whole
/// blocks (POSIX pax, "ustar Interchange Format").
pub(super) const BLOCK_BYTES: usize = 512;
/// Offset and value of the field that identifies a tar header.
const MAGIC_OFFSET: usize = 257;
const MAGIC: &[u8] = b"ustar";
/// The first bytes of compressed files, the name of the format, and a command that decompresses
/// standard input.
const COMPRESSED: [(&[u8], &str, &str); 4] = [
    (&[0x1f, 0x8b], "gzip", "gzip -dc"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", "zstd -dc"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz", "xz -dc"),
    (b"BZh", "bzip2", "bzip2 -dc"),
];

/// A reader that counts the bytes of a backup, and notices the end of the input.
pub(super) struct Source<'a> {
    /// The first block, or as much of it as [`Self::read`] has not returned yet.
    head: io::Cursor<Vec<u8>>,
    from: &'a mut dyn Read,
    bytes: u64,
    is_at_end: bool,
}

impl<'a> Source<'a> {
    /// Reads the first block, and checks that it is a tar header.
    ///
    /// # Errors
    /// [`ArchiveError::Compressed`], [`ArchiveError::NotABackup`], [`ArchiveError::Truncated`],
    /// [`ArchiveError::Read`].
    pub(super) fn open(from: &'a mut dyn Read) -> Result<Self, ArchiveError> {
        let mut head = Vec::with_capacity(BLOCK_BYTES);
        let read = from.take(BLOCK_BYTES as u64).read_to_end(&mut head);
        read.map_err(ArchiveError::Read)?;
        for (magic, format, command) in COMPRESSED {
            if head.starts_with(magic) {
                return Err(ArchiveError::Compressed { format, command });
            }
        }
        if head.is_empty() {
            return Err(ArchiveError::Truncated { bytes: 0 });
        }
        let magic = head.get(MAGIC_OFFSET..MAGIC_OFFSET + MAGIC.len());
        if magic != Some(MAGIC) || head.len() < BLOCK_BYTES {
            return Err(ArchiveError::NotABackup);
        }
        Ok(Self {
            head: io::Cursor::new(head),
            from,
            bytes: 0,
            is_at_end: false,
        })
    }

    /// Replaces an error by [`ArchiveError::Truncated`] if the input has ended.
    pub(super) fn explain(&self, error: ArchiveError) -> ArchiveError {
        match error {
            ArchiveError::Read(_) | ArchiveError::Incomplete if self.is_at_end => {
                ArchiveError::Truncated { bytes: self.bytes }
            }
            error => error,
        }
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = self.head.read(buffer)?;
        if read == 0 {
            read = self.from.read(buffer)?;
        }
        self.is_at_end |= read == 0 && !buffer.is_empty();
        self.bytes += read as u64;
        Ok(read)
    }
}
