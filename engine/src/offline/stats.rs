//! Statistics of a closed store.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;

use crate::format::summary::entry::SummaryEntry;
use crate::index::loader::visit;
use crate::model::config::Config;
use crate::model::damage::Damage;
use crate::model::error::Result;
use crate::offline::scan::{OfflineScan, read_only};
use crate::storage::io::{list_if_present, open_stored, stored_len};

/// Statistics of a closed store, as returned by [`stats()`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Number of documents.
    pub documents: u64,
    /// Number of users that have at least one document.
    pub users: u64,
    /// Total length of all documents in bytes. The length of a document is the length of the JSON
    /// text that a read returns.
    pub document_bytes: u64,
    /// Number of tombstones. A tombstone is the log frame of a delete, and is kept because it may
    /// hide older frames.
    pub tombstones: u64,
    /// Number of segments of the log.
    pub segments: u64,
    /// Total length in bytes of the log frames of current documents.
    pub live_bytes: u64,
    /// Total length in bytes of all log frames that are not frames of current documents. Compaction
    /// can reclaim these bytes, except for tombstones that are still needed and for bytes in
    /// segments with damaged frames.
    pub dead_bytes: u64,
    /// Number of frames that cannot be read and may be current.
    pub damaged_frames: u64,
    /// Total length of the files in `log/` in bytes: segments, summaries, manifest and reserve.
    pub log_bytes: u64,
    /// Number of files in `blobs/`, including files that no document uses.
    pub blobs: u64,
    /// Total length of the files in `blobs/` in bytes.
    pub blob_bytes: u64,
    /// Total length of the files in `catalogue/` in bytes.
    pub catalogue_bytes: u64,
    /// Estimated memory that the engine's table needs for the current documents and tombstones
    /// while the store is open, in bytes. The table usually needs less.
    pub table_bytes: u64,
    /// For each segment in which a damaged frame may be current, the first damage that was found.
    /// The list also contains the damage of files whose length cannot be read.
    pub damage: Vec<Damage>,
}

/// Number of bytes that the table usually needs at most for each document and each tombstone.
const MAX_TABLE_ENTRY_BYTES: u64 = 60;

/// Counts the documents and files of a closed store.
///
/// Reads the summaries of the segments. Reads the frames of a segment only if the segment has no
/// valid summary, for example because the previous process crashed. Changes nothing in the data
/// directory, and needs only the permission to read it. Locks the data directory for reading, and
/// therefore fails if an engine has the store open for writing. Blocks on disk I/O.
///
/// Memory: the table (usually up to 60 bytes for each document and each tombstone), and about 50
/// bytes for each user.
///
/// # Errors
/// - [`crate::Error::NotAStore`]: the directory has no store.
/// - [`crate::Error::Locked`]: an engine has the directory open for writing, or a
///   [`crate::DirectoryLock`] on the directory exists.
/// - [`crate::Error::Corrupt`], [`crate::Error::Unreadable`]: the manifest is damaged, or the
///   active segment cannot be scanned. Other damage is reported in [`Stats::damage`].
/// - [`crate::Error::UnsupportedFormat`]: a newer version of prefd has written to the store.
/// - [`crate::Error::Io`]: any other failure.
///
/// # Examples
/// ```
/// use prefd_engine::{Config, Engine, stats};
/// # let dir = tempfile::tempdir().unwrap();
/// let config = Config::new(dir.path());
/// Engine::open(config.clone())?.close()?;
/// assert_eq!(stats(&config)?.documents, 0);
/// # Ok::<(), prefd_engine::Error>(())
/// ```
pub fn stats(config: &Config) -> Result<Stats> {
    let config = &read_only(config);
    let scan = OfflineScan::run(config)?;
    let sum = scan.documents.accounting.lock().sum();
    let entries = u64::from(sum.documents) + u64::from(sum.tombstones);
    let mut damage: Vec<Damage> = scan.documents.damage().cloned().collect();
    let (blobs, blob_bytes) = count_files(config, &config.data_dir.join("blobs"), &mut damage)?;
    let (_, log_bytes) = count_files(config, &config.data_dir.join("log"), &mut damage)?;
    let mut stats = Stats {
        tombstones: sum.tombstones.into(),
        segments: scan.manifest.segments.len() as u64,
        live_bytes: sum.document_bytes,
        dead_bytes: sum.bytes.saturating_sub(sum.document_bytes),
        damaged_frames: sum.damaged.into(),
        log_bytes,
        blobs,
        blob_bytes,
        catalogue_bytes: crate::catalogue::marker::bytes_on_disk(
            &config.data_dir.join("catalogue"),
        ),
        table_bytes: entries * MAX_TABLE_ENTRY_BYTES,
        damage,
        ..Stats::default()
    };
    let mut users = HashSet::new();
    let is_current = |segment, entry: &SummaryEntry| scan.is_current(segment, entry);
    let index = (&scan.documents.table, &scan.documents.accounting);
    let visited = visit(&scan.directory, index, is_current, &mut |user, _, value| {
        stats.documents += 1;
        stats.document_bytes += value.usage.bytes;
        users.insert(scan.directory.hash(user, ""));
        ControlFlow::Continue(())
    })?;
    debug_assert!(visited.flow.is_continue());
    let skipped = visited.skipped.as_ref().and_then(Damage::from_error);
    // The scan may already have found the damage.
    let is_new = |damage: &Damage| stats.damage.iter().all(|known| known.path != damage.path);
    let skipped = skipped.filter(is_new);
    stats.damage.extend(skipped);
    stats.users = users.len() as u64;
    Ok(stats)
}

/// Returns the number of files in a directory, and the sum of their lengths. If the length of a
/// file cannot be read because the file is missing or damaged, the file counts as empty, and the
/// damage is added to `damage`.
fn count_files(config: &Config, dir: &Path, damage: &mut Vec<Damage>) -> Result<(u64, u64)> {
    let files = list_if_present(&*config.fs, dir)?;
    let mut bytes = 0;
    for path in &files {
        let len = open_stored(&*config.fs, path).and_then(|file| stored_len(&*file, path));
        match len {
            Ok(len) => bytes += len,
            Err(error) => damage.push(Damage::from_error(&error).ok_or(error)?),
        }
    }
    Ok((files.len() as u64, bytes))
}
