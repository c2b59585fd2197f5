//! Opens a store: locks the data directory, recovers the log, and starts the threads of the engine.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::api::handle::EngineHandle;
use crate::catalogue::Catalogue;
use crate::catalogue::marker::CatalogueIdentity;
use crate::catalogue::state::DocumentSource;
use crate::commit::committer::Committer;
use crate::commit::core::{Core, CoreState};
use crate::commit::counters::EngineCounters;
use crate::commit::group_commit::GroupCommit;
use crate::commit::queue::CommitQueue;
use crate::commit::writer::WriteContext;
use crate::format::summary::entry::SummaryEntry;
use crate::index::accounting::SegmentAccounting;
use crate::index::cache::DocumentCache;
use crate::index::loader;
use crate::index::table::Table;
use crate::maintenance::compaction;
use crate::model::config::Config;
use crate::model::error::{Error, Result};
use crate::offline::scan::require_store;
use crate::platform::semaphore::Semaphore;
use crate::platform::wakeup::Wakeup;
use crate::recovery::{RecoveredStore, recover, recover_read_only};
use crate::storage::blobs::BlobStore;
use crate::storage::lock::DirectoryLock;
use crate::storage::log::Log;
use crate::storage::log::directory::LogDirectory;
use crate::storage::pins::PinRegistry;
use crate::storage::read_only_fs::ReadOnlyFs;
use crate::storage::reserve::{self, Reserve};
use crate::storage::watch::{DirectoryWatch, GuardedFs};

/// Implements [`crate::Engine::open`] after the settings have been checked.
pub(super) fn open(config: Config) -> Result<EngineHandle> {
    if config.read_only {
        open_for_reading(config)
    } else {
        open_for_writing(config)
    }
}

/// Opens the store for reading only. Changes nothing in the data directory.
fn open_for_reading(mut config: Config) -> Result<EngineHandle> {
    // A directory that does not exist cannot be locked, but the error must say that it is not a
    // store.
    require_store(&config)?;
    let lock = DirectoryLock::acquire_shared(&config.data_dir)?;
    config.fs = Arc::new(ReadOnlyFs(config.fs));
    config.background_compaction = false;
    // The directories are not watched, because a reader does not lose data if they are removed.
    let watch = Arc::new(DirectoryWatch::new(Arc::clone(&config.fs), lock));
    let log_dir = config.data_dir.join("log");
    let mut recovered = recover_read_only(
        &config.fs,
        &log_dir,
        config.segment_bytes,
        config.open_segments,
        &config.clock,
    )?;
    let parts = StoreParts {
        blobs: BlobStore::open_read_only(
            Arc::clone(&config.fs),
            &config.data_dir.join("blobs"),
            recovered.directory.store,
            std::mem::take(&mut recovered.blobs),
        )?,
        reserve: Reserve::unused(Arc::clone(&config.fs), &log_dir),
        compaction_wakeup: Arc::default(),
    };
    let (core, log, reserve) = build_core(&config, &watch, recovered, parts)?;
    core.set_poison(Error::ReadOnly {
        path: config.data_dir.clone(),
    });
    start(&config, core, log, reserve)
}

fn open_for_writing(mut config: Config) -> Result<EngineHandle> {
    let lock = DirectoryLock::acquire_silently(&config.data_dir)?;
    let watch = Arc::new(DirectoryWatch::new(Arc::clone(&config.fs), lock));
    config.fs = Arc::new(GuardedFs(Arc::clone(&watch)));
    // The lock is released explicitly after an error, because the thread of the catalogue may still
    // use the file system.
    open_locked(&config, &watch).inspect_err(|_| watch.lock().release())
}

/// Opens the store in a locked data directory.
fn open_locked(config: &Config, watch: &Arc<DirectoryWatch>) -> Result<EngineHandle> {
    let (log_dir, blob_dir) = (config.data_dir.join("log"), config.data_dir.join("blobs"));
    let mut recovered = recover_with_reserve(config, &log_dir)?;
    // Recovery returns an error for an unsupported format before any file is changed. Only now may
    // the lock file be changed.
    watch.lock().write_holder();
    let compaction_wakeup = Arc::<Wakeup>::default();
    let parts = StoreParts {
        blobs: BlobStore::open(
            Arc::clone(&config.fs),
            &blob_dir,
            recovered.directory.store,
            std::mem::take(&mut recovered.blobs),
            recovered.damage.is_empty(),
            Arc::clone(&compaction_wakeup),
        )?,
        reserve: Reserve::open(Arc::clone(&config.fs), &log_dir, config.reserve_bytes),
        compaction_wakeup,
    };
    sync_directories(config, &config.data_dir)?;
    watch.add_subdirectories([log_dir, blob_dir])?;
    let (core, log, reserve) = build_core(config, watch, recovered, parts)?;
    // The first open of a store has just created these subdirectories.
    watch.lock().lock_subdirectories()?;
    start(config, core, log, reserve)
}

/// The parts of a store that are opened after recovery, and differently for reading only.
struct StoreParts {
    blobs: Arc<BlobStore>,
    reserve: Reserve,
    compaction_wakeup: Arc<Wakeup>,
}

/// Opens the catalogue, and builds the shared state of the engine.
fn build_core(
    config: &Config,
    watch: &Arc<DirectoryWatch>,
    recovered: RecoveredStore,
    parts: StoreParts,
) -> Result<(Arc<Core>, Log, Reserve)> {
    let StoreParts {
        blobs,
        reserve,
        compaction_wakeup: wakeup,
    } = parts;
    let table = Arc::new(recovered.table);
    let accounting = Arc::new(recovered.accounting);
    let identity = CatalogueIdentity {
        store: recovered.directory.store,
        reserved_revision: recovered.reserved_revision,
    };
    let documents = document_source(
        recovered.directory.clone(),
        (Arc::clone(&table), Arc::clone(&accounting)),
        Arc::clone(&wakeup),
    );
    let catalogue = open_catalogue(config, watch, identity, documents)?;
    let core = Core {
        directory: recovered.directory,
        durability: config.durability,
        segment_bytes: config.segment_bytes,
        reserve_bytes: config.reserve_bytes,
        has_reserve: AtomicBool::new(reserve.is_available()),
        table,
        closed_time: Arc::clone(recovered.log.closed_time()),
        accounting,
        reader: recovered.reader,
        queue: CommitQueue::new(config.queue_bytes),
        pins: Arc::new(PinRegistry::new(Arc::clone(&wakeup))),
        compaction_wakeup: wakeup,
        counters: EngineCounters::new(Arc::clone(recovered.log.sync_latency())),
        catalogue,
        write_context: Arc::new(WriteContext {
            limits: config.limits.clone(),
            inline_bytes: config.inline_bytes,
            blobs,
            value_checks: Semaphore::new(config.value_checks),
        }),
        cache: DocumentCache::new(config.cache_bytes),
        damage: recovered.damage,
        damaged_namespaces: recovered.damaged_namespaces,
        dropped: recovered.dropped,
        watch: Arc::clone(watch),
        state: CoreState::default(),
    };
    Ok((Arc::new(core), recovered.log, reserve))
}

/// Starts the threads of the engine, except the thread of the catalogue.
fn start(config: &Config, core: Arc<Core>, log: Log, reserve: Reserve) -> Result<EngineHandle> {
    let dir = &config.data_dir;
    let committer = Committer::new(Arc::clone(&core), log, reserve);
    let group_commit = Arc::new(GroupCommit::new(
        Arc::clone(&core),
        committer,
        config.mark_delay,
    ));
    let commits = Arc::clone(&group_commit);
    let mut handle = EngineHandle {
        core: Arc::clone(&core),
        group_commit,
        committer: Mutex::new(Some(spawn(dir, "committer", move || commits.run())?)),
        compactor: Mutex::default(),
        watcher: Mutex::default(),
        closing: Semaphore::new(1),
        is_locked: AtomicBool::new(true),
    };
    if !config.read_only {
        let watch = Arc::clone(&core.watch);
        let thread = spawn(dir, "watcher", move || watch.run())?;
        handle.watcher = Mutex::new(Some(thread));
    }
    if config.background_compaction {
        let thread = spawn(dir, "compactor", move || compaction::run(&core))?;
        handle.compactor = Mutex::new(Some(thread));
    }
    Ok(handle)
}

/// Recovers the store. If the disk is too full for recovery, releases the reserve step by step.
fn recover_with_reserve(config: &Config, log: &Path) -> Result<RecoveredStore> {
    recover(
        &config.fs,
        log,
        config.segment_bytes,
        config.open_segments,
        &config.clock,
        &|| reserve::release_step(&*config.fs, log),
    )
}

fn open_catalogue(
    config: &Config,
    watch: &Arc<DirectoryWatch>,
    identity: CatalogueIdentity,
    documents: DocumentSource,
) -> Result<Catalogue> {
    let dir = config.data_dir.join("catalogue");
    let watch = Arc::clone(watch);
    let check = Box::new(move || watch.check());
    if !config.catalogue {
        return Ok(Catalogue::disabled(&dir, check));
    }
    if config.read_only {
        return Ok(Catalogue::in_memory(&dir, check, documents));
    }
    Catalogue::open(
        &dir,
        check,
        config.catalogue_cache_bytes,
        config.catalogue_pending_bytes,
        identity,
        documents,
    )
}

fn spawn<T: Send + 'static>(
    dir: &Path,
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(format!("prefd-{name}"))
        .spawn(run)
        .map_err(|error| Error::io("start a thread for", dir, error))
}

/// Syncs the data directory and its parent, so that the directory entries of `log/`, `blobs/` and
/// the data directory survive a power cut. If the directory entries were lost, the synced files in
/// the directories could not be found.
fn sync_directories(config: &Config, dir: &Path) -> Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    for dir in [Some(dir), parent.or(Some(Path::new(".")))]
        .into_iter()
        .flatten()
    {
        config
            .fs
            .sync_dir(dir)
            .map_err(|error| Error::io("sync", dir, error))?;
    }
    Ok(())
}

/// Returns the source from which the catalogue is built: a function that visits every current
/// document.
///
/// Compaction may move a document during the visit. A moved document keeps its revision, so the
/// visit recognizes the document as current at the old and at the new location. The visit finds
/// every document, because no segment file is removed until the visit ends.
fn document_source(
    directory: LogDirectory,
    (table, accounting): (Arc<Table>, Arc<SegmentAccounting>),
    compaction_wakeup: Arc<Wakeup>,
) -> DocumentSource {
    Box::new(move |after, visit| {
        let is_current = |_, entry: &SummaryEntry| {
            entry.revision > after && table.is_current(entry.hash, entry.revision)
        };
        let visited = loader::visit(&directory, (&table, &accounting), is_current, visit);
        // Wakes the compaction thread, which could not remove obsolete segment files during the
        // visit.
        compaction_wakeup.notify();
        visited
    })
}
