//! Measures whether the client of an upload makes progress.

use std::time::Duration;

use tokio::time::Instant;

/// Number of bytes that a client must send for its upload to count as making progress. An upload
/// that holds memory and makes no progress for [`STALL_GRACE`] is stalled, and ends if another
/// request waits for memory.
const PROGRESS_BYTES: u64 = 16 * 1024;
/// Time without progress after which an upload is stalled.
const STALL_GRACE: Duration = Duration::from_secs(1);

/// The progress of the client of one upload.
pub(super) struct UploadProgress {
    /// When the client had last sent another [`PROGRESS_BYTES`] bytes. Later, if the server did not
    /// wait for the client in the meantime.
    last_progress: Instant,
    bytes_since_progress: u64,
    /// When the last chunk was received, if the server has not yet waited for the next chunk.
    chunk_received: Option<Instant>,
}

impl UploadProgress {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_progress: now,
            bytes_since_progress: 0,
            chunk_received: None,
        }
    }

    /// Records that the server waits for the next chunk. Returns the time at which the upload stalls
    /// if the client makes no progress.
    ///
    /// The client is not slow while the server writes the last chunk, or waits for memory or disk
    /// space. During this time, the server reads nothing.
    pub(super) fn wait_for_chunk(&mut self, now: Instant) -> Instant {
        if let Some(received) = self.chunk_received.take() {
            self.last_progress += now - received;
        }
        self.last_progress + STALL_GRACE
    }

    /// Records that a chunk was received. Returns true if the client has made progress.
    pub(super) fn record_chunk(&mut self, bytes: usize, now: Instant) -> bool {
        self.chunk_received = Some(now);
        self.bytes_since_progress += bytes as u64;
        let has_progress = self.bytes_since_progress >= PROGRESS_BYTES;
        if has_progress {
            (self.last_progress, self.bytes_since_progress) = (now, 0);
        }
        has_progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn client_that_sends_almost_nothing_makes_no_progress() {
        let start = Instant::now();
        let mut progress = UploadProgress::new(start);
        assert_eq!(progress.wait_for_chunk(start), start + STALL_GRACE);
        let half = start + STALL_GRACE / 2;
        assert!(!progress.record_chunk(16 * 1024 - 1, half));
        assert_eq!(progress.wait_for_chunk(half), start + STALL_GRACE);
        assert!(progress.record_chunk(1, half));
        assert_eq!(progress.wait_for_chunk(half), half + STALL_GRACE);
    }

    /// An upload that had waited for memory was stalled as soon as it received the memory, because
    /// the time of the wait counted as time without progress.
    #[test]
    fn wait_of_the_server_does_not_count_as_time_without_progress() {
        let start = Instant::now();
        let mut progress = UploadProgress::new(start);
        progress.wait_for_chunk(start);
        assert!(progress.record_chunk(16 * 1024, start));
        let granted = start + 5 * SECOND;
        assert_eq!(progress.wait_for_chunk(granted), granted + STALL_GRACE);
        // The time before the wait still counts.
        let later = granted + STALL_GRACE / 2;
        assert!(!progress.record_chunk(1, later));
        let written = later + 5 * SECOND;
        assert_eq!(progress.wait_for_chunk(written), written + STALL_GRACE / 2);
    }
}
