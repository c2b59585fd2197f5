//! Schemathesis reads the OpenAPI document of a running server. It generates requests that the
//! document allows and requests that the document does not allow, both single requests and
//! sequences. Every response must match the document and fit the request.
//!
//! The configuration is in `tests/schemathesis/`, with the reason for each check that is
//! changed or off. `PREFD_TEST_EXAMPLES` sets the number of requests per operation and kind.
//! `PREFD_TEST_SEED` sets the seed of the random requests.

mod common;

use common::{fresh, wait_until};
use prefd_tests::{machine, openapi, schemathesis, token};

/// Default number of requests per operation and kind. With this number, a run lasts about
/// twenty seconds on two cores.
const EXAMPLES: u64 = 200;

const OPENAPI: &str = "/openapi.json";
const DOCUMENT: &str = "/user/{version}/preferences/{clientId}";

/// Method, route and outcome of requests that must be in the log of every run, whatever the
/// seed. They show that the generated requests reach these outcomes.
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
fn schemathesis_finds_no_unexpected_response() {
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
