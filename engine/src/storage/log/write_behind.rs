//! Writing behind: the disk takes up what is not synced while more is written, so that
//! the sync at the end of a segment finds little left to wait for.
//!
//! Nothing rests on it. A failure is not reported here: the system reports it to each
//! that has the file open, so that whoever syncs what is acknowledged still hears of it.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::platform::fs::Fs;

/// Unsynced bytes that are worth it.
const ENOUGH_BYTES: u64 = 8 * 1024 * 1024;

#[derive(Default)]
pub(super) struct WriteBehind {
    /// What lies before this was synced, or will have been.
    begun_bytes: u64,
    thread: Option<JoinHandle<()>>,
}

impl WriteBehind {
    /// Takes note of how many bytes of the file are written, and how many are synced; has
    /// another thread sync it where those are far apart.
    pub(super) fn note(&mut self, fs: &Arc<dyn Fs>, path: &Path, bytes: u64, synced_bytes: u64) {
        let is_busy = |thread: &JoinHandle<()>| !thread.is_finished();
        if bytes - synced_bytes.max(self.begun_bytes) < ENOUGH_BYTES
            || self.thread.as_ref().is_some_and(is_busy)
        {
            return;
        }
        self.begun_bytes = bytes;
        let (fs, path) = (Arc::clone(fs), path.to_owned());
        // Opened anew, since a failure is reported once to each that has it open.
        let sync = move || drop(fs.open(&path).and_then(|file| file.sync()));
        let thread = std::thread::Builder::new().name("prefd-writeback".to_owned());
        // Without a thread, it is for the end.
        self.thread = thread.spawn(sync).ok();
    }
}

/// Nobody has the file open any more.
impl Drop for WriteBehind {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
