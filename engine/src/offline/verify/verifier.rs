//! The state that all steps of a verification share.

use std::sync::Arc;

use crate::format::location::FrameLocation;
use crate::model::config::Config;
use crate::model::error::{Error, Result};
use crate::model::progress::Progress;
use crate::offline::report::{Impact, Problem, Verification};
use crate::offline::scan::OfflineScan;
use crate::storage::log::reader::FrameReader;

pub(super) struct Verifier<'a> {
    pub(super) config: &'a Config,
    pub(super) scan: &'a OfflineScan,
    pub(super) progress: &'a mut dyn FnMut(Progress),
    pub(super) total_bytes: u64,
    pub(super) report: Verification,
    /// The locations of current documents whose bodies are in blobs. These documents are verified
    /// after the segments.
    pub(super) blob_documents: Vec<FrameLocation>,
}

impl Verifier<'_> {
    pub(super) fn reader(&self) -> FrameReader {
        let directory = &self.scan.directory;
        let fs = Arc::clone(&self.config.fs);
        FrameReader::new(
            fs,
            &directory.dir,
            directory.store,
            self.config.open_segments,
        )
    }

    /// Adds `bytes` to the number of checked bytes, and reports the progress.
    pub(super) fn add_read_bytes(&mut self, bytes: u64) {
        self.report.bytes += bytes;
        (self.progress)(Progress {
            done_bytes: self.report.bytes,
            total_bytes: self.total_bytes,
        });
    }

    /// Adds a problem to the report.
    ///
    /// # Errors
    /// Returns a copy of `error` if `error` [is not damage](Error::is_damage).
    pub(super) fn record_problem(
        &mut self,
        error: &Error,
        impact: Impact,
        namespace: Option<(String, String)>,
    ) -> Result<()> {
        let (path, offset, what) = match error {
            Error::Corrupt { path, offset, what } => (path, *offset, what.clone()),
            Error::Unreadable {
                path,
                offset,
                source,
            } => (path, *offset, format!("a read failed: {source}")),
            other => return Err(other.clone()),
        };
        self.report.problems.push(Problem {
            path: path.clone(),
            offset,
            what,
            impact,
            namespace,
        });
        Ok(())
    }
}
