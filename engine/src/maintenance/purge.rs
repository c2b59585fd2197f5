//! Removing obsolete files: segments and blobs that are not part of the store any more.

use crate::commit::core::Core;
use crate::model::error::Result;
use crate::model::ids::{BlobId, SegmentId};

/// Removes the files of what is no part of the store any more, and of no snapshot. What
/// cannot be removed is tried again by the next sweep; the error tells why.
pub(crate) fn purge(core: &Core) -> Result<()> {
    let _turn = core.turn_to_purge();
    let mut outcome = core.write_context.blobs.purge(&core.pins);
    core.obsolete_segments().retain(|segment| {
        if core.pins.holds_segment(*segment) {
            return true;
        }
        match core.directory.remove(*segment) {
            Ok(true) => {
                core.reader.forget(*segment);
                false
            }
            Ok(false) => true,
            Err(error) => {
                outcome = std::mem::replace(&mut outcome, Ok(())).and(Err(error));
                true
            }
        }
    });
    outcome
}

/// The same, until nothing of what is to go now is left but what snapshots hold; how many
/// files that is. What is to go from then on is for a later sweep: there need be no end of it.
pub(crate) fn purge_all(core: &Core) -> Result<u64> {
    let segments = core.obsolete_segments().clone();
    let blobs = core.write_context.blobs.obsolete_ids();
    loop {
        purge(core)?;
        if let Some(held) = held_only(core, &segments, &blobs) {
            return Ok(held);
        }
        // The catalogue is being built from them.
        core.directory.wait_for_walks();
    }
}

/// How many of these are still there, if snapshots hold every one that is.
fn held_only(core: &Core, segments: &[SegmentId], blobs: &[BlobId]) -> Option<u64> {
    let _turn = core.turn_to_purge();
    let mut left = core.obsolete_segments().clone();
    left.retain(|id| segments.contains(id));
    let is_held = left.iter().all(|id| core.pins.holds_segment(*id));
    let mut left_blobs = core.write_context.blobs.obsolete_ids();
    left_blobs.retain(|id| blobs.contains(id));
    let are_held = left_blobs.iter().all(|id| core.pins.holds_blob(*id));
    (is_held && are_held).then_some((left.len() + left_blobs.len()) as u64)
}
