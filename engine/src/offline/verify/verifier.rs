//! What every step of a verification shares.

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
    pub(super) found: Verification,
    /// Current documents that lie in blobs.
    pub(super) spread: Vec<FrameLocation>,
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

    pub(super) fn read(&mut self, bytes: u64) {
        self.found.bytes += bytes;
        (self.progress)(Progress {
            done_bytes: self.found.bytes,
            total_bytes: self.total_bytes,
        });
    }

    pub(super) fn problem(
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
        self.found.problems.push(Problem {
            path: path.clone(),
            offset,
            what,
            impact,
            namespace,
        });
        Ok(())
    }
}
