//! Throttles the worker while it catches up and no listing is waiting. If a processor is idle, the
//! worker runs at full speed. If the worker competes with other threads for a processor, it rests
//! for up to four fifths of the time.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// A rest lasts this many times as long as the preceding work, up to [`MAX_REST`].
const REST_FACTOR: u32 = 4;
/// Maximum length of a rest. Without the maximum, the rest after one slow step could delay the
/// catalogue for a long time.
const MAX_REST: Duration = Duration::from_millis(50);
/// The worker rests only if the share of the elapsed time that it spent waiting for a processor
/// exceeds 1 divided by this number.
const TOLERATED_WAIT_DIVISOR: u32 = 8;

/// Measures the work of a thread since the thread last rested.
pub(super) struct Throttle {
    /// The scheduler statistics of the thread that created the `Throttle`. `None` if the kernel
    /// does not provide the statistics. Without the statistics, the thread never rests.
    schedstat: Option<File>,
    started: Instant,
    /// The total time that the thread had waited for a processor when the current work began.
    waited: Duration,
}

impl Throttle {
    /// Starts to measure the work of the calling thread.
    pub(super) fn begin() -> Self {
        let schedstat = File::open("/proc/thread-self/schedstat").ok();
        Self {
            waited: schedstat
                .as_ref()
                .and_then(run_queue_wait)
                .unwrap_or_default(),
            schedstat,
            started: Instant::now(),
        }
    }

    /// Returns how long the thread should rest after the work since [`Self::begin`] or the previous
    /// rest.
    pub(super) fn rest(&mut self) -> Duration {
        let Some(waited) = self.schedstat.as_ref().and_then(run_queue_wait) else {
            return Duration::ZERO;
        };
        let rest = rest_after(self.started.elapsed(), waited.saturating_sub(self.waited));
        self.waited = waited;
        self.started = Instant::now() + rest;
        rest
    }
}

/// Computes the length of the rest after work that lasted `took`. The duration `waited` is the part
/// of `took` during which the thread waited for a processor.
fn rest_after(took: Duration, waited: Duration) -> Duration {
    if waited > took / TOLERATED_WAIT_DIVISOR {
        (took * REST_FACTOR).min(MAX_REST)
    } else {
        Duration::ZERO
    }
}

/// Reads the total time for which the thread has waited for a processor.
fn run_queue_wait(schedstat: &File) -> Option<Duration> {
    let mut text = [0; 128];
    let bytes = schedstat.read_at(&mut text, 0).ok()?;
    parse_run_queue_wait(text.get(..bytes)?)
}

/// Parses the second of the three numbers in a `schedstat` file: the time in nanoseconds for which
/// the thread was runnable but not running (Documentation/scheduler/sched-stats.rst in the Linux
/// sources).
fn parse_run_queue_wait(text: &[u8]) -> Option<Duration> {
    let mut numbers = std::str::from_utf8(text).ok()?.split_whitespace();
    let nanoseconds = numbers.nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_rests_only_after_waiting_for_a_processor() {
        let ms = Duration::from_millis;
        assert_eq!(rest_after(ms(8), ms(0)), ms(0));
        assert_eq!(rest_after(ms(8), ms(1)), ms(0));
        assert_eq!(rest_after(ms(8), ms(2)), ms(32));
        assert_eq!(rest_after(ms(800), ms(400)), MAX_REST);
    }

    #[test]
    fn schedstat_wait_time_is_the_second_number() {
        let waited = parse_run_queue_wait(b"837458 1500 2\n");
        assert_eq!(waited, Some(Duration::from_nanos(1500)));
        assert_eq!(parse_run_queue_wait(b"837458\n"), None);
        assert_eq!(parse_run_queue_wait(b"0 many 0\n"), None);
        assert_eq!(parse_run_queue_wait(b""), None);
    }
}
