//! A counting semaphore.
//!
//! A semaphore limits the number of threads that do the same kind of work at the same time. Unlike
//! a mutex, a semaphore protects no data. A thread may hold a permit during file operations.

use std::sync::{Condvar, Mutex, PoisonError};

/// A counting semaphore with a fixed number of permits.
pub(crate) struct Semaphore {
    free: Mutex<usize>,
    returned: Condvar,
}

/// One permit. Dropping the permit returns it to the semaphore.
pub(crate) struct SemaphorePermit<'a>(&'a Semaphore);

impl Semaphore {
    pub(crate) const fn new(permits: usize) -> Self {
        Self {
            free: Mutex::new(permits),
            returned: Condvar::new(),
        }
    }

    /// Blocks until a permit is free.
    pub(crate) fn acquire(&self) -> SemaphorePermit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .returned
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        SemaphorePermit(self)
    }
}

impl Drop for SemaphorePermit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn semaphore_with_two_permits_lets_two_threads_in_at_a_time() {
        let semaphore = Semaphore::new(2);
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _permit = semaphore.acquire();
                        let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
    }
}
