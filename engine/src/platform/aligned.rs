//! Buffers for file I/O that are aligned like the file: the memory address and the file offset of
//! each byte are equal modulo 64, the length of a cache line.
//!
//! On some processors, copying between a buffer and the page cache takes three times as long if the
//! buffer and the page are aligned differently.

use std::cell::Cell;

const CACHE_LINE_BYTES: u64 = 64;
/// The largest padding that [`alignment_padding`] returns, in bytes. Each buffer is allocated with
/// room for this padding.
pub(crate) const MAX_ALIGNMENT_PADDING: usize = 63;
/// Maximum capacity of a buffer that a thread caches for the next batch, in bytes.
const MAX_CACHED_BYTES: usize = 512 * 1024;

/// Returns the number of bytes to skip at the start of `memory`, so that the address of the next
/// byte and `offset` are equal modulo the length of a cache line.
pub(crate) fn alignment_padding(memory: &[u8], offset: u64) -> usize {
    let distance = offset.wrapping_sub(memory.as_ptr().addr() as u64);
    usize::try_from(distance % CACHE_LINE_BYTES).unwrap_or_default()
}

thread_local! {
    static THREAD_BUFFER: Cell<Option<AlignedBuffer>> = const { Cell::new(None) };
}

/// A buffer that collects bytes for one write to a file.
///
/// If the content outgrows the capacity, the buffer is reallocated. The reallocated content may no
/// longer be aligned.
#[derive(Default)]
pub(crate) struct AlignedBuffer {
    memory: Vec<u8>,
    /// Index of the first byte of the content. The bytes before this index are padding.
    start: usize,
}

impl AlignedBuffer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            memory: Vec::with_capacity(bytes + MAX_ALIGNMENT_PADDING),
            start: 0,
        }
    }

    /// Returns the cached buffer of the calling thread, or a new buffer of the given capacity.
    ///
    /// Each thread caches a separate buffer. If all threads that commit shared one buffer, each
    /// thread would wait for the cache lines that the previous thread has modified.
    pub(crate) fn from_thread_cache(bytes: usize) -> Self {
        let cached = THREAD_BUFFER.take();
        cached.unwrap_or_else(|| Self::with_capacity(bytes))
    }

    /// Clears the buffer and caches it for the calling thread.
    pub(crate) fn into_thread_cache(mut self) {
        // A buffer that has grown beyond the maximum capacity, because of an unusually large frame,
        // is freed.
        if self.memory.capacity() > MAX_CACHED_BYTES {
            return;
        }
        self.memory.clear();
        self.start = 0;
        THREAD_BUFFER.set(Some(self));
    }

    /// Clears the buffer, and aligns it for content that will be written at `offset` in the file.
    pub(crate) fn restart_at(&mut self, offset: u64) {
        self.memory.clear();
        self.start = alignment_padding(&self.memory, offset);
        self.memory.resize(self.start, 0);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.memory.len() - self.start
    }

    /// Returns the vector to which content can be appended. The vector begins with the padding, so
    /// its length can differ from [`Self::len`].
    pub(crate) fn tail_mut(&mut self) -> &mut Vec<u8> {
        &mut self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_buffer_is_reused_by_its_thread_and_is_empty() {
        let mut buffer = AlignedBuffer::from_thread_cache(100);
        buffer.restart_at(5);
        buffer.tail_mut().extend_from_slice(&[7; 100]);
        let memory = buffer.memory.as_ptr();
        buffer.into_thread_cache();
        let again = AlignedBuffer::from_thread_cache(100);
        assert_eq!((again.memory.as_ptr(), again.bytes()), (memory, &[][..]));
        let mut other = AlignedBuffer::from_thread_cache(100);
        assert_ne!(other.memory.as_ptr(), memory);
        other.tail_mut().resize(MAX_CACHED_BYTES + 1, 0);
        other.into_thread_cache();
        assert!(THREAD_BUFFER.take().is_none());
    }

    #[test]
    fn buffer_content_is_aligned_like_its_file_offset() {
        let mut buffer = AlignedBuffer::with_capacity(100);
        for offset in [0, 1, 28, 63, 64, 65, 1_000_003] {
            buffer.restart_at(offset);
            assert_eq!(buffer.bytes(), b"");
            buffer.tail_mut().extend_from_slice(&[7; 100]);
            assert_eq!((buffer.bytes(), buffer.len()), (&[7; 100][..], 100));
            let address = buffer.bytes().as_ptr().addr() as u64;
            assert_eq!(address % 64, offset % 64);
        }
    }
}
