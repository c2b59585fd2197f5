//! A data directory that no server has open. Every call here may block.

use std::path::Path;

use prefd_engine::{
    Config, Durability, Engine, Error, Limits, Progress, Stats, Verification, require_store,
};

use crate::store::bulk::Bulk;
use crate::store::data_dir::{OpenError, refuse_unfinished};

/// What compaction has changed.
pub(crate) struct Compacted {
    pub(crate) before: Stats,
    pub(crate) after: Stats,
    /// What was done before a failure is kept.
    pub(crate) outcome: Result<(), Error>,
}

/// Opens a store. A directory that is not one is refused, and not made.
pub(crate) fn open(data_dir: &Path) -> Result<Bulk, OpenError> {
    refuse_unfinished(data_dir)?;
    require_store(&Config::new(data_dir))?;
    Ok(Bulk::of(Engine::open(quiet(data_dir))?))
}

/// Opens a store, which is made where it is missing, to be filled. What is written is
/// durable once it is closed.
pub(crate) fn open_to_fill(data_dir: &Path, limits: Limits) -> Result<Bulk, OpenError> {
    refuse_unfinished(data_dir)?;
    let mut config = quiet(data_dir);
    config.limits = limits;
    config.durability = Durability::Buffered;
    Ok(Bulk::of(Engine::open(config)?))
}

/// Opens a store as a server does, which is made where it is missing, to be measured.
pub(crate) fn open_to_measure(data_dir: &Path, caches: bool) -> Result<Bulk, Error> {
    let mut config = Config::new(data_dir);
    if !caches {
        config.cache_bytes = 0;
    }
    Ok(Bulk::of(Engine::open(config)?))
}

/// Without work that nobody has asked for.
fn quiet(data_dir: &Path) -> Config {
    let mut config = Config::new(data_dir);
    config.background_compaction = false;
    config
}

/// Checks every byte of a store, and changes none.
pub(crate) fn verify(
    data_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Verification, Error> {
    prefd_engine::verify(&Config::new(data_dir), progress)
}

/// Counts what a store holds.
pub(crate) fn stats(data_dir: &Path) -> Result<Stats, Error> {
    prefd_engine::stats(&Config::new(data_dir))
}

/// Gives back what replaced and deleted documents take.
pub(crate) fn compact(
    data_dir: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Compacted, OpenError> {
    refuse_unfinished(data_dir)?;
    // A directory that is not a store is refused here, and not made.
    let before = stats(data_dir)?;
    let bulk = Bulk::of(Engine::open(quiet(data_dir))?);
    let outcome = bulk.compact(progress);
    let outcome = outcome.and(bulk.close());
    drop(bulk);
    Ok(Compacted {
        before,
        after: stats(data_dir)?,
        outcome,
    })
}
