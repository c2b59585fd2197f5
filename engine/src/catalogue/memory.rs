//! The catalogue of a store that is open for reading only. It is built in memory from the documents
//! for the first listing, because sled cannot open its files without changing them.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Mutex, PoisonError};

use crate::catalogue::row::{CatalogueKey, CatalogueValue, key};
use crate::catalogue::state::{DocumentSource, SkippedDamage};
use crate::catalogue::worker::RETRY_INTERVAL;
use crate::model::error::{Error, Result};

/// A catalogue in memory, which is built when it is first used.
pub(super) struct MemoryCatalogue(Mutex<MemoryState>);

struct MemoryState {
    source: DocumentSource,
    /// `None` before the first build, and after a build that failed.
    built: Option<BuiltCatalogue>,
}

struct BuiltCatalogue {
    entries: BTreeMap<CatalogueKey, CatalogueValue>,
    /// The damage that may hide entries.
    skipped: Option<SkippedDamage>,
}

impl MemoryCatalogue {
    pub(super) fn new(source: DocumentSource) -> Self {
        Self(Mutex::new(MemoryState {
            source,
            built: None,
        }))
    }

    /// Visits the entries whose keys begin with `prefix` in order, starting at `first`, until
    /// `visit` returns false. If the entries cannot be built, the next call tries again. Returns
    /// the damage that may hide entries, if any.
    pub(super) fn scan(
        &self,
        prefix: &[u8],
        first: Bound<CatalogueKey>,
        mut visit: impl FnMut(&[u8], CatalogueValue) -> bool,
    ) -> Result<Option<Error>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let is_search_due = |built: &BuiltCatalogue| {
            let skipped = built.skipped.as_ref();
            skipped.is_some_and(SkippedDamage::is_search_due)
        };
        let built = match state.built.take() {
            Some(built) if !is_search_due(&built) => built,
            previous => {
                let skipped = previous.as_ref().and_then(|built| built.skipped.as_ref());
                build(&state.source, skipped)?
            }
        };
        let built = state.built.insert(built);
        for (key, value) in built.entries.range((first, Bound::Unbounded)) {
            if !key.starts_with(prefix) || !visit(key, *value) {
                break;
            }
        }
        Ok(built.skipped.as_ref().map(|skipped| skipped.error.clone()))
    }
}

/// Builds the catalogue. `previous` is the damage that the previous build skipped.
fn build(source: &DocumentSource, previous: Option<&SkippedDamage>) -> Result<BuiltCatalogue> {
    let mut entries = BTreeMap::new();
    let visited = source(0, &mut |user, client, value| {
        entries.insert(key(user, client), value);
        ControlFlow::Continue(())
    })?;
    debug_assert!(visited.flow.is_continue());
    let skipped = visited.skipped;
    Ok(BuiltCatalogue {
        entries,
        skipped: skipped.map(|error| SkippedDamage::new(error, previous, RETRY_INTERVAL)),
    })
}
