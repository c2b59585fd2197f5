//! HTTP dates (RFC 9110 section 5.6.7), which have a resolution of one second.
//!
//! A date is a validator only if it identifies one version of a document. The store can write
//! several versions within one second, and the clock can go back. Therefore the server sends a date
//! in Last-Modified only one second after the date has passed, and the store gives later writes
//! later dates. A date in a condition that the server cannot have sent yet never matches.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use httpdate::HttpDate;
use hyper::header::HeaderValue;

use crate::http::header::header_value;

/// The resolution of HTTP dates. A write within this time after another write can have the same
/// date.
const RESOLUTION: Duration = Duration::from_secs(1);
/// The last second of the year 9999, in seconds since 1970. `httpdate` cannot format later dates.
const MAX_SECONDS: u64 = 253_402_300_799;

/// The Last-Modified date of a document that was written at `modified`, but not later than
/// `latest_date`. Returns `None` if an HTTP date cannot represent the time.
pub(super) fn last_modified(modified: SystemTime, latest_date: SystemTime) -> Option<HeaderValue> {
    format(seconds(modified.min(latest_date)))
}

/// Whether `since` is a date that the server can have sent in Last-Modified, and the document was
/// not written after it.
pub(super) fn is_unmodified_since(
    since: SystemTime,
    modified: SystemTime,
    now: SystemTime,
) -> bool {
    seconds(since) <= latest_valid(now) && seconds(modified) <= seconds(since)
}

/// The Date of a response that is generated at `now`. Returns `None` if an HTTP date cannot
/// represent the time.
///
/// The date is formatted once per second and thread. hyper does the same, but does not update its
/// date while the clock is behind the date.
pub(super) fn date(now: SystemTime) -> Option<HeaderValue> {
    thread_local! {
        static LAST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
    }
    let seconds = seconds(now);
    LAST.with_borrow_mut(|last| match last {
        Some((of, value)) if *of == seconds => Some(value.clone()),
        _ => {
            let value = format(seconds)?;
            *last = Some((seconds, value.clone()));
            Some(value)
        }
    })
}

/// The latest date that the server can have sent in Last-Modified, in seconds since 1970.
fn latest_valid(now: SystemTime) -> u64 {
    seconds(now.checked_sub(RESOLUTION).unwrap_or(now))
}

/// The time in seconds since 1970, or 0 for an earlier time.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn format(seconds: u64) -> Option<HeaderValue> {
    if seconds > MAX_SECONDS {
        return None;
    }
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    header_value(format_args!("{}", HttpDate::from(time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, in milliseconds since 1970.
    const MILLIS: u64 = 784_111_777_000;

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn last_modified_is_not_later_than_the_latest_date() {
        let shown = |modified, latest| last_modified(at(modified), at(latest)).unwrap();
        let at_date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(shown(MILLIS + 500, MILLIS), at_date);
        assert_eq!(shown(MILLIS + 500, MILLIS + 3_600_000), at_date);
        assert_eq!(shown(MILLIS + 3_600_000, MILLIS), at_date);
    }

    #[test]
    fn date_matches_only_if_it_can_have_been_sent() {
        let matches = |since, modified, now| is_unmodified_since(at(since), at(modified), at(now));
        let day = 86_400_000;
        assert!(matches(MILLIS, MILLIS + 999, MILLIS + 1000));
        assert!(matches(MILLIS + 1000, MILLIS + 999, MILLIS + 2000));
        assert!(!matches(MILLIS - 1000, MILLIS, MILLIS + day));
        // The date has not passed, so a later write can have the same date.
        assert!(!matches(MILLIS, MILLIS + 100, MILLIS + 999));
        assert!(!matches(MILLIS + day, MILLIS, MILLIS + 5000));
    }

    #[test]
    fn date_follows_a_clock_that_goes_back() {
        let shown = |now| date(at(now)).unwrap();
        assert_eq!(shown(MILLIS), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(shown(MILLIS + 999), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(shown(MILLIS + 1000), "Sun, 06 Nov 1994 08:49:38 GMT");
        assert_eq!(shown(MILLIS - 3_600_000), "Sun, 06 Nov 1994 07:49:37 GMT");
    }

    #[test]
    fn time_that_no_http_date_can_represent_is_none() {
        let year_10000 = at(MAX_SECONDS * 1000 + 1000);
        assert_eq!(date(year_10000), None);
        assert!(date(at(MAX_SECONDS * 1000)).is_some());
        assert_eq!(last_modified(year_10000, year_10000 + RESOLUTION), None);
        let before_1970 = SystemTime::UNIX_EPOCH - RESOLUTION;
        assert_eq!(date(before_1970).unwrap(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert!(last_modified(before_1970, before_1970).is_some());
    }
}
