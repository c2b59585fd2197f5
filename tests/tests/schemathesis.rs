//! Schemathesis reads the OpenAPI document of a running server, and makes requests that it
//! allows and requests that it does not, one by one and in sequences; every answer must be
//! one that the document has, and the one that the request deserves.
//!
//! What it is told is in `tests/schemathesis/`: which checks there are, and why one of them
//! is off. `PREFD_TEST_EXAMPLES` makes so many requests of an operation and kind, and
//! `PREFD_TEST_SEED` other ones.

mod common;

use common::{fresh, wait_until};
use prefd_tests::{machine, openapi, schemathesis, token};

/// Requests of each operation and kind; twenty seconds for all of them on two cores.
const EXAMPLES: u64 = 200;

const OPENAPI: &str = "/openapi.json";
const DOCUMENT: &str = "/user/{version}/preferences/{clientId}";

/// Answers that show how far requests have got, whatever the seed.
const REACHED: [(&str, &str, &str); 14] = [
    ("GET", OPENAPI, "status=200"),
    ("HEAD", OPENAPI, "status=412"),
    ("GET", DOCUMENT, "status=200"),
    ("HEAD", DOCUMENT, "status=200"),
    ("PUT", DOCUMENT, "status=204"),
    ("DELETE", DOCUMENT, "status=204"),
    ("GET", DOCUMENT, "status=304"),
    ("PUT", DOCUMENT, "code=\"invalid-client-id\""),
    ("GET", DOCUMENT, "code=\"invalid-request\""),
    ("PUT", DOCUMENT, "code=\"invalid-json\""),
    ("GET", DOCUMENT, "code=\"missing-token\""),
    ("GET", DOCUMENT, "code=\"invalid-token\""),
    ("PUT", DOCUMENT, "code=\"precondition-failed\""),
    ("POST", DOCUMENT, "code=\"method-not-allowed\""),
];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn schemathesis_finds_nothing() {
    if !machine::has_schemathesis() {
        return;
    }
    let (server, _dir) = fresh(&[]);
    let seed = number("PREFD_TEST_SEED").unwrap_or(1);
    let examples = number("PREFD_TEST_EXAMPLES").unwrap_or(EXAMPLES);
    let run = schemathesis::command("schemathesis")
        .args(["--config-file", "schemathesis.toml", "run"])
        .arg(format!("{}{}", server.origin, openapi::TARGET))
        .args(["--seed", &seed.to_string()])
        .args(["--max-examples", &examples.to_string()])
        .arg("--continue-on-failure")
        .env("PREFD_TEST_SECRET", token::SECRET)
        .env("COLUMNS", "200")
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "PREFD_TEST_SEED={seed}: {found}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    for (method, route, outcome) in REACHED {
        let request = format!("method=\"{method}\" route=\"{route}\" ");
        wait_until(&format!("{request}{outcome}"), || {
            let logged = server.logged();
            let mut lines = logged.lines();
            lines.any(|line| line.contains(&request) && line.contains(outcome))
        });
    }
    let cases = found.lines().find(|line| line.contains(" generated"));
    machine::report(&format!(
        "schemathesis: {}",
        cases.unwrap_or_default().trim()
    ));
}
