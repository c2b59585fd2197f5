//! How fast the catalogue catches up while no listing waits for it: as fast as it can on
//! a processor that nobody else wants, and a fifth of the time where it takes turns on
//! one with readers and writers.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How much longer a rest is than the work before it.
const REST: u32 = 4;
/// No rest is longer: so long a listing may wait for nothing.
const MAX_REST: Duration = Duration::from_millis(50);
/// The part of the time that it may wait for a processor by chance.
const CHANCE: u32 = 8;

pub(super) struct Throttle {
    /// Of the thread that made it: what the kernel counts of its time on processors, and
    /// waiting for one. Where there is no such file, it does not rest.
    schedule: Option<File>,
    began: Instant,
    waited: Duration,
}

impl Throttle {
    pub(super) fn begin() -> Self {
        let schedule = File::open("/proc/thread-self/schedstat").ok();
        Self {
            waited: schedule.as_ref().and_then(waited).unwrap_or_default(),
            schedule,
            began: Instant::now(),
        }
    }

    /// How long to rest after the work since the rest that was asked for last.
    pub(super) fn rest(&mut self) -> Duration {
        let Some(waited) = self.schedule.as_ref().and_then(waited) else {
            return Duration::ZERO;
        };
        let rest = rest_after(self.began.elapsed(), waited.saturating_sub(self.waited));
        self.waited = waited;
        self.began = Instant::now() + rest;
        rest
    }
}

fn rest_after(took: Duration, waited: Duration) -> Duration {
    if waited > took / CHANCE {
        (took * REST).min(MAX_REST)
    } else {
        Duration::ZERO
    }
}

fn waited(schedule: &File) -> Option<Duration> {
    let mut text = [0; 128];
    let bytes = schedule.read_at(&mut text, 0).ok()?;
    waited_in(text.get(..bytes)?)
}

/// The second number of three: nanoseconds in which the thread could have run and had no
/// processor (the kernel's sched-stats.rst).
fn waited_in(text: &[u8]) -> Option<Duration> {
    let mut numbers = std::str::from_utf8(text).ok()?.split_whitespace();
    let nanoseconds = numbers.nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_only_where_it_had_to_wait_for_a_processor() {
        let ms = Duration::from_millis;
        assert_eq!(rest_after(ms(8), ms(0)), ms(0));
        assert_eq!(rest_after(ms(8), ms(1)), ms(0));
        assert_eq!(rest_after(ms(8), ms(2)), ms(32));
        assert_eq!(rest_after(ms(800), ms(400)), MAX_REST);
    }

    #[test]
    fn the_time_waited_is_the_second_number() {
        let waited = waited_in(b"837458 1500 2\n");
        assert_eq!(waited, Some(Duration::from_nanos(1500)));
        assert_eq!(waited_in(b"837458\n"), None);
        assert_eq!(waited_in(b"0 many 0\n"), None);
        assert_eq!(waited_in(b""), None);
    }
}
