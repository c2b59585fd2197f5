//! The time of a log line, as a date and time in UTC with microseconds (RFC 3339).

use std::cell::Cell;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use time::UtcDateTime;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

const MICROS_DIGITS: usize = 6;
/// The date and time up to the point before the microseconds, such as `2026-11-30T23:18:14.`.
type Second = [u8; 20];
/// A complete timestamp, such as `2026-11-30T23:18:14.790334Z`.
pub(super) type Timestamp = [u8; 20 + MICROS_DIGITS + 1];

/// Formats the time of `tracing` events.
pub(super) struct TimestampFormat;

impl FormatTime for TimestampFormat {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let timestamp = timestamp(SystemTime::now());
        writer.write_str(std::str::from_utf8(&timestamp).unwrap_or_default())
    }
}

/// Formats a time. The date and time of a second are formatted once per second and thread.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    thread_local! {
        static LAST: Cell<Option<(u64, Second)>> = const { Cell::new(None) };
    }
    // A clock before 1970 is shown as 1970.
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since_epoch.as_secs();
    let second = match LAST.get() {
        Some((of, second)) if of == seconds => second,
        _ => {
            let second = format_second(time);
            LAST.set(Some((seconds, second)));
            second
        }
    };
    let mut timestamp = [b'Z'; _];
    if let Some((start, micros)) = timestamp.split_first_chunk_mut() {
        *start = second;
        let mut rest = since_epoch.subsec_micros();
        for digit in micros.iter_mut().take(MICROS_DIGITS).rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
    }
    timestamp
}

fn format_second(time: SystemTime) -> Second {
    let time = UtcDateTime::from(time.max(UNIX_EPOCH));
    let (date, hour, minute, second) = (time.date(), time.hour(), time.minute(), time.second());
    let text = format!("{date}T{hour:02}:{minute:02}:{second:02}.");
    // Only a year after 9999 has another length.
    text.as_bytes().try_into().unwrap_or([b'?'; _])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_has_microseconds_in_utc() {
        let shown = |micros| {
            let time = UNIX_EPOCH + Duration::from_micros(micros);
            String::from_utf8(timestamp(time).to_vec()).unwrap()
        };
        assert_eq!(shown(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(shown(951_827_696_000_001), "2000-02-29T12:34:56.000001Z");
        assert_eq!(shown(951_827_696_999_999), "2000-02-29T12:34:56.999999Z");
        assert_eq!(shown(951_827_697_120_000), "2000-02-29T12:34:57.120000Z");
    }

    #[test]
    fn time_before_1970_is_shown_as_1970() {
        let time = timestamp(UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(&time, b"1970-01-01T00:00:00.000000Z");
    }
}
