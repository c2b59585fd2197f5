//! Conditional requests with entity tags, compared with an oracle written from RFC 9110 section 13.

mod common;

use std::sync::{Arc, Barrier};

use common::{fresh, get, put};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::{Client, Request};
use prefd_tests::token;

/// States of a namespace before the request.
const STATES: [&str; 4] = ["never set", "set", "deleted", "stored {}"];

/// Conditions in `If-Match` and `If-None-Match`, in relation to the current ETag.
const CONDITIONS: [&str; 11] = [
    "none",
    "matching",
    "stale",
    "*",
    "list with the tag",
    "list without the tag",
    "weak",
    "weak list",
    "malformed",
    "unquoted",
    "empty",
];

/// Returns the header value for a condition. `current` is the current ETag, or an unused one
/// if the namespace has none.
fn header_value(condition: &str, current: &str) -> Option<String> {
    Some(match condition {
        "none" => return None,
        "matching" => current.to_owned(),
        "stale" => "\"0\"".to_owned(),
        "*" => "*".to_owned(),
        "list with the tag" => format!("\"0\", {current} ,\"x\""),
        "list without the tag" => "\"0\",\"x\", W/\"y\"".to_owned(),
        "weak" => format!("W/{current}"),
        "weak list" => format!("\"0\", W/{current}"),
        "malformed" => format!("{current} {current}"),
        "unquoted" => current.trim_matches('"').to_owned(),
        "empty" => String::new(),
        other => panic!("{other}"),
    })
}

/// Returns whether a condition matches the document, or `None` if the header is malformed.
/// With `is_weak_comparison`, a weak tag can match.
fn matches(condition: &str, exists: bool, is_weak_comparison: bool) -> Option<bool> {
    match condition {
        "malformed" | "unquoted" | "empty" => None,
        "*" | "matching" | "list with the tag" => Some(exists),
        "weak" | "weak list" => Some(exists && is_weak_comparison),
        _ => Some(false),
    }
}

/// Returns the status that RFC 9110 section 13.2.2 requires: `If-Match` is evaluated before
/// `If-None-Match`.
fn expected_status(method: &str, exists: bool, if_match: &str, if_none_match: &str) -> u16 {
    let is_read = matches!(method, "GET" | "HEAD");
    let must = (if_match != "none").then(|| matches(if_match, exists, false));
    let must_not = (if_none_match != "none").then(|| matches(if_none_match, exists, true));
    if must == Some(None) || must_not == Some(None) {
        return 400;
    }
    if must == Some(Some(false)) {
        return 412;
    }
    match (must_not, is_read) {
        (Some(Some(true)), true) => 304,
        (Some(Some(true)), false) => 412,
        (_, true) => 200,
        (_, false) => 204,
    }
}

/// Brings a namespace into a state. Returns the ETag if the namespace has a document.
fn prepare(connection: &mut Client, client: &str, token: &str, state: &str) -> Option<String> {
    match state {
        "never set" => None,
        "set" => Some(put(connection, client, token, "{\"a\":1}")),
        "stored {}" => Some(put(connection, client, token, "{}")),
        "deleted" => {
            put(connection, client, token, "{\"a\":1}");
            assert_eq!(
                connection
                    .request(&Request::of("DELETE", client, token))
                    .status,
                204
            );
            None
        }
        other => panic!("{other}"),
    }
}

#[test]
fn each_combination_of_conditions_follows_rfc_9110() {
    let (server, _dir) = fresh(&[]);
    let mut connection = server.connect();
    let mut cases = 0;
    for state in STATES {
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            for if_match in CONDITIONS {
                for if_none_match in CONDITIONS {
                    let client = format!("c{cases}");
                    cases += 1;
                    let token = token::of("alice", &client);
                    let tag = prepare(&mut connection, &client, &token, state);
                    let current = tag.clone().unwrap_or_else(|| "\"999999999\"".to_owned());
                    let mut request = Request::of(method, &client, &token);
                    if let Some(value) = header_value(if_match, &current) {
                        request = request.header("If-Match", &value);
                    }
                    if let Some(value) = header_value(if_none_match, &current) {
                        request = request.header("If-None-Match", &value);
                    }
                    if method == "PUT" {
                        request = request.body("{\"new\":true}");
                    }
                    let context = format!(
                        "{state}, {method}, If-Match {if_match}, If-None-Match {if_none_match}"
                    );
                    let response = connection.request(&request);
                    let status = expected_status(method, tag.is_some(), if_match, if_none_match);
                    assert_eq!(response.status, status, "{context}: {response:?}");
                    if response.header("connection") == Some("close") {
                        connection = server.connect();
                    }
                    if status == 412 {
                        assert_eq!(response.header("etag"), tag.as_deref(), "{context}");
                        if method != "HEAD" {
                            ExpectedError::code("precondition-failed").check(&response, &context);
                        }
                    }
                    if status == 304 {
                        assert_eq!(response.header("etag"), tag.as_deref(), "{context}");
                        assert!(response.body.is_empty(), "{context}");
                    }
                    let before = if tag.is_none() || state == "stored {}" {
                        "{}"
                    } else {
                        "{\"a\":1}"
                    };
                    let after = match (method, status) {
                        ("PUT", 204) => "{\"new\":true}",
                        ("DELETE", 204) => "{}",
                        _ => before,
                    };
                    assert_eq!(get(&mut connection, &client, &token), after, "{context}");
                }
            }
        }
    }
    assert_eq!(cases, 4 * 4 * 11 * 11);
}

/// Sends 64 PUTs with the same headers at the same time. Returns the sorted statuses.
fn race(headers: &[(&str, &str)], server: &prefd_tests::server::Server, client: &str) -> Vec<u16> {
    let barrier = Arc::new(Barrier::new(64));
    let writers: Vec<_> = (0..64)
        .map(|writer| {
            let mut request = Request::of("PUT", client, &token::of("alice", client));
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request = request.body(format!("{{\"writer\":{writer}}}"));
            let (mut connection, barrier) = (server.connect(), Arc::clone(&barrier));
            std::thread::spawn(move || {
                barrier.wait();
                connection.request(&request).status
            })
        })
        .collect();
    let mut statuses: Vec<u16> = writers.into_iter().map(|w| w.join().unwrap()).collect();
    statuses.sort_unstable();
    statuses
}

#[test]
fn exactly_one_of_64_writers_with_the_same_etag_succeeds() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let one_success = [vec![204], vec![412; 63]].concat();
    for _ in 0..5 {
        let tag = put(&mut server.connect(), "xyz", &token, "{}");
        assert_eq!(race(&[("If-Match", &tag)], &server, "xyz"), one_success);
    }
    assert_eq!(race(&[("If-None-Match", "*")], &server, "new"), one_success);
    assert_eq!(race(&[], &server, "unconditional"), [204; 64]);
}
