//! Verifies a closed store: every frame, every byte of every document, every summary, and the
//! catalogue.
//!
//! Verification repairs nothing, and changes nothing in the data directory.

mod documents;
mod segment;
mod verifier;

use crate::model::config::Config;
use crate::model::error::Result;
use crate::model::progress::Progress;
use crate::offline::report::{CatalogueCheck, Verification};
use crate::offline::scan::{OfflineScan, read_only};
use crate::offline::verify::verifier::Verifier;
use crate::storage::io::list_if_present;

/// Reads and checks all data of a closed store. Defects are reported in [`Verification::problems`],
/// not as an error.
///
/// Changes nothing in the data directory, and needs only the permission to read it. Locks the data
/// directory for reading, and therefore fails if an engine has the store open for writing. To check
/// the catalogue, copies its files to a new directory in [`std::env::temp_dir`], because sled, the
/// catalogue's database, changes its files when it opens them. Blocks until all data has been read.
/// Calls `progress` on the calling thread after each frame and after each chunk of a blob.
///
/// Memory: the table (usually up to 60 bytes for each document and each tombstone), and the frame
/// headers and metadata of one segment.
///
/// # Errors
/// Each of the following errors means that the store could not be verified. [`crate::Engine::open`]
/// may succeed nevertheless, for example because opening a store does not read the frames of sealed
/// segments.
///
/// - [`crate::Error::NotAStore`]: the directory has no store.
/// - [`crate::Error::Locked`]: an engine has the directory open for writing, or a
///   [`crate::DirectoryLock`] on the directory exists.
/// - [`crate::Error::Corrupt`], [`crate::Error::Unreadable`]: the manifest is damaged, or the
///   active segment cannot be scanned.
/// - [`crate::Error::UnsupportedFormat`]: a newer version of prefd has written to the store.
/// - [`crate::Error::Io`]: any other failure.
///
/// # Examples
/// ```
/// use prefd_engine::{Config, Engine, verify};
/// # let dir = tempfile::tempdir().unwrap();
/// let config = Config::new(dir.path());
/// Engine::open(config.clone())?.close()?;
/// let report = verify(&config, &mut |_progress| {})?;
/// assert!(report.problems.is_empty());
/// # Ok::<(), prefd_engine::Error>(())
/// ```
pub fn verify(config: &Config, progress: &mut dyn FnMut(Progress)) -> Result<Verification> {
    let config = &read_only(config);
    let scan = OfflineScan::run(config)?;
    let total_bytes = total_bytes(config, &scan)?;
    let mut verifier = Verifier {
        config,
        scan: &scan,
        progress,
        total_bytes,
        report: Verification {
            segments: 0,
            frames: 0,
            documents: 0,
            bytes: 0,
            torn_bytes: 0,
            unnamed_blobs: 0,
            catalogue: CatalogueCheck::Unclean,
            problems: Vec::new(),
        },
        blob_documents: Vec::new(),
    };
    for record in &scan.manifest.segments {
        verifier.verify_segment(record)?;
    }
    verifier.verify_blob_documents()?;
    verifier.verify_catalogue()?;
    Ok(verifier.report)
}

/// Estimates the number of bytes that a verification reads: the total length of all segments and
/// blobs.
fn total_bytes(config: &Config, scan: &OfflineScan) -> Result<u64> {
    let mut total = 0;
    for dir in [&scan.directory.dir, &config.data_dir.join("blobs")] {
        for path in list_if_present(&*config.fs, dir)? {
            let is_read = path.extension().is_some_and(|e| e == "seg" || e == "blob");
            if is_read && let Ok(file) = config.fs.open(&path) {
                total += file.len().unwrap_or_default();
            }
        }
    }
    Ok(total)
}
