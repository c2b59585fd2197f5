//! Requests, by route, method and status, and how long they take.
//!
//! Each thread counts in a part of its own, so that threads do not hand the same cache
//! lines to each other for every request.

use std::array;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::{Method, StatusCode};

/// Parts; more threads than that share them.
const PARTS: usize = 8;
const METHODS: [&str; 6] = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "other"];
/// Every status that the server answers with; the last one stands for any other.
const STATUSES: [u16; 16] = [
    200, 204, 304, 400, 401, 403, 404, 405, 408, 412, 413, 415, 501, 503, 507, 0,
];
/// Upper bounds of the time from a request's head to that of its answer, in microseconds:
/// a read from memory takes some 10, a durable write a sync of the disk.
const BOUNDS_MICROS: [u64; 14] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000,
    10_000_000,
];

/// What a request was for, as metrics tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Preferences,
    /// Anything else that there is, such as health.
    Page,
    None,
}

const KINDS: [(Kind, &str); 3] = [
    (Kind::Preferences, crate::http::Route::TEMPLATE),
    (Kind::Page, "page"),
    (Kind::None, "none"),
];

type Cells = [[[AtomicU64; STATUSES.len()]; METHODS.len()]; KINDS.len()];

/// What one thread counts. Of a size that keeps parts off each other's cache lines.
#[repr(align(128))]
struct Part {
    answered: Cells,
    /// By method: in each bucket, and the sum in microseconds.
    times: [Times; METHODS.len()],
}

struct Times {
    /// The last one is for what is beyond every bound.
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

impl Default for Part {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self {
            answered: array::from_fn(|_| array::from_fn(|_| array::from_fn(zero))),
            times: array::from_fn(|_| Times {
                buckets: array::from_fn(zero),
                sum_micros: AtomicU64::new(0),
            }),
        }
    }
}

/// How long requests of a method took.
pub(super) struct Histogram {
    pub(super) method: &'static str,
    /// Upper bounds in seconds, and how many were within each and above the one before.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) count: u64,
    pub(super) sum_seconds: f64,
}

/// Requests that were answered.
pub(crate) struct Requests(Box<[Part; PARTS]>);

impl Default for Requests {
    fn default() -> Self {
        Self(Box::new(array::from_fn(|_| Part::default())))
    }
}

impl Requests {
    /// Counts one.
    pub(crate) fn count(&self, kind: Kind, method: &Method, status: StatusCode, took: Duration) {
        let Some(part) = self.0.get(part()) else {
            return;
        };
        let method = method_index(method);
        let status = STATUSES.iter().position(|known| *known == status.as_u16());
        let status = status.unwrap_or(STATUSES.len() - 1);
        let kind = KINDS.iter().position(|(known, _)| *known == kind);
        let cell = kind.and_then(|kind| part.answered.get(kind)?.get(method)?.get(status));
        if let Some(cell) = cell {
            cell.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.iter().position(|bound| micros <= *bound);
        let bucket = bucket.unwrap_or(BOUNDS_MICROS.len());
        if let Some(times) = part.times.get(method) {
            if let Some(bucket) = times.buckets.get(bucket) {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
            times.sum_micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// Route, method, status and how many, of those that there were, and of those that wake
    /// people: Prometheus sees no increase of what was not there before.
    pub(super) fn answered(&self) -> Vec<(&'static str, &'static str, String, u64)> {
        let mut rows = Vec::new();
        for (kind, (_, route)) in KINDS.iter().enumerate() {
            for (method, name) in METHODS.iter().enumerate() {
                for (index, status) in STATUSES.iter().enumerate() {
                    let cells = self
                        .0
                        .iter()
                        .filter_map(|part| part.answered.get(kind)?.get(method)?.get(index));
                    let count = sum(cells);
                    if count > 0 || is_alarm(route, name, *status) {
                        let status = match status {
                            0 => "other".to_owned(),
                            status => status.to_string(),
                        };
                        rows.push((*route, *name, status, count));
                    }
                }
            }
        }
        rows
    }

    /// Of each method that was used.
    pub(super) fn times(&self) -> Vec<Histogram> {
        let histogram = |(method, name): (usize, &&'static str)| {
            let times = || self.0.iter().filter_map(|part| part.times.get(method));
            let bounds = BOUNDS_MICROS.iter().map(|micros| seconds(*micros));
            let buckets: Vec<(f64, u64)> = bounds
                .chain([f64::INFINITY])
                .enumerate()
                .map(|(index, bound)| {
                    let cells = times().filter_map(|times| times.buckets.get(index));
                    (bound, sum(cells))
                })
                .collect();
            Histogram {
                method: name,
                count: buckets.iter().map(|(_, count)| count).sum(),
                buckets,
                sum_seconds: seconds(sum(times().map(|times| &times.sum_micros))),
            }
        };
        let histograms = METHODS.iter().enumerate().map(histogram);
        histograms.filter(|histogram| histogram.count > 0).collect()
    }
}

/// Whether it is shown although there was none.
fn is_alarm(route: &str, method: &str, status: u16) -> bool {
    let is_write = matches!(method, "PUT" | "DELETE");
    let is_read = method == "GET";
    route == crate::http::Route::TEMPLATE
        && match status {
            501 | 503 => is_read || is_write,
            507 => is_write,
            _ => false,
        }
}

fn sum<'a>(cells: impl Iterator<Item = &'a AtomicU64>) -> u64 {
    cells.map(|cell| cell.load(Ordering::Relaxed)).sum()
}

#[allow(clippy::cast_precision_loss, reason = "a time that is shown")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// The calling thread's part.
fn part() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static PART: usize = NEXT.fetch_add(1, Ordering::Relaxed) % PARTS;
    }
    PART.with(|part| *part)
}

fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::PUT => 2,
        Method::DELETE => 3,
        Method::OPTIONS => 4,
        _ => METHODS.len() - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_added_up() {
        let requests = Requests::default();
        let count = |status: u16, micros: u64| {
            let status = StatusCode::from_u16(status).unwrap();
            let took = Duration::from_micros(micros);
            requests.count(Kind::Preferences, &Method::GET, status, took);
        };
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| count(200, 10));
            }
        });
        count(200, 25);
        count(401, 26);
        count(418, 20_000_000);
        requests.count(
            Kind::None,
            &Method::PATCH,
            StatusCode::NOT_FOUND,
            Duration::ZERO,
        );
        let template = crate::http::Route::TEMPLATE;
        let (alarms, answered): (Vec<_>, Vec<_>) =
            requests.answered().into_iter().partition(|row| row.3 == 0);
        assert_eq!(
            answered,
            [
                (template, "GET", "200".to_owned(), 21),
                (template, "GET", "401".to_owned(), 1),
                (template, "GET", "other".to_owned(), 1),
                ("none", "other", "404".to_owned(), 1),
            ]
        );
        let alarms: Vec<_> = alarms.iter().map(|row| (row.1, row.2.as_str())).collect();
        let expected = [
            ("GET", "501"),
            ("GET", "503"),
            ("PUT", "501"),
            ("PUT", "503"),
            ("PUT", "507"),
            ("DELETE", "501"),
            ("DELETE", "503"),
            ("DELETE", "507"),
        ];
        assert_eq!(alarms, expected);
        let times = requests.times();
        let get = &times[0];
        assert_eq!((times.len(), get.method, get.count), (2, "GET", 23));
        assert_eq!(get.buckets[0], (0.000_025, 21));
        assert_eq!(get.buckets[1], (0.000_05, 1));
        assert_eq!(get.buckets.last(), Some(&(f64::INFINITY, 1)));
        assert!(
            (get.sum_seconds - 20.000_251).abs() < 1e-9,
            "{}",
            get.sum_seconds
        );
    }
}
