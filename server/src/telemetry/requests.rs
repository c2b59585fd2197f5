//! Counts requests by route, method and status, and records how long they take.
//!
//! The counters are sharded, so that threads rarely contend for the same cache lines.

use std::array;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::{Method, StatusCode};

/// Number of shards. If there are more threads than shards, several threads share a shard.
const SHARDS: usize = 8;
const METHODS: [&str; 6] = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "other"];
/// The statuses that are counted separately. The last entry, 0, stands for all other statuses.
const STATUSES: [u16; 16] = [
    200, 204, 304, 400, 401, 403, 404, 405, 408, 412, 413, 415, 501, 503, 507, 0,
];
/// Upper bounds of the histogram buckets, in microseconds. The bounds cover reads from memory,
/// which take about 10 µs, and writes, which wait for a sync of the disk.
const BOUNDS_MICROS: [u64; 14] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_500_000,
    10_000_000,
];

/// The kind of resource that a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteKind {
    /// A document.
    Preferences,
    /// The OpenAPI document or a health check.
    Page,
    /// The path does not belong to any resource.
    None,
}

/// The value of the label `route` for each kind.
const KINDS: [(RouteKind, &str); 3] = [
    (RouteKind::Preferences, crate::http::Route::TEMPLATE),
    (RouteKind::Page, "page"),
    (RouteKind::None, "none"),
];

/// One counter for each route, method and status.
type RequestCounts = [[[AtomicU64; STATUSES.len()]; METHODS.len()]; KINDS.len()];

/// The counters of the threads that use this shard. A shard is aligned to 128 bytes, so that two
/// shards never share a cache line, or a pair of cache lines that the processor prefetches
/// together.
#[repr(align(128))]
struct Shard {
    requests: RequestCounts,
    /// Durations by method.
    durations: [DurationCounts; METHODS.len()],
}

/// The durations of requests with one method.
struct DurationCounts {
    /// The last bucket counts durations above the largest bound.
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    sum_micros: AtomicU64,
}

impl Default for Shard {
    fn default() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self {
            requests: array::from_fn(|_| array::from_fn(|_| array::from_fn(zero))),
            durations: array::from_fn(|_| DurationCounts {
                buckets: array::from_fn(zero),
                sum_micros: AtomicU64::new(0),
            }),
        }
    }
}

/// The durations of requests with one method, summed over all shards.
pub(super) struct DurationHistogram {
    pub(super) method: &'static str,
    /// The upper bound of each bucket in seconds, and the number of requests in the bucket. Unlike
    /// in the Prometheus text format, the numbers of requests are not cumulative.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) count: u64,
    pub(super) sum_seconds: f64,
}

/// Counters for the requests of the API listener.
pub(crate) struct RequestMetrics(Box<[Shard; SHARDS]>);

impl Default for RequestMetrics {
    fn default() -> Self {
        Self(Box::new(array::from_fn(|_| Shard::default())))
    }
}

impl RequestMetrics {
    /// Counts one request. `duration` is the time from the request head to the response head.
    pub(crate) fn count(
        &self,
        kind: RouteKind,
        method: &Method,
        status: StatusCode,
        duration: Duration,
    ) {
        let Some(shard) = self.0.get(shard_index()) else {
            return;
        };
        let method = method_index(method);
        let status = STATUSES.iter().position(|known| *known == status.as_u16());
        let status = status.unwrap_or(STATUSES.len() - 1);
        let kind = KINDS.iter().position(|(known, _)| *known == kind);
        let counter = kind.and_then(|kind| shard.requests.get(kind)?.get(method)?.get(status));
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.iter().position(|bound| micros <= *bound);
        let bucket = bucket.unwrap_or(BOUNDS_MICROS.len());
        if let Some(durations) = shard.durations.get(method) {
            if let Some(bucket) = durations.buckets.get(bucket) {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
            durations.sum_micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    /// Returns the number of requests for each combination of route, method and status. A
    /// combination without requests is included only if an alert in docs/operations.md watches this
    /// combination, because Prometheus does not detect the first increase of a time series that
    /// begins with a value above 0.
    pub(super) fn counts(&self) -> Vec<(&'static str, &'static str, String, u64)> {
        let mut rows = Vec::new();
        for (kind, (_, route)) in KINDS.iter().enumerate() {
            for (method, name) in METHODS.iter().enumerate() {
                for (index, status) in STATUSES.iter().enumerate() {
                    let counters = self
                        .0
                        .iter()
                        .filter_map(|shard| shard.requests.get(kind)?.get(method)?.get(index));
                    let count = sum(counters);
                    if count > 0 || is_alerted(route, name, *status) {
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

    /// Returns one histogram for each method with at least one request.
    pub(super) fn durations(&self) -> Vec<DurationHistogram> {
        let histogram = |(method, name): (usize, &&'static str)| {
            let durations = || {
                self.0
                    .iter()
                    .filter_map(|shard| shard.durations.get(method))
            };
            let bounds = BOUNDS_MICROS.iter().map(|micros| seconds(*micros));
            let buckets: Vec<(f64, u64)> = bounds
                .chain([f64::INFINITY])
                .enumerate()
                .map(|(index, bound)| {
                    let counters = durations().filter_map(|durations| durations.buckets.get(index));
                    (bound, sum(counters))
                })
                .collect();
            DurationHistogram {
                method: name,
                count: buckets.iter().map(|(_, count)| count).sum(),
                buckets,
                sum_seconds: seconds(sum(durations().map(|durations| &durations.sum_micros))),
            }
        };
        let histograms = METHODS.iter().enumerate().map(histogram);
        histograms.filter(|histogram| histogram.count > 0).collect()
    }
}

/// Returns true if an alert in docs/operations.md watches this combination of route, method and
/// status. Counters that an alert watches are reported even if they are 0.
fn is_alerted(route: &str, method: &str, status: u16) -> bool {
    let is_write = matches!(method, "PUT" | "DELETE");
    let is_read = method == "GET";
    route == crate::http::Route::TEMPLATE
        && match status {
            501 | 503 => is_read || is_write,
            507 => is_write,
            _ => false,
        }
}

fn sum<'a>(counters: impl Iterator<Item = &'a AtomicU64>) -> u64 {
    counters
        .map(|counter| counter.load(Ordering::Relaxed))
        .sum()
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a metric does not need more precision"
)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// The index of the calling thread's shard. Shards are assigned to threads round-robin.
fn shard_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    SHARD.with(|shard| *shard)
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
    fn counts_of_all_threads_are_summed() {
        let requests = RequestMetrics::default();
        let count = |status: u16, micros: u64| {
            let status = StatusCode::from_u16(status).unwrap();
            let duration = Duration::from_micros(micros);
            requests.count(RouteKind::Preferences, &Method::GET, status, duration);
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
            RouteKind::None,
            &Method::PATCH,
            StatusCode::NOT_FOUND,
            Duration::ZERO,
        );
        let template = crate::http::Route::TEMPLATE;
        let (alerted, counted): (Vec<_>, Vec<_>) =
            requests.counts().into_iter().partition(|row| row.3 == 0);
        assert_eq!(
            counted,
            [
                (template, "GET", "200".to_owned(), 21),
                (template, "GET", "401".to_owned(), 1),
                (template, "GET", "other".to_owned(), 1),
                ("none", "other", "404".to_owned(), 1),
            ]
        );
        let alerted: Vec<_> = alerted.iter().map(|row| (row.1, row.2.as_str())).collect();
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
        assert_eq!(alerted, expected);
        let durations = requests.durations();
        let get = &durations[0];
        assert_eq!((durations.len(), get.method, get.count), (2, "GET", 23));
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
