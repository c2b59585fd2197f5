//! Where bytes in memory should begin that go to a file, or come from one.
//!
//! To copy between the page cache and memory that lies otherwise takes some processors
//! three times as long.

use std::cell::Cell;

const CACHE_LINE_BYTES: u64 = 64;
/// What a buffer must have more for [`misalignment`].
pub(crate) const LARGEST_SHIFT: usize = 63;
/// What a thread keeps of memory for [`AlignedBuffer`], at most.
const MOST_KEPT_BYTES: usize = 512 * 1024;

/// How far into `memory` bytes should begin that go to this offset of a file, or come
/// from it, so that both are as far behind a cache line.
pub(crate) fn misalignment(memory: &[u8], offset: u64) -> usize {
    let distance = offset.wrapping_sub(memory.as_ptr().addr() as u64);
    usize::try_from(distance % CACHE_LINE_BYTES).unwrap_or_default()
}

thread_local! {
    static OF_THIS_THREAD: Cell<Option<AlignedBuffer>> = const { Cell::new(None) };
}

/// Bytes that are gathered to be written at once. Past the capacity they are as right, and
/// may lie otherwise.
#[derive(Default)]
pub(crate) struct AlignedBuffer {
    memory: Vec<u8>,
    /// Where in the memory they begin.
    start: usize,
}

impl AlignedBuffer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            memory: Vec::with_capacity(bytes + LARGEST_SHIFT),
            start: 0,
        }
    }

    /// What this thread has kept, or else new memory. Threads that take turns do not hand
    /// their memory to each other, which would have each wait for the other's cache lines.
    pub(crate) fn of_this_thread(bytes: usize) -> Self {
        let kept = OF_THIS_THREAD.take();
        kept.unwrap_or_else(|| Self::with_capacity(bytes))
    }

    pub(crate) fn keep_for_this_thread(mut self) {
        // What a frame far beyond the usual made it grow to is not kept.
        if self.memory.capacity() > MOST_KEPT_BYTES {
            return;
        }
        self.memory.clear();
        self.start = 0;
        OF_THIS_THREAD.set(Some(self));
    }

    /// Forgets them: what follows goes to this offset of the file.
    pub(crate) fn begin(&mut self, offset: u64) {
        self.memory.clear();
        self.start = misalignment(&self.memory, offset);
        self.memory.resize(self.start, 0);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.memory.len() - self.start
    }

    /// What they may be appended to.
    pub(crate) fn end(&mut self) -> &mut Vec<u8> {
        &mut self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_back_the_memory_that_it_kept_and_nothing_in_it() {
        let mut gathered = AlignedBuffer::of_this_thread(100);
        gathered.begin(5);
        gathered.end().extend_from_slice(&[7; 100]);
        let memory = gathered.memory.as_ptr();
        gathered.keep_for_this_thread();
        let again = AlignedBuffer::of_this_thread(100);
        assert_eq!((again.memory.as_ptr(), again.bytes()), (memory, &[][..]));
        let mut other = AlignedBuffer::of_this_thread(100);
        assert_ne!(other.memory.as_ptr(), memory);
        other.end().resize(MOST_KEPT_BYTES + 1, 0);
        other.keep_for_this_thread();
        assert!(OF_THIS_THREAD.take().is_none());
    }

    #[test]
    fn what_is_gathered_lies_as_its_place_in_the_file_does() {
        let mut gathered = AlignedBuffer::with_capacity(100);
        for offset in [0, 1, 28, 63, 64, 65, 1_000_003] {
            gathered.begin(offset);
            assert_eq!(gathered.bytes(), b"");
            gathered.end().extend_from_slice(&[7; 100]);
            assert_eq!((gathered.bytes(), gathered.len()), (&[7; 100][..], 100));
            let place = gathered.bytes().as_ptr().addr() as u64;
            assert_eq!(place % 64, offset % 64);
        }
    }
}
