//! Removes obsolete files, which are the files of segments and blobs that are no longer part of the
//! store.

use std::path::Path;

use crate::commit::core::{CompactionTurn, Core};
use crate::format::file_header;
use crate::format::manifest::SegmentRecord;
use crate::format::summary::entry;
use crate::model::error::{Error, Result};
use crate::model::ids::{BlobId, SegmentId};
use crate::platform::fs::Fs;
use crate::storage::io::{open_stored, remove_if_present, stored_len};

/// Removes the files of obsolete segments and blobs, except files that snapshots need. If a file
/// cannot be removed, the next call of `purge` tries to remove it again.
///
/// # Errors
/// The first error that occurred. After an error, `purge` continues with other files.
pub(crate) fn purge(core: &Core) -> Result<()> {
    let _turn = core.acquire_purge_turn();
    let mut outcome = core.write_context.blobs.purge(&core.pins);
    // A segment stays in the list of obsolete segments until its files are removed, so that
    // `purge_all` can wait for their removal.
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

/// Removes the files of all segments and blobs that are obsolete at the time of the call, except
/// those that snapshots need. Returns the number of segments and blobs whose files were kept for
/// snapshots. Blocks while the catalogue is being built from the segment files.
pub(crate) fn purge_all(core: &Core) -> Result<u64> {
    let segments = core.obsolete_segments().clone();
    let blobs = core.write_context.blobs.obsolete_ids();
    loop {
        purge(core)?;
        if let Some(pinned) = count_if_all_pinned(core, &segments, &blobs) {
            return Ok(pinned);
        }
        // No segment file can be removed while the catalogue is being built from the segment files.
        core.directory.wait_until_released();
    }
}

/// Returns how many of the given segments and blobs still have files. Returns `None` if one of
/// these files is not pinned by a snapshot, because this file can still be removed.
fn count_if_all_pinned(core: &Core, segments: &[SegmentId], blobs: &[BlobId]) -> Option<u64> {
    let _turn = core.acquire_purge_turn();
    let mut segments_left = core.obsolete_segments().clone();
    segments_left.retain(|id| segments.contains(id));
    let mut blobs_left = core.write_context.blobs.obsolete_ids();
    blobs_left.retain(|id| blobs.contains(id));
    let are_pinned = segments_left
        .iter()
        .all(|id| core.pins.is_segment_pinned(*id))
        && blobs_left.iter().all(|id| core.pins.is_blob_pinned(*id));
    are_pinned.then_some((segments_left.len() + blobs_left.len()) as u64)
}

/// Durably removes data that does not belong to the store from the directory of the log. A crash
/// can leave two forms of such data: files that belong to no segment of the store, and bytes after
/// the last frame of a sealed segment. Files that a snapshot has pinned are kept.
///
/// # Errors
/// - [`Error::Poisoned`]: an earlier error has stopped writing.
/// - [`Error::Io`], [`Error::Closed`].
pub(crate) fn remove_stray_bytes(core: &Core, _turn: &CompactionTurn<'_>) -> Result<()> {
    core.poison().map_or(Ok(()), Err)?;
    // The files are listed before the manifest is requested from the committer. If the committer
    // was creating a segment when the files were listed, the creation ends before the committer
    // returns the manifest. Either the manifest then lists the segment, or the creation has failed.
    // A segment that the committer creates later is not in `files`, so its file is not removed.
    let files = core.directory.files()?;
    let point = core.queue.snapshot_point()?;
    let manifest = &point.image.manifest;
    let active = point.image.unsealed.as_ref().map(|(id, _)| *id);
    let obsolete = core.obsolete_segments().clone();
    let is_kept = |id| obsolete.contains(&id) || core.pins.is_segment_pinned(id);
    let (fs, dir) = (&*core.directory.fs, &core.directory.dir);
    for (id, path) in files {
        // The active segment is skipped, because the committer may be writing to it.
        if Some(id) == active {
            continue;
        }
        let record = manifest.segments.iter().find(|record| record.id == id);
        match record {
            Some(SegmentRecord {
                sealed: Some(sealed),
                ..
            }) if path == file_header::segment_path(dir, id) => truncate(fs, &path, sealed.bytes)?,
            Some(_) if path == entry::summary_path(dir, id) => {}
            None if is_kept(id) => {}
            // The file may no longer exist, because another thread may have removed it after the
            // files were listed.
            _ => remove_if_present(fs, &path)?,
        }
    }
    fs.sync_dir(dir)
        .map_err(|error| Error::io("sync", dir, error))
}

/// Durably truncates a file to `bytes` bytes. Does nothing if the file has at most `bytes` bytes,
/// is missing, or is damaged.
fn truncate(fs: &dyn Fs, path: &Path, bytes: u64) -> Result<()> {
    match open_stored(fs, path).and_then(|file| stored_len(&*file, path)) {
        Ok(len) if len > bytes => {}
        Ok(_) => return Ok(()),
        // The damage is not reported here, because reads of the segment report it.
        Err(error) if error.is_damage() => return Ok(()),
        Err(error) => return Err(error),
    }
    let truncated = fs.open_for_write(path).and_then(|file| {
        file.set_len(bytes)?;
        file.sync()
    });
    truncated.map_err(|error| Error::io("truncate", path, error))
}
