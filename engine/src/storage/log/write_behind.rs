//! Write-behind: if frames are written without a sync, another thread occasionally syncs the active
//! segment. The sync at the end of the segment then has fewer bytes to write.
//!
//! Durability does not depend on write-behind, and its failures are ignored. If a write-back fails,
//! the kernel reports the failure once to every open file description of the file (fsync(2)). The
//! committer's next sync therefore also fails, so no lost frame is acknowledged as durable.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::platform::fs::Fs;

/// Minimum number of unsynced bytes that triggers a sync.
const MIN_UNSYNCED_BYTES: u64 = 8 * 1024 * 1024;

#[derive(Default)]
pub(super) struct WriteBehind {
    /// Length of the segment when the last write-behind sync was started.
    requested_bytes: u64,
    thread: Option<JoinHandle<()>>,
}

impl WriteBehind {
    /// Starts a sync in another thread. Does nothing if fewer than [`MIN_UNSYNCED_BYTES`] bytes
    /// were written since the last sync was started, or if a write-behind thread is still running.
    /// `bytes` is the length of the segment, and `synced_bytes` is the length of the synced part of
    /// the segment.
    pub(super) fn start_if_due(
        &mut self,
        fs: &Arc<dyn Fs>,
        path: &Path,
        bytes: u64,
        synced_bytes: u64,
    ) {
        let is_busy = |thread: &JoinHandle<()>| !thread.is_finished();
        if bytes - synced_bytes.max(self.requested_bytes) < MIN_UNSYNCED_BYTES
            || self.thread.as_ref().is_some_and(is_busy)
        {
            return;
        }
        self.requested_bytes = bytes;
        let (fs, path) = (Arc::clone(fs), path.to_owned());
        // The thread opens the file separately, because the kernel reports a failure once per open
        // file description, and the committer must also get the report.
        let sync = move || drop(fs.open(&path).and_then(|file| file.sync()));
        let thread = std::thread::Builder::new().name("prefd-writeback".to_owned());
        // If the thread cannot be started, the sync at the end of the segment writes the bytes.
        self.thread = thread.spawn(sync).ok();
    }
}

/// Waits for the write-behind thread, so that the thread does not keep the file open.
impl Drop for WriteBehind {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
