//! Removing obsolete files: segments and blobs that are not part of the store any more.

use std::path::Path;

use crate::commit::core::{CompactionTurn, Core};
use crate::format::file_header;
use crate::format::manifest::SegmentRecord;
use crate::format::summary::entry;
use crate::model::error::{Error, Result};
use crate::model::ids::{BlobId, SegmentId};
use crate::platform::fs::Fs;
use crate::storage::io::{open_stored, remove_if_present, stored_len};

/// Removes the files of obsolete segments and blobs that no snapshot holds. Files that cannot
/// be removed are tried again next time; the error is the first one.
pub(crate) fn purge(core: &Core) -> Result<()> {
    let _turn = core.turn_to_purge();
    let mut outcome = core.write_context.blobs.purge(&core.pins);
    // They stay in the list until they are gone, so that others know of them.
    let obsolete = core.obsolete_segments().clone();
    for segment in obsolete {
        if core.pins.is_segment_pinned(segment) {
            continue;
        }
        match core.directory.remove(segment) {
            Ok(true) => {
                core.reader.close_segment(segment);
                core.obsolete_segments().retain(|id| *id != segment);
            }
            Ok(false) => {}
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    outcome
}

/// Removes all files that are obsolete now, except those that snapshots hold. Returns their
/// number. Files that become obsolete later are left to later calls.
pub(crate) fn purge_all(core: &Core) -> Result<u64> {
    let segments = core.obsolete_segments().clone();
    let blobs = core.write_context.blobs.obsolete_ids();
    loop {
        purge(core)?;
        if let Some(held) = held_only(core, &segments, &blobs) {
            return Ok(held);
        }
        // The catalogue is being built from them.
        core.directory.wait_until_released();
    }
}

/// The number of these files that still exist, if snapshots hold every one of them.
fn held_only(core: &Core, segments: &[SegmentId], blobs: &[BlobId]) -> Option<u64> {
    let _turn = core.turn_to_purge();
    let mut left = core.obsolete_segments().clone();
    left.retain(|id| segments.contains(id));
    let is_held = left.iter().all(|id| core.pins.is_segment_pinned(*id));
    let mut left_blobs = core.write_context.blobs.obsolete_ids();
    left_blobs.retain(|id| blobs.contains(id));
    let are_held = left_blobs.iter().all(|id| core.pins.is_blob_pinned(*id));
    (is_held && are_held).then_some((left.len() + left_blobs.len()) as u64)
}

/// Removes the files in the log's directory that belong to no segment of the store and are
/// not pinned, and cuts off what a crash left behind the frames of sealed segments. Durably.
///
/// # Errors
/// [`Error::Poisoned`] once writing has stopped; [`Error::Io`]; [`Error::Closed`].
pub(crate) fn tidy(core: &Core, _turn: &CompactionTurn<'_>) -> Result<()> {
    core.poison().map_or(Ok(()), Err)?;
    // Before the snapshot point: a file that the committer creates later is not in this list,
    // and one that it was creating has been listed in the manifest or given up by then.
    let files = core.directory.files()?;
    let point = core.queue.snapshot_point()?;
    let manifest = &point.image.manifest;
    let active = point.image.unsealed.as_ref().map(|(id, _)| *id);
    let obsolete = core.obsolete_segments().clone();
    let is_kept = |id| obsolete.contains(&id) || core.pins.is_segment_pinned(id);
    let (fs, dir) = (&*core.directory.fs, &core.directory.dir);
    for (id, path) in files {
        // The committer may be writing to these.
        if Some(id) == active {
            continue;
        }
        let record = manifest.segments.iter().find(|record| record.id == id);
        match record {
            Some(SegmentRecord {
                sealed: Some(sealed),
                ..
            }) if path == file_header::path(dir, id) => cut_off(fs, &path, sealed.bytes)?,
            Some(_) if path == entry::path(dir, id) => {}
            None if is_kept(id) => {}
            // A purge may have removed it since it was listed.
            _ => remove_if_present(fs, &path)?,
        }
    }
    fs.sync_dir(dir)
        .map_err(|error| Error::io("sync", dir, error))
}

fn cut_off(fs: &dyn Fs, path: &Path, bytes: u64) -> Result<()> {
    match open_stored(fs, path).and_then(|file| stored_len(&*file, path)) {
        Ok(len) if len > bytes => {}
        Ok(_) => return Ok(()),
        // It stays as it is, and is reported where it is read.
        Err(error) if error.is_damage() => return Ok(()),
        Err(error) => return Err(error),
    }
    let cut = fs.open_for_write(path).and_then(|file| {
        file.set_len(bytes)?;
        file.sync()
    });
    cut.map_err(|error| Error::io("truncate", path, error))
}
