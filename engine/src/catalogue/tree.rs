//! The sorted map that stores the catalogue. Only this module uses sled.
//!
//! sled 0.34.7 can return errors, and can panic on a damaged directory. Errors and panics become a
//! [`TreeError`], after which the catalogue must be rebuilt.

use std::fs::{File, TryLockError};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::catalogue::row::{CatalogueKey, CatalogueValue};

/// Maximum time to wait for sled's file lock. sled's background threads keep the lock for a short
/// time after the last handle is dropped, and a locked tree cannot be opened.
const MAX_LOCK_WAIT: Duration = Duration::from_secs(10);

/// An open tree. Clones refer to the same tree.
#[derive(Clone)]
pub(crate) struct Tree(sled::Db);

/// The message of an error or a panic in sled.
#[derive(Debug)]
pub(crate) struct TreeError(pub(crate) String);

impl From<sled::Error> for TreeError {
    fn from(error: sled::Error) -> Self {
        Self(error.to_string())
    }
}

/// Runs a call to sled and converts a panic to an error.
fn catch_panics<T>(call: impl FnOnce() -> Result<T, TreeError>) -> Result<T, TreeError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(TreeError("sled panicked".to_owned())))
}

impl Tree {
    /// Opens the tree in a directory. Creates the tree if it does not exist. Blocks while another
    /// handle has the tree open, for up to [`MAX_LOCK_WAIT`].
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Self, TreeError> {
        wait_for_lock_release(path);
        catch_panics(|| {
            let config = sled::Config::new()
                .path(path)
                .cache_capacity(cache_bytes)
                // The tree need not survive a crash, because it is rebuilt from the log.
                .flush_every_ms(None);
            Ok(Self(config.open()?))
        })
    }

    /// Inserts or replaces an entry.
    pub(crate) fn insert(&self, key: &[u8], value: CatalogueValue) -> Result<(), TreeError> {
        catch_panics(|| {
            self.0.insert(key, &value.encode())?;
            Ok(())
        })
    }

    /// Returns the value of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<CatalogueValue>, TreeError> {
        catch_panics(|| {
            let Some(value) = self.0.get(key)? else {
                return Ok(None);
            };
            let value = CatalogueValue::decode(&value)
                .ok_or_else(|| TreeError("a stored value has an unknown layout".to_owned()))?;
            Ok(Some(value))
        })
    }

    /// Counts the entries by iterating over all of them.
    pub(crate) fn len(&self) -> Result<u64, TreeError> {
        catch_panics(|| Ok(self.0.len() as u64))
    }

    /// Removes an entry, if it exists.
    pub(crate) fn remove(&self, key: &[u8]) -> Result<(), TreeError> {
        catch_panics(|| {
            self.0.remove(key)?;
            Ok(())
        })
    }

    /// Writes all changes to the files. sled does not sync the files.
    pub(crate) fn flush(&self) -> Result<(), TreeError> {
        catch_panics(|| {
            self.0.flush()?;
            Ok(())
        })
    }

    /// Iterates over the entries whose keys begin with `prefix`, in order, starting at
    /// `first`.
    pub(crate) fn range(
        &self,
        first: Bound<CatalogueKey>,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(CatalogueKey, CatalogueValue), TreeError>> {
        let mut pairs = self.0.range((first, Bound::Unbounded));
        std::iter::from_fn(move || {
            let next = catch_panics(|| {
                let Some(pair) = pairs.next() else {
                    return Ok(None);
                };
                let (key, value) = pair?;
                if !key.starts_with(prefix) {
                    return Ok(None);
                }
                let value = CatalogueValue::decode(&value)
                    .ok_or_else(|| TreeError("a stored value has an unknown layout".to_owned()))?;
                Ok(Some((key.to_vec(), value)))
            });
            next.transpose()
        })
    }
}

/// Waits until no other handle has the tree in this directory open. Other problems with the
/// directory are reported by sled when the tree is opened.
pub(super) fn wait_for_lock_release(path: &Path) {
    let Ok(file) = File::open(path.join("db")) else {
        return;
    };
    let began = Instant::now();
    while matches!(file.try_lock(), Err(TryLockError::WouldBlock))
        && began.elapsed() < MAX_LOCK_WAIT
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_waits_until_the_previous_lock_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path(), 1 << 20).unwrap();
        tree.flush().unwrap();
        drop(tree);
        wait_for_lock_release(dir.path());
        let lock_file = File::open(dir.path().join("db")).unwrap();
        lock_file.try_lock().unwrap();
        std::thread::scope(|scope| {
            let opened = scope.spawn(|| Tree::open(dir.path(), 1 << 20).map(drop));
            // An `open` that does not wait for the lock would fail within this time.
            std::thread::sleep(Duration::from_millis(50));
            drop(lock_file);
            opened.join().unwrap().unwrap();
        });
    }
}
