//! What namespaces, the committer, the compactor and the handles of an engine share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::cache::DocumentCache;
use crate::catalogue::Catalogue;
use crate::commit::Queue;
use crate::compaction::Bell;
use crate::config::Durability;
use crate::error::{Error, Result};
use crate::log::place::Place;
use crate::log::reader::Reader;
use crate::log::segment;
use crate::metrics::Meters;
use crate::names::NamespaceHash;
use crate::pins::Pins;
use crate::space::Space;
use crate::table::Table;
use crate::writer::Intake;

pub(crate) struct Shared {
    pub(crate) place: Place,
    pub(crate) durability: Durability,
    pub(crate) segment_bytes: u64,
    pub(crate) reserve_bytes: u64,
    /// Whether the space that is kept for deletes is there: if not, the disk is full.
    pub(crate) has_reserve: AtomicBool,
    pub(crate) table: Arc<Table>,
    pub(crate) space: Space,
    pub(crate) reader: Reader,
    pub(crate) queue: Queue,
    pub(crate) bell: Arc<Bell>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) meters: Meters,
    pub(crate) catalogue: Catalogue,
    pub(crate) intake: Arc<Intake>,
    pub(crate) cache: DocumentCache,
    pub(crate) state: State,
}

/// What changes in the life of an engine, beside its documents.
#[derive(Default)]
pub(crate) struct State {
    /// Whose turn it is to compact.
    compacting: Mutex<()>,
    /// Whose turn it is to remove files: who comes second finds them gone.
    sweeping: Mutex<()>,
    /// Segments that are out of the log, and whose files are to go.
    doomed_segments: Mutex<Vec<u32>>,
    poison: OnceLock<Error>,
    closed: AtomicBool,
}

impl Shared {
    pub(crate) fn hash(&self, user: &str, client: &str) -> NamespaceHash {
        self.place.hash(user, client)
    }

    /// Held by whoever compacts.
    pub(crate) fn turn_to_compact(&self) -> MutexGuard<'_, ()> {
        self.state
            .compacting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Held by whoever removes files.
    pub(crate) fn turn_to_sweep(&self) -> MutexGuard<'_, ()> {
        self.state
            .sweeping
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn doomed_segments(&self) -> MutexGuard<'_, Vec<u32>> {
        self.state
            .doomed_segments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads are refused from here on, and snapshots end.
    pub(crate) fn close(&self) {
        self.pins.close();
        self.state.closed.store(true, Ordering::Release);
    }

    pub(crate) fn refuse_closed(&self) -> Result<()> {
        if self.state.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    pub(crate) fn poison(&self) -> Option<Error> {
        self.state.poison.get().cloned()
    }

    /// The first one stays: what comes after it comes of it.
    pub(crate) fn set_poison(&self, error: Error) {
        self.state.poison.get_or_init(|| error);
    }

    /// The error of a namespace whose newest frame, at this place, cannot be read.
    pub(crate) fn unreadable(&self, segment: u32, offset: u32) -> Error {
        Error::corrupt(
            &segment::path(&self.place.dir, segment),
            offset.into(),
            "a frame here cannot be read",
        )
    }

    /// Where a frame of an unknown namespace is lost, no listing is known to be whole.
    pub(crate) fn refuse_partial(&self) -> Result<()> {
        self.refuse_closed()?;
        self.table.loss().map_or(Ok(()), |loss| {
            Err(self.unreadable(loss.segment, loss.offset))
        })
    }
}
