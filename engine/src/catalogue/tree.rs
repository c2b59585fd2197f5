//! The tree is the sorted map that stores the catalogue. Only this module uses sled.
//!
//! If its directory is damaged, sled 0.34.7 can return errors or panic. This module converts errors
//! and panics to a [`TreeError`]. After a `TreeError`, the catalogue must be rebuilt.

use std::fs::{File, TryLockError};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::catalogue::row::{CatalogueKey, CatalogueValue};

/// Maximum time to wait until sled's file lock is released. After the last handle is dropped,
/// sled's background threads keep the lock for a short time, and a locked tree cannot be opened.
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

/// Calls a function of sled, and converts a panic to an error.
fn catch_panics<T>(call: impl FnOnce() -> Result<T, TreeError>) -> Result<T, TreeError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(TreeError("sled panicked".to_owned())))
}

impl Tree {
    /// Opens the tree in a directory. Creates the tree if it does not exist. Blocks for up to
    /// [`MAX_LOCK_WAIT`] while another handle has the tree open.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Self, TreeError> {
        wait_for_lock_release(path);
        catch_panics(|| {
            let config = sled::Config::new()
                .path(path)
                .cache_capacity(cache_bytes)
                // sled does not have to flush regularly, because the tree is rebuilt from the log
                // after a crash.
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

    /// Removes an entry. Does nothing if the entry does not exist.
    pub(crate) fn remove(&self, key: &[u8]) -> Result<(), TreeError> {
        catch_panics(|| {
            self.0.remove(key)?;
            Ok(())
        })
    }

    /// Writes all changes to sled's files. A power cut can still lose the changes, because sled
    /// does not sync its log with fsync(2).
    pub(crate) fn flush(&self) -> Result<(), TreeError> {
        catch_panics(|| {
            self.0.flush()?;
            Ok(())
        })
    }

    /// Iterates in order over the entries whose keys begin with `prefix`, starting at `first`.
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

/// Blocks for up to [`MAX_LOCK_WAIT`] while another handle has the tree in this directory open.
/// Errors are ignored here, because sled reports them when the tree is opened.
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
            // If `open` did not wait for the lock, it would fail during this sleep.
            std::thread::sleep(Duration::from_millis(50));
            drop(lock_file);
            opened.join().unwrap().unwrap();
        });
    }
}
