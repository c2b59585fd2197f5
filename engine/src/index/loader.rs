//! Builds the table and the accounting during recovery, while the log is read segment by segment.
//! The newest frame of each namespace becomes its current frame.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use crate::catalogue::row::{CatalogueValue, DocumentVisitor, Visited};
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

/// The table and the accounting of the segments that were loaded so far, and the damage in these
/// segments.
#[derive(Default)]
pub(crate) struct RecoveryLoader {
    pub(crate) table: Table,
    pub(crate) accounting: SegmentAccounting,
    /// The blob references of all frames that were loaded, including stale frames.
    references: Vec<BlobReference>,
    /// The namespaces of damaged frames, including stale frames.
    pub(crate) damaged_namespaces: Vec<NamespaceHash>,
    /// The first damage that was found in each segment.
    damage: BTreeMap<SegmentId, Damage>,
}

/// A frame's reference to a blob.
struct BlobReference {
    hash: NamespaceHash,
    revision: u64,
    blob: BlobId,
}

impl RecoveryLoader {
    /// Reserves memory for `entries` table entries.
    pub(crate) fn reserve(&mut self, entries: usize) {
        self.table.reserve(entries);
    }

    /// Adds the entries of a segment. `blobs` contains the blob references of the segment, each
    /// with the index of its entry in `entries`.
    pub(crate) fn load(
        &mut self,
        directory: &LogDirectory,
        segment: SegmentId,
        entries: &[SummaryEntry],
        blobs: &[(u32, BlobId)],
    ) {
        if let Some(damaged) = entries.iter().find(|entry| entry.kind.is_damaged()) {
            let path = file_header::segment_path(&directory.dir, segment);
            let damage = Damage::new(&path, damaged.offset.into(), "a frame cannot be read");
            self.damage.insert(segment, damage);
        }
        let damaged = entries.iter().filter(|e| e.kind == EntryKind::Damaged);
        self.damaged_namespaces.extend(damaged.map(|e| e.hash));
        self.accounting.lock().add_segment(segment, entries);
        self.table.load(segment, entries);
        for entry in entries.iter().filter(|e| e.kind == EntryKind::Lost) {
            self.table.record_loss(LostFrame {
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

    /// Adds a sealed segment in which no frame can be read. `error` is the error that the read
    /// returned, and [`Error::is_damage`] must be true for this error.
    pub(crate) fn load_unreadable(
        &mut self,
        segment: SegmentId,
        error: &Error,
        sealed: SealedSegment,
    ) {
        let damage = Damage::from_error(error);
        debug_assert!(damage.is_some(), "the error must be damage: {error}");
        let offset = damage.as_ref().map_or(0, |damage| damage.offset);
        self.damage.extend(damage.map(|damage| (segment, damage)));
        self.table.record_loss(LostFrame {
            revision: sealed.last_revision,
            segment,
            // `Offset` cannot represent an offset beyond the maximum length of a segment.
            offset: Offset::new(offset).unwrap_or(Offset::START),
        });
        self.accounting
            .lock()
            .add_unreadable_segment(segment, sealed.bytes);
    }

    /// Counts the current frames of each segment, and discards damage that affects no current
    /// frame. Call this function once, after all segments have been loaded. `active` is the active
    /// segment.
    pub(crate) fn finish(&mut self, active: Option<SegmentId>) {
        self.table.shrink_to_fit();
        let mut segments = self.accounting.lock();
        segments.set_active(active);
        self.table.for_each(|entry| segments.add_current(entry));
        // Damage to a frame has no effect if a later frame supersedes the damaged frame.
        let is_needed = |id| segments.get(id).is_some_and(|usage| usage.damaged > 0);
        self.damage.retain(|id, _| is_needed(*id));
    }

    /// Returns the first damage of each segment in which a damaged frame may be current.
    pub(crate) fn damage(&self) -> impl Iterator<Item = &Damage> {
        self.damage.values()
    }

    /// Returns the blobs that current frames refer to, grouped by namespace.
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

/// Visits every document whose summary entry satisfies `is_current`. Damaged frames, and segments
/// that are damaged or cannot be read, are skipped. [`Visited::skipped`] is set if a document of
/// `table` may be skipped. Documents that recovery could not find are not in the table; see
/// [`RecoveryLoader::damage`]. The iteration ends early if `visit` returns [`ControlFlow::Break`].
pub(crate) fn visit(
    directory: &LogDirectory,
    (table, accounting): (&Table, &SegmentAccounting),
    is_current: impl Fn(SegmentId, &SummaryEntry) -> bool,
    visit: &mut DocumentVisitor<'_>,
) -> Result<Visited> {
    let mut skipped = None;
    // Compaction must not remove segment files during the iteration, because documents in the
    // removed files would not be visited.
    let _guard = directory.hold_files();
    // Frames that are committed from now on are not visited. Their documents are either recorded as
    // changes, or are copies of frames that are visited.
    let ends = accounting.lock().committed_ends();
    for (&id, &end) in &ends {
        let details = match directory.details(id, end) {
            // The rest of the log is still visited, so that undamaged documents can be rescued.
            Err(error) if error.is_damage() => {
                skipped.get_or_insert(error);
                continue;
            }
            details => details?,
        };
        for (entry, detail) in details {
            if entry.kind.is_damaged() && table.may_hide_document(id, &entry, &ends) {
                skipped.get_or_insert_with(|| directory.unreadable_frame(id, entry.offset));
            }
            let is_stored = matches!(entry.kind, EntryKind::Put | EntryKind::PutWithMetadata);
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
                let flow = ControlFlow::Break(());
                return Ok(Visited { flow, skipped });
            }
        }
    }
    let flow = ControlFlow::Continue(());
    Ok(Visited { flow, skipped })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::api::engine::Engine;
    use crate::commit::change::WriteOptions;
    use crate::format::location::FrameLocation;
    use crate::model::config::Config;
    use crate::platform::fs::Disk;
    use crate::storage::log::scan::RevisionLimits;

    /// Creates a closed store with one segment that contains two documents, and returns the
    /// directory of its log and the id of the segment.
    fn log_with_two_documents(dir: &Path) -> (LogDirectory, SegmentId) {
        let engine = Engine::open(Config::new(dir)).unwrap();
        for client in ["a", "b"] {
            let namespace = engine.namespace("u", client).unwrap();
            namespace.write(b"{}", WriteOptions::default()).unwrap();
        }
        engine.close().unwrap();
        let log = dir.join("log");
        let manifest = crate::storage::log::manifest_file::read(&Disk, &log)
            .unwrap()
            .unwrap();
        let directory = LogDirectory::new(Arc::new(Disk), &log, manifest.store, manifest.hash_key);
        (directory, manifest.segments[0].id)
    }

    /// Returns the table and the accounting of a segment with the given frames.
    fn index(id: SegmentId, committed: &[SummaryEntry]) -> (Table, SegmentAccounting) {
        let (mut table, accounting) = (Table::default(), SegmentAccounting::default());
        table.load(id, committed);
        let mut segments = accounting.lock();
        segments.add_segment(id, committed);
        table.for_each(|entry| segments.add_current(entry));
        drop(segments);
        (table, accounting)
    }

    /// Returns the summary entries of the segment, which are rebuilt from its frames.
    fn entries(directory: &LogDirectory, id: SegmentId) -> Vec<SummaryEntry> {
        let scan = directory.scan(id, None).unwrap();
        let summary = scan.summary(u64::MAX, RevisionLimits::up_to(u64::MAX));
        summary.entries().to_vec()
    }

    #[test]
    fn no_segment_is_removed_during_a_visit() {
        let dir = tempfile::tempdir().unwrap();
        let (directory, id) = log_with_two_documents(dir.path());
        let (table, accounting) = index(id, &entries(&directory, id));
        let mut clients = Vec::new();
        let visitor = &mut |_: &str, client: &str, _| {
            clients.push(client.to_owned());
            assert!(!directory.remove(id).unwrap());
            ControlFlow::Continue(())
        };
        let visited = visit(&directory, (&table, &accounting), |_, _| true, visitor);
        let visited = visited.unwrap();
        assert!(visited.flow.is_continue() && visited.skipped.is_none());
        assert_eq!(clients, ["a", "b"]);
        assert!(!directory.files().unwrap().is_empty());
        assert!(directory.remove(id).unwrap());
        assert!(directory.files().unwrap().is_empty());
    }

    #[test]
    fn frame_that_is_being_written_is_not_skipped_damage() {
        let dir = tempfile::tempdir().unwrap();
        let (mut directory, id) = log_with_two_documents(dir.path());
        let entries = entries(&directory, id);
        let second = u64::from(entries[1].offset);
        let path = file_header::segment_path(&directory.dir, id);
        let file = directory.fs.open_for_write(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, second + 20).unwrap();
        file.write_all_at(&[byte[0] ^ 1], second + 20).unwrap();
        directory.ignore_summaries([id]);
        let is_complete = |committed: &[SummaryEntry]| {
            let (table, accounting) = index(id, committed);
            let visitor = &mut |_: &str, _: &str, _| ControlFlow::Continue(());
            let visited = visit(&directory, (&table, &accounting), |_, _| true, visitor);
            visited.unwrap().skipped.is_none()
        };
        assert!(is_complete(&entries[..1]));
        assert!(!is_complete(&entries));
        // A missing end of the committed frames is damage, too.
        file.set_len(second).unwrap();
        assert!(is_complete(&entries[..1]));
        assert!(!is_complete(&entries));
    }

    /// The current frame of a damaged frame's namespace is a copy that compaction has made after
    /// the visit began. The copy is not visited.
    #[test]
    fn damaged_original_of_a_later_copy_is_skipped_damage() {
        let dir = tempfile::tempdir().unwrap();
        let (directory, id) = log_with_two_documents(dir.path());
        let entries = entries(&directory, id);
        let (table, accounting) = index(id, &entries);
        let ends = accounting.lock().committed_ends();
        let damaged = SummaryEntry {
            kind: EntryKind::Damaged,
            ..entries[0]
        };
        assert!(table.may_hide_document(id, &damaged, &ends));
        let copy = SummaryEntry {
            offset: Offset::new(ends[&id]).unwrap(),
            ..entries[0]
        };
        table.advance(copy.hash, FrameLocation::at(id, &copy));
        assert!(table.may_hide_document(id, &damaged, &ends));
        let newer = SummaryEntry {
            offset: entries[1].offset,
            ..entries[0]
        };
        table.advance(newer.hash, FrameLocation::at(id, &newer));
        assert!(!table.may_hide_document(id, &damaged, &ends));
    }
}
