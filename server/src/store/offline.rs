//! Operations on a data directory that no server has open. Every function in this file may block.

use std::path::Path;

use prefd_engine::{
    Config, Durability, Engine, Error, Limits, Progress, Stats, Verification, require_store,
};

use crate::store::blocking_store::BlockingStore;
use crate::store::data_dir::{OpenError, refuse_unfinished};

/// The effect of a compaction.
pub(crate) struct CompactionReport {
    pub(crate) before: Stats,
    pub(crate) after: Stats,
    /// After an error, the segments that were already compacted remain compacted.
    pub(crate) outcome: Result<(), Error>,
}

/// Opens an existing store. If the directory does not contain a store, fails without changing the
/// directory.
pub(crate) fn open(data_dir: &Path) -> Result<BlockingStore, OpenError> {
    refuse_unfinished(data_dir)?;
    require_store(&Config::new(data_dir))?;
    Ok(BlockingStore::new(Engine::open(
        config_without_background_work(data_dir),
    )?))
}

/// Opens an existing store for reading only. Changes nothing in the directory.
pub(crate) fn open_read_only(data_dir: &Path) -> Result<BlockingStore, OpenError> {
    refuse_unfinished(data_dir)?;
    let mut config = config_without_background_work(data_dir);
    config.read_only = true;
    Ok(BlockingStore::new(Engine::open(config)?))
}

/// Opens a store for many writes, and creates it if it does not exist. The writes are on stable
/// storage once the store is closed.
pub(crate) fn open_for_import(data_dir: &Path, limits: Limits) -> Result<BlockingStore, OpenError> {
    refuse_unfinished(data_dir)?;
    let mut config = config_without_background_work(data_dir);
    config.limits = limits;
    config.durability = Durability::Buffered;
    Ok(BlockingStore::new(Engine::open(config)?))
}

/// Opens a store with the default configuration of a server, and creates the store if it does not
/// exist. If `caches` is false, the document cache is turned off.
pub(crate) fn open_for_bench(data_dir: &Path, caches: bool) -> Result<BlockingStore, Error> {
    let mut config = Config::new(data_dir);
    if !caches {
        config.cache_bytes = 0;
    }
    Ok(BlockingStore::new(Engine::open(config)?))
}

/// The configuration for offline commands: the engine compacts only on request.
fn config_without_background_work(data_dir: &Path) -> Config {
    let mut config = Config::new(data_dir);
    config.background_compaction = false;
    config
}

/// Checks all data of a store. Changes nothing in the directory.
pub(crate) fn verify(
    data_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Verification, OpenError> {
    refuse_unfinished(data_dir)?;
    Ok(prefd_engine::verify(&Config::new(data_dir), progress)?)
}

/// Counts the documents, bytes and segments of a store. Changes nothing in the directory.
pub(crate) fn stats(data_dir: &Path) -> Result<Stats, OpenError> {
    refuse_unfinished(data_dir)?;
    Ok(prefd_engine::stats(&Config::new(data_dir))?)
}

/// Reclaims disk space from replaced and deleted documents.
pub(crate) fn compact(
    data_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<CompactionReport, OpenError> {
    refuse_unfinished(data_dir)?;
    // `stats` fails if the directory does not contain a store, but `Engine::open` would create a
    // store.
    let before = stats(data_dir)?;
    let store = BlockingStore::new(Engine::open(config_without_background_work(data_dir))?);
    let outcome = store.compact(progress);
    let outcome = outcome.and(store.close());
    drop(store);
    Ok(CompactionReport {
        before,
        after: stats(data_dir)?,
        outcome,
    })
}
