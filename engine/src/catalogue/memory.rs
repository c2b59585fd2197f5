//! The catalogue of a store that is open for reading only. It is built in memory from the documents
//! for the first listing, because sled cannot open its files without changing them.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Mutex, PoisonError};

use crate::catalogue::row::{CatalogueKey, CatalogueValue, key};
use crate::catalogue::state::DocumentSource;
use crate::model::error::Result;

/// A catalogue in memory, which is built when it is first used.
pub(super) struct MemoryCatalogue(Mutex<MemoryState>);

enum MemoryState {
    Unbuilt(DocumentSource),
    Built(BTreeMap<CatalogueKey, CatalogueValue>),
}

impl MemoryCatalogue {
    pub(super) fn new(source: DocumentSource) -> Self {
        Self(Mutex::new(MemoryState::Unbuilt(source)))
    }

    /// Visits the entries whose keys begin with `prefix` in order, starting at `first`, until `visit`
    /// returns false. If the entries cannot be built, the next call tries again.
    pub(super) fn scan(
        &self,
        prefix: &[u8],
        first: Bound<CatalogueKey>,
        mut visit: impl FnMut(&[u8], CatalogueValue) -> bool,
    ) -> Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let MemoryState::Unbuilt(source) = &*state {
            *state = MemoryState::Built(entries(source)?);
        }
        let MemoryState::Built(entries) = &*state else {
            return Ok(());
        };
        for (key, value) in entries.range((first, Bound::Unbounded)) {
            if !key.starts_with(prefix) || !visit(key, *value) {
                break;
            }
        }
        Ok(())
    }
}

fn entries(source: &DocumentSource) -> Result<BTreeMap<CatalogueKey, CatalogueValue>> {
    let mut entries = BTreeMap::new();
    let visited = source(0, &mut |user, client, value| {
        entries.insert(key(user, client), value);
        ControlFlow::Continue(())
    })?;
    debug_assert!(visited.is_continue());
    Ok(entries)
}
