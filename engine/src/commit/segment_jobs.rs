//! Two jobs of the committer: removing a segment from the log, and sealing the active segment.

use crate::commit::core::Core;
use crate::format::file_header;
use crate::format::location::FrameLocation;
use crate::index::accounting::SegmentAccounting;
use crate::index::table::Table;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::model::names::NamespaceHash;
use crate::storage::log::Log;
use crate::storage::log::failure::LogFailure;

/// Removes a segment from the log. The segment must contain no current frames except the tombstones
/// in `deletes`, which are removed from the table.
///
/// # Errors
/// [`LogFailure::Refused`] if the segment has other current frames or damaged frames, has already
/// been removed, or cannot be removed. [`LogFailure::Poisoned`] if the content of the disk is
/// unknown.
pub(super) fn retire(
    core: &Core,
    log: &mut Log,
    segment: SegmentId,
    deletes: &[(NamespaceHash, FrameLocation)],
) -> Result<(), LogFailure> {
    let Core {
        table, accounting, ..
    } = core;
    if has_other_frames(table, accounting, segment, deletes) {
        let path = file_header::segment_path(&core.directory.dir, segment);
        let what = "the segment's summary does not list every current frame";
        return Err(LogFailure::Refused(Error::corrupt(&path, 0, what)));
    }
    log.retire(segment)?;
    for (hash, entry) in deletes {
        table.remove_tombstone(*hash, entry);
    }
    accounting.lock().retired(segment);
    Ok(())
}

/// Returns true if a segment has current or damaged frames other than the tombstones in `deletes`,
/// or has already been removed from the log.
fn has_other_frames(
    table: &Table,
    accounting: &SegmentAccounting,
    segment: SegmentId,
    deletes: &[(NamespaceHash, FrameLocation)],
) -> bool {
    let current_deletes = deletes
        .iter()
        .filter(|(hash, entry)| table.entry(*hash) == Some(*entry))
        .count();
    let Some(usage) = accounting.lock().get(segment) else {
        return true;
    };
    let current = usage.documents as usize + usage.tombstones as usize;
    current != current_deletes || usage.damaged > 0
}

/// Seals the active segment, so that all committed frames are in sealed segments.
pub(super) fn seal(accounting: &SegmentAccounting, log: &mut Log) -> Result<(), LogFailure> {
    log.seal()?;
    accounting.lock().set_active(log.active_segment());
    Ok(())
}
