//! What is found of the documents when a log is read: segment by segment, the newest
//! frame of each namespace wins.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use crate::catalogue::row::{CatalogueValue, DocumentVisitor};
use crate::format::file_header;
use crate::format::frame::header::EntryKind;
use crate::format::manifest::SealedSegment;
use crate::format::summary::entry::SummaryEntry;
use crate::index::accounting::SegmentAccounting;
use crate::index::table::{LostFrame, Table};
use crate::model::damage::Damage;
use crate::model::error::{Error, Result};
use crate::model::ids::{BlobId, Offset, SegmentId};
use crate::model::limits::Usage;
use crate::model::names::NamespaceHash;
use crate::storage::log::directory::LogDirectory;

/// What has been found of the documents so far.
#[derive(Default)]
pub(crate) struct RecoveryLoader {
    pub(crate) table: Table,
    pub(crate) accounting: SegmentAccounting,
    references: Vec<BlobReference>,
    /// The first damage of each segment.
    damage: BTreeMap<SegmentId, Damage>,
}

/// A blob, and the frame that names it.
struct BlobReference {
    hash: NamespaceHash,
    revision: u64,
    blob: BlobId,
}

impl RecoveryLoader {
    /// Makes room for this many entries.
    pub(crate) fn expect(&mut self, entries: usize) {
        self.table.reserve(entries);
    }

    /// Takes up a segment's entries.
    pub(crate) fn load(
        &mut self,
        directory: &LogDirectory,
        segment: SegmentId,
        entries: &[SummaryEntry],
        blobs: &[(u32, BlobId)],
    ) {
        let is_damaged = |e: &&SummaryEntry| matches!(e.kind, EntryKind::Damaged | EntryKind::Lost);
        if let Some(damaged) = entries.iter().find(is_damaged) {
            let path = file_header::path(&directory.dir, segment);
            let damage = Damage::new(&path, damaged.offset.into(), "a frame cannot be read");
            self.damage.insert(segment, damage);
        }
        self.accounting.lock().found(segment, entries);
        self.table.load(segment, entries);
        for entry in entries.iter().filter(|e| e.kind == EntryKind::Lost) {
            self.table.lose(LostFrame {
                revision: entry.revision,
                segment,
                offset: entry.offset,
            });
        }
        self.references
            .extend(blobs.iter().filter_map(|(index, blob)| {
                let entry = entries.get(*index as usize)?;
                Some(BlobReference {
                    hash: entry.hash,
                    revision: entry.revision,
                    blob: *blob,
                })
            }));
    }

    /// Takes up a sealed segment of which nothing can be read. `error` is why: an error
    /// that [is damage](Error::is_damage).
    pub(crate) fn lose(&mut self, segment: SegmentId, error: &Error, sealed: SealedSegment) {
        let damage = Damage::from_error(error);
        debug_assert!(damage.is_some(), "not damage: {error}");
        let offset = damage.as_ref().map_or(0, |damage| damage.offset);
        self.damage.extend(damage.map(|damage| (segment, damage)));
        self.table.lose(LostFrame {
            revision: sealed.last_revision,
            segment,
            // Behind what a segment can hold there is nothing to point to.
            offset: Offset::new(offset).unwrap_or(Offset::START),
        });
        self.accounting.lock().found_lost(segment, sealed.bytes);
    }

    /// Ends the reading: counts what has turned out to be current.
    pub(crate) fn settle(&mut self, active: Option<SegmentId>) {
        self.table.fit();
        let mut segments = self.accounting.lock();
        segments.begun(active);
        self.table.for_each(|entry| segments.is_current(entry));
        // Damaged frames that were replaced or deleted later harm nobody.
        let is_needed = |id| segments.get(id).is_some_and(|usage| usage.damaged > 0);
        self.damage.retain(|id, _| is_needed(*id));
    }

    /// The first damage of each segment in which a frame is damaged that may be current.
    pub(crate) fn damage(&self) -> impl Iterator<Item = &Damage> {
        self.damage.values()
    }

    /// The blobs that current frames name.
    pub(crate) fn blobs(&self) -> HashMap<NamespaceHash, Vec<BlobId>> {
        let mut blobs: HashMap<NamespaceHash, Vec<BlobId>> = HashMap::new();
        for reference in &self.references {
            if self.table.is_current(reference.hash, reference.revision) {
                let named = blobs.entry(reference.hash).or_default();
                if !named.contains(&reference.blob) {
                    named.push(reference.blob);
                }
            }
        }
        blobs
    }
}

/// Visits every document that `is_current` accepts, by the entry of its segment. Segments
/// that cannot be read are left out. Breaks if `visit` does.
pub(crate) fn visit(
    directory: &LogDirectory,
    is_current: impl Fn(SegmentId, &SummaryEntry) -> bool,
    visit: &mut DocumentVisitor<'_>,
) -> Result<ControlFlow<()>> {
    // A segment that compaction removed meanwhile would be missed.
    let _held = directory.hold_files();
    for id in directory.segments()? {
        let details = match directory.details(id) {
            // Every read of one of its documents reports it.
            Err(error) if error.is_damage() => continue,
            details => details?,
        };
        for (entry, detail) in details {
            let is_stored = matches!(entry.kind, EntryKind::Put | EntryKind::PutWithBlobs);
            if !is_stored || !is_current(id, &entry) {
                continue;
            }
            let value = CatalogueValue {
                revision: entry.revision,
                modified_ms: detail.modified_ms,
                usage: Usage {
                    keys: entry.keys,
                    bytes: detail.body_bytes,
                },
            };
            if visit(&detail.user, &detail.client, value).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::engine::Engine;
    use crate::commit::change::WriteOptions;
    use crate::model::config::Config;
    use crate::platform::fs::Disk;

    #[test]
    fn no_segment_is_removed_while_they_are_walked() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(Config::new(dir.path())).unwrap();
        let namespace = engine.namespace("u", "c").unwrap();
        namespace.write(b"{}", WriteOptions::default()).unwrap();
        engine.close().unwrap();
        let log = dir.path().join("log");
        let manifest = crate::storage::log::manifest_file::read(&Disk, &log)
            .unwrap()
            .unwrap();
        let id = manifest.segments[0].id;
        let directory = LogDirectory::new(Arc::new(Disk), &log, manifest.store, manifest.hash_key);
        let mut visited = 0;
        let walked = visit(&directory, |_, _| true, &mut |user, client, _| {
            visited += 1;
            assert_eq!((user, client), ("u", "c"));
            assert!(!directory.remove(id).unwrap());
            ControlFlow::Continue(())
        });
        assert!(walked.unwrap().is_continue());
        assert_eq!((visited, directory.segments().unwrap()), (1, vec![id]));
        assert!(directory.remove(id).unwrap());
        assert_eq!(directory.segments().unwrap(), Vec::<SegmentId>::new());
    }
}
