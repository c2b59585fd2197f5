//! The dates of responses and in conditions, on a server whose clock the test sets.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prefd::fuzzing::{InMemoryServer, KeyFiles};
use prefd_engine::clock::{Clock, SystemClock};
use prefd_engine::{Config, Engine, Limits};
use prefd_tests::http::{Request, Response};
use prefd_tests::token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;

/// Pipe capacity that is larger than every request and response of these tests.
const PIPE_BYTES: usize = 64 * 1024;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const PAST: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const FUTURE: &str = "Fri, 01 Jan 2100 00:00:00 GMT";

thread_local! {
    /// The time of the server's clock. The server of a test runs on the thread of the test.
    static NOW: Cell<SystemTime> = const { Cell::new(UNIX_EPOCH) };
}

/// The clock of the engine: the system clock, until a test sets the time, in milliseconds since
/// 1970.
#[derive(Clone, Default)]
struct EngineClock(Arc<AtomicU64>);

impl EngineClock {
    fn set(&self, now: SystemTime) {
        let since = now.duration_since(UNIX_EPOCH).unwrap();
        let millis = u64::try_from(since.as_millis()).unwrap();
        self.0.store(millis, Ordering::Relaxed);
    }
}

impl Clock for EngineClock {
    fn now_ms(&self) -> u64 {
        match self.0.load(Ordering::Relaxed) {
            0 => SystemClock.now_ms(),
            millis => millis,
        }
    }
}

/// A server whose clock is [`NOW`].
struct Clocked {
    server: InMemoryServer,
    engine_clock: EngineClock,
    runtime: Runtime,
    token: String,
    _dir: tempfile::TempDir,
}

impl Clocked {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine_clock = EngineClock::default();
        let mut config = Config::new(dir.path());
        config.clock = Arc::new(engine_clock.clone());
        let engine = Engine::open(config).unwrap();
        let secret = token::secret_file();
        let keys = KeyFiles {
            secret: Some(&secret),
            ..KeyFiles::default()
        };
        NOW.set(SystemTime::now());
        let max_body_bytes = Limits::DEFAULT.max_body_bytes;
        let server = InMemoryServer::with_clock(engine, &keys, max_body_bytes, || NOW.get());
        let mut claims = token::claims("alice", "xyz");
        // The token is valid at every time that these tests set.
        claims["exp"] = 4_102_444_800_u64.into();
        Self {
            server: server.unwrap(),
            engine_clock,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap(),
            token: token::hs256(&claims),
            _dir: dir,
        }
    }

    /// Sets the clocks of the server and of the engine.
    fn set_time(&self, now: SystemTime) {
        NOW.set(now);
        self.engine_clock.set(now);
    }

    /// Sends bytes on a new connection, and returns the response.
    fn send(&self, bytes: &[u8], is_head: bool) -> Response {
        let (client, end) = tokio::io::duplex(PIPE_BYTES);
        let (mut from, mut to) = tokio::io::split(client);
        let send = async {
            to.write_all(bytes).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let receive = async {
            let mut received = Vec::new();
            from.read_to_end(&mut received).await.unwrap();
            received
        };
        let exchange = async {
            let serve = self.server.serve_connection(end);
            tokio::join!(receive, send, serve).0
        };
        let received = self.runtime.block_on(exchange);
        Response::read(&mut &received[..], is_head).unwrap()
    }

    /// Sends a request for the document, with a body if the method is PUT.
    fn request(&self, method: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::of(method, "xyz", &self.token);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if method == "PUT" {
            request = request.body("{\"a\":1}");
        }
        self.send(&request.bytes(), method == "HEAD")
    }

    fn status(&self, method: &str, headers: &[(&str, &str)]) -> u16 {
        self.request(method, headers).status
    }

    /// Stores a document, and returns its entity tag. Then sets the clock to a time at which the
    /// date of the document is valid: if an earlier version was shown, the document can have a time
    /// that is up to one second ahead of the engine's clock.
    fn put(&self) -> String {
        let response = self.request("PUT", &[]);
        assert_eq!(response.status, 204, "{response:?}");
        NOW.set(SystemTime::now() + 2 * SECOND);
        response.header("etag").unwrap().to_owned()
    }

    fn last_modified(&self) -> String {
        let head = self.request("HEAD", &[]);
        head.header("last-modified").unwrap().to_owned()
    }
}

/// The HTTP date of a time.
fn http_date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}

#[test]
fn date_follows_a_clock_that_is_set_back() {
    let clocked = Clocked::new();
    clocked.put();
    let start = SystemTime::now();
    for now in [start, start + HOUR, start, start - HOUR, start - 24 * HOUR] {
        NOW.set(now);
        for (method, headers, status) in [
            ("GET", &[][..], 200),
            ("HEAD", &[], 200),
            ("PUT", &[], 204),
            ("GET", &[("If-None-Match", "*")], 304),
            ("GET", &[("If-Match", "\"0\"")], 412),
            ("POST", &[], 405),
        ] {
            let response = clocked.request(method, headers);
            assert_eq!(response.status, status, "{response:?}");
            let date = response.header("date").unwrap();
            assert_eq!(date, http_date(now), "{method} {status}");
        }
    }
}

#[test]
fn last_modified_is_at_least_one_second_old() {
    let clocked = Clocked::new();
    let before = SystemTime::now();
    clocked.put();
    let after = SystemTime::now();
    // One second after the write, its date is valid, and stays the same.
    for passed in [SECOND, HOUR, 24 * HOUR] {
        NOW.set(after + passed);
        let shown = httpdate::parse_http_date(&clocked.last_modified()).unwrap();
        assert!(shown > before - SECOND && shown <= after, "{shown:?}");
    }
    for now in [before, before - HOUR, before - 24 * HOUR] {
        NOW.set(now);
        assert_eq!(clocked.last_modified(), http_date(now - SECOND));
    }
}

#[test]
fn date_that_was_shown_before_the_write_does_not_match() {
    let clocked = Clocked::new();
    clocked.put();
    NOW.set(SystemTime::now());
    // The document was just written, so this date is earlier than the time of the write.
    let shown = clocked.last_modified();
    for now in [NOW.get(), NOW.get() + HOUR] {
        NOW.set(now);
        assert_eq!(clocked.status("GET", &[("If-Modified-Since", &shown)]), 200);
        for method in ["GET", "PUT", "DELETE"] {
            let status = clocked.status(method, &[("If-Unmodified-Since", &shown)]);
            assert_eq!(status, 412, "{method}");
        }
    }
}

/// The clock went back, so the date of the first version lies in the future.
#[test]
fn date_in_the_future_never_matches() {
    let clocked = Clocked::new();
    clocked.put();
    let shown = clocked.last_modified();
    assert_eq!(clocked.status("GET", &[("If-Modified-Since", &shown)]), 304);
    NOW.set(NOW.get() - HOUR);
    for date in [shown.as_str(), FUTURE, &http_date(NOW.get())] {
        assert_eq!(clocked.status("GET", &[("If-Modified-Since", date)]), 200);
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let status = clocked.status(method, &[("If-Unmodified-Since", date)]);
            assert_eq!(status, 412, "{method}, {date}");
        }
    }
}

/// The clock goes back by less than a second, or by an hour and forward again, so that the second
/// version is written at a time at which the first version has been shown with the same date.
#[test]
fn date_that_was_shown_never_matches_a_write_after_the_clock_went_back() {
    let second = UNIX_EPOCH + Duration::from_secs(1_796_000_000);
    let millis = Duration::from_millis;
    let clocked = Clocked::new();
    for (round, back) in [(0, second + millis(900)), (10, second - HOUR)] {
        let offset = SECOND * round;
        clocked.set_time(second + offset + millis(100));
        assert_eq!(clocked.status("PUT", &[]), 204);
        clocked.set_time(second + offset + millis(1900));
        let shown = clocked.last_modified();
        assert_eq!(shown, http_date(second + offset));
        clocked.set_time(back + offset);
        assert_eq!(clocked.status("PUT", &[]), 204);
        clocked.set_time(second + offset + millis(3900));
        // The second version now has a date, too, and was written again after the clock went back.
        let second_shown = clocked.last_modified();
        clocked.set_time(back + offset);
        assert_eq!(clocked.status("PUT", &[]), 204);
        clocked.set_time(second + HOUR);
        for date in [&shown, &second_shown] {
            assert_eq!(clocked.status("GET", &[("If-Modified-Since", date)]), 200);
            for method in ["GET", "HEAD", "PUT", "DELETE"] {
                let status = clocked.status(method, &[("If-Unmodified-Since", date)]);
                assert_eq!(status, 412, "{method}, {date}");
            }
        }
        let third = clocked.last_modified();
        assert_eq!(clocked.status("GET", &[("If-Modified-Since", &third)]), 304);
    }
}

#[test]
fn date_conditions_apply_only_without_tag_conditions() {
    let clocked = Clocked::new();
    let tag = clocked.put();
    let modified = clocked.last_modified();
    let status = |method, headers: &[(&str, &str)]| clocked.status(method, headers);
    assert_eq!(status("GET", &[("If-Modified-Since", &modified)]), 304);
    assert_eq!(status("HEAD", &[("If-Modified-Since", &modified)]), 304);
    assert_eq!(status("GET", &[("If-Modified-Since", PAST)]), 200);
    assert_eq!(status("GET", &[("If-Modified-Since", "yesterday")]), 200);
    assert_eq!(
        status(
            "GET",
            &[("If-Modified-Since", &modified), ("If-None-Match", "\"0\"")]
        ),
        200
    );
    assert_eq!(status("GET", &[("If-Unmodified-Since", PAST)]), 412);
    assert_eq!(status("GET", &[("If-Unmodified-Since", &modified)]), 200);
    assert_eq!(
        status("GET", &[("If-Unmodified-Since", PAST), ("If-Match", &tag)]),
        200
    );
    assert_eq!(
        status(
            "GET",
            &[
                ("If-Match", &tag),
                ("If-None-Match", &tag),
                ("If-Unmodified-Since", PAST)
            ]
        ),
        304
    );
    assert_eq!(status("PUT", &[("If-Unmodified-Since", PAST)]), 412);
    assert_eq!(status("DELETE", &[("If-Unmodified-Since", PAST)]), 412);
    assert_eq!(status("PUT", &[("If-Unmodified-Since", "yesterday")]), 204);
    assert_eq!(status("PUT", &[("If-Modified-Since", &modified)]), 204);
    clocked.put();
    let modified = clocked.last_modified();
    assert_eq!(status("DELETE", &[("If-Unmodified-Since", &modified)]), 204);
    // A namespace without a document has no modification date, so the date is ignored.
    assert_eq!(status("PUT", &[("If-Unmodified-Since", PAST)]), 204);
}

/// RFC 9110 section 13.2.2: a false `If-Unmodified-Since` is decided before `If-None-Match`.
#[test]
fn false_if_unmodified_since_takes_precedence_over_if_none_match() {
    let clocked = Clocked::new();
    let tag = clocked.put();
    let modified = clocked.last_modified();
    for (since, none_match, read, write) in [
        (PAST, tag.as_str(), 412, 412),
        (PAST, "*", 412, 412),
        (PAST, "\"0\"", 412, 412),
        (&modified, &tag, 304, 412),
        (&modified, "*", 304, 412),
        (&modified, "\"0\"", 200, 204),
    ] {
        for (method, expected) in [("GET", read), ("HEAD", read), ("PUT", write)] {
            let headers = [
                ("If-Unmodified-Since", since),
                ("If-None-Match", none_match),
            ];
            let status = clocked.status(method, &headers);
            assert_eq!(status, expected, "{method}, {since}, {none_match}");
        }
    }
}

#[test]
fn date_conditions_of_a_resource_without_a_date_are_ignored() {
    let clocked = Clocked::new();
    let unset = [("If-Unmodified-Since", PAST), ("If-None-Match", "*")];
    assert_eq!(clocked.status("GET", &unset), 200);
    let openapi = Request::new("GET", "/openapi.json");
    let tag = clocked.send(&openapi.bytes(), false);
    let openapi = openapi
        .header("If-Unmodified-Since", PAST)
        .header("If-None-Match", tag.header("etag").unwrap());
    assert_eq!(clocked.send(&openapi.bytes(), false).status, 304);
}
