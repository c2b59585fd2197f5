//! Metrics: the server counts requests and other events, names its metrics by the rules of
//! Prometheus, and `docs/operations.md` lists each metric.

mod common;

use std::collections::BTreeMap;

use common::{BINARY, fresh, put, status};
use prefd_tests::http::Request;
use prefd_tests::issuer::{Issuer, Signer};
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;
use serde_json::json;

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

/// Fetches the metrics. Returns the samples, keyed by name and labels, and the text.
fn samples(server: &Server) -> (BTreeMap<String, f64>, String) {
    let response = server
        .connect_admin()
        .request(&Request::to("localhost", "GET", "/metrics"));
    assert_eq!(response.status, 200, "{response:?}");
    let media_type = response.header("content-type").unwrap();
    assert_eq!(media_type, "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().to_owned();
    let samples = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line
                .rsplit_once(' ')
                .expect("a sample line has a name and a value");
            (
                name.to_owned(),
                value.parse().expect("the value of a sample is a number"),
            )
        })
        .collect();
    (samples, text)
}

#[test]
fn requests_tokens_and_writes_are_counted() {
    let (server, _dir) = fresh(&ADMIN);
    let token = token::of("alice", "xyz");
    let mut client = server.connect();
    for _ in 0..3 {
        put(&mut client, "xyz", &token, "{\"a\":1}");
    }
    for _ in 0..5 {
        assert_eq!(
            client.request(&Request::of("GET", "xyz", &token)).status,
            200
        );
    }
    assert_eq!(
        client.request(&Request::of("GET", "xyz", "bad")).status,
        401
    );
    assert_eq!(client.request(&Request::new("GET", "/nowhere")).status, 404);
    assert_eq!(client.request(&Request::new("GET", "/livez")).status, 200);
    let (samples, text) = samples(&server);
    let route = "route=\"/user/{version}/preferences/{clientId}\"";
    for (name, expected) in [
        (
            format!("prefd_http_requests_total{{{route},method=\"PUT\",status=\"204\"}}"),
            3.0,
        ),
        (
            format!("prefd_http_requests_total{{{route},method=\"GET\",status=\"200\"}}"),
            5.0,
        ),
        (
            format!("prefd_http_requests_total{{{route},method=\"GET\",status=\"401\"}}"),
            1.0,
        ),
        (
            "prefd_http_requests_total{route=\"none\",method=\"GET\",status=\"404\"}".into(),
            1.0,
        ),
        (
            "prefd_http_requests_total{route=\"page\",method=\"GET\",status=\"200\"}".into(),
            1.0,
        ),
        (
            "prefd_http_request_duration_seconds_count{method=\"PUT\"}".into(),
            3.0,
        ),
        (
            "prefd_http_request_duration_seconds_bucket{method=\"GET\",le=\"+Inf\"}".into(),
            8.0,
        ),
        ("prefd_http_connections".into(), 1.0),
        ("prefd_http_bodies_bytes".into(), 0.0),
        ("prefd_http_bodies_max_bytes".into(), 67_108_864.0),
        ("prefd_tokens_remembered_total".into(), 7.0),
        ("prefd_tokens_judged_total".into(), 2.0),
        ("prefd_documents".into(), 1.0),
        ("prefd_commit_writes_count".into(), 3.0),
        ("prefd_commit_writes_bucket{le=\"1\"}".into(), 3.0),
        ("prefd_log_sync_duration_seconds_count".into(), 3.0),
        ("prefd_document_reads_total{from=\"memory\"}".into(), 4.0),
        ("prefd_document_reads_total{from=\"disk\"}".into(), 1.0),
        ("prefd_writable".into(), 1.0),
        ("prefd_ready".into(), 1.0),
        (
            format!(
                "prefd_build_info{{version=\"{}\"}}",
                env!("CARGO_PKG_VERSION")
            ),
            1.0,
        ),
    ] {
        assert_eq!(samples.get(&name), Some(&expected), "{name} in {text}");
    }
    assert!(samples["process_open_fds"] > 3.0 && samples["process_resident_memory_bytes"] > 1e6);
    for secret in ["alice", "xyz", token.as_str()] {
        assert!(
            !text.contains(secret),
            "expected the metrics not to contain {secret}"
        );
    }
}

#[test]
fn metric_names_follow_prometheus_rules_and_are_documented() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    let dir = tempfile::tempdir().unwrap();
    let credentials = dir.path().join("credentials");
    std::fs::write(&credentials, "prefd:secret").unwrap();
    let server = Launch::new(BINARY, &dir.path().join("data"))
        .with(&ADMIN)
        .with(&["--oidc-issuer", &issuer.url(), "--require-audience=false"])
        .with(&[
            "--introspection-credentials-file",
            credentials.to_str().unwrap(),
        ])
        .start();
    assert_eq!(status(&server, &token::of("alice", "xyz")), 200);
    let introspection = json!({"active": true, "sub": "alice", "client_id": "xyz"});
    issuer.set_introspection("opaque", &introspection);
    for _ in 0..3 {
        assert_eq!(status(&server, "opaque"), 200);
    }
    let (samples, text) = samples(&server);
    for (name, expected) in [
        ("prefd_introspections_total", 1.0),
        ("prefd_tokens_judged_total", 2.0),
        ("prefd_tokens_remembered_total", 2.0),
    ] {
        assert_eq!(samples.get(name), Some(&expected), "{name} in {text}");
    }
    // The rules of `promtool check metrics`.
    let mut kinds = BTreeMap::new();
    let mut helped = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(
                kinds.insert(name, kind).is_none(),
                "expected one TYPE line for {name}"
            );
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a HELP line has a text");
            helped.insert(name, help);
        }
    }
    for (name, kind) in &kinds {
        assert!(helped.contains_key(name), "expected a HELP line for {name}");
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        assert!(name.bytes().all(is_plain) && !name.contains("__"), "{name}");
        assert!(
            name.starts_with("prefd_") || name.starts_with("process_"),
            "{name}"
        );
        let is_total = name.ends_with("_total");
        assert_eq!(*kind == "counter", is_total, "{name}: {kind}");
        for bad in [
            "_milliseconds",
            "_ms",
            "_micros",
            "_kb",
            "_mb",
            "_percent",
            "_minutes",
            "gauge",
            "counter",
        ] {
            assert!(!name.contains(bad), "expected no {bad} in {name}");
        }
        if name.contains("duration") {
            assert!(name.contains("_seconds"), "{name}");
        }
        for reserved in ["_count", "_sum", "_bucket"] {
            assert!(!name.ends_with(reserved), "{name}");
        }
    }
    for sample in samples.keys() {
        let name = sample.split('{').next().unwrap();
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let is_known = kinds.contains_key(name)
            || base.is_some_and(|base| kinds.get(base) == Some(&"histogram"));
        assert!(is_known, "expected a TYPE line for {sample}");
    }
    // The document lists exactly the metrics that the server exposes.
    let page = include_str!("../../docs/operations.md");
    let documented: Vec<&str> = page
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `")?
                .split_once('`')
                .map(|(name, _)| name)
        })
        .filter(|name| name.starts_with("prefd_") || name.starts_with("process_"))
        .map(|name| name.split('{').next().unwrap_or(name))
        .collect();
    for name in kinds.keys() {
        assert!(
            documented.contains(name),
            "docs/operations.md must list {name}"
        );
    }
    for name in &documented {
        assert!(
            kinds.contains_key(name),
            "docs/operations.md lists {name}, which the server does not expose"
        );
    }
}
