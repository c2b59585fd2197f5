//! The ordered map that the catalogue is kept in. The only module that names sled.
//!
//! sled 0.34.7 can fail, and can panic on a damaged directory: both are a
//! [`TreeError`] here, and both mean that the catalogue is to be built again.

use std::fs::{File, TryLockError};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::catalogue::row::{CatalogueKey, CatalogueValue};

/// sled's threads keep the lock of a tree for a moment after the last handle to it is
/// gone, and a tree is not opened while one has that: so long it may take.
const MAX_RELEASE: Duration = Duration::from_secs(10);

/// An open tree. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Tree(sled::Db);

/// It failed, or panicked, with this.
#[derive(Debug)]
pub(crate) struct TreeError(pub(crate) String);

impl From<sled::Error> for TreeError {
    fn from(error: sled::Error) -> Self {
        Self(error.to_string())
    }
}

/// Runs what calls sled.
fn guarded<T>(call: impl FnOnce() -> Result<T, TreeError>) -> Result<T, TreeError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(TreeError("sled panicked".to_owned())))
}

impl Tree {
    /// Opens the tree in a directory, or makes one there.
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Self, TreeError> {
        wait_for_release(path);
        guarded(|| {
            let config = sled::Config::new()
                .path(path)
                .cache_capacity(cache_bytes)
                // Nothing here need survive a crash.
                .flush_every_ms(None);
            Ok(Self(config.open()?))
        })
    }

    pub(crate) fn insert(&self, key: &[u8], value: CatalogueValue) -> Result<(), TreeError> {
        guarded(|| {
            self.0.insert(key, &value.encode())?;
            Ok(())
        })
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<CatalogueValue>, TreeError> {
        guarded(|| {
            let Some(value) = self.0.get(key)? else {
                return Ok(None);
            };
            let value = CatalogueValue::decode(&value)
                .ok_or_else(|| TreeError("a value is not one of ours".to_owned()))?;
            Ok(Some(value))
        })
    }

    /// Entries in it. Walks all of them.
    pub(crate) fn len(&self) -> Result<u64, TreeError> {
        guarded(|| Ok(self.0.len() as u64))
    }

    pub(crate) fn remove(&self, key: &[u8]) -> Result<(), TreeError> {
        guarded(|| {
            self.0.remove(key)?;
            Ok(())
        })
    }

    /// Hands everything to the system; sled never asks for more.
    pub(crate) fn flush(&self) -> Result<(), TreeError> {
        guarded(|| {
            self.0.flush()?;
            Ok(())
        })
    }

    /// The entries from `first` on that begin with `prefix`, in order.
    pub(crate) fn range(
        &self,
        first: Bound<CatalogueKey>,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(CatalogueKey, CatalogueValue), TreeError>> {
        let mut pairs = self.0.range((first, Bound::Unbounded));
        std::iter::from_fn(move || {
            let next = guarded(|| {
                let Some(pair) = pairs.next() else {
                    return Ok(None);
                };
                let (key, value) = pair?;
                if !key.starts_with(prefix) {
                    return Ok(None);
                }
                let value = CatalogueValue::decode(&value)
                    .ok_or_else(|| TreeError("a value is not one of ours".to_owned()))?;
                Ok(Some((key.to_vec(), value)))
            });
            next.transpose()
        })
    }
}

/// Waits until nobody has the tree in this directory any more. What else is wrong with it
/// is for sled to say.
pub(super) fn wait_for_release(path: &Path) {
    let Ok(file) = File::open(path.join("db")) else {
        return;
    };
    let began = Instant::now();
    while matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && began.elapsed() < MAX_RELEASE
    {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_whose_lock_is_about_to_go_is_opened_then() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path(), 1 << 20).unwrap();
        tree.flush().unwrap();
        drop(tree);
        wait_for_release(dir.path());
        let held = File::open(dir.path().join("db")).unwrap();
        held.try_lock().unwrap();
        std::thread::scope(|scope| {
            let opened = scope.spawn(|| Tree::open(dir.path(), 1 << 20).map(drop));
            // Were it not waited for, the open had failed by then.
            std::thread::sleep(Duration::from_millis(50));
            drop(held);
            opened.join().unwrap().unwrap();
        });
    }
}
