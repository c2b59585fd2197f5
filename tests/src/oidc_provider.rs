//! A real identity provider, `oidc-provider`, as a process of its own: see
//! `tests/issuer/issuer.mjs`.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// The resource whose tokens are JWTs.
pub const JWT: &str = "urn:prefd";
/// The resource whose tokens only the provider can read.
pub const OPAQUE: &str = "urn:prefd:opaque";
/// What the tokens of both are meant for.
pub const AUDIENCE: &str = "prefd";
/// A client that may introspect.
pub const CREDENTIALS: &str = "prefd:secret\n";

/// The running provider. Killed when dropped.
#[derive(Debug)]
pub struct OidcProvider {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    url: String,
}

/// Where it is, and what it needs beside it.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("issuer")
}

impl OidcProvider {
    /// Starts it on a free port.
    pub fn start() -> Self {
        let mut child = Command::new("node")
            .arg(folder().join("issuer.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node starts");
        let orders = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut provider = Self {
            child,
            orders,
            answers,
            url: String::new(),
        };
        let listening = provider.read();
        listening["url"]
            .as_str()
            .expect("a URL")
            .clone_into(&mut provider.url);
        provider
    }

    /// What its tokens name as the issuer.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it can be read");
        let answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("the provider ended: {error}: {line:?}"));
        assert_eq!(answer.get("error"), None);
        answer
    }

    fn order(&mut self, order: &Value) -> Value {
        writeln!(self.orders, "{order}").expect("it takes orders");
        self.read()
    }

    /// Has a user log in to a client (`xyz` or `other`), for this resource and scope: the
    /// access token.
    pub fn log_in(&mut self, user: &str, client: &str, resource: &str, scope: &str) -> String {
        let login = json!({"user": user, "client": client, "resource": resource, "scope": scope});
        let answer = self.order(&json!({ "login": login }));
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// Signs with a new key from now on, and publishes the old ones still.
    pub fn rotate(&mut self) {
        self.order(&json!({"rotate": true}));
    }

    /// Publishes the newest key only.
    pub fn withdraw(&mut self) {
        self.order(&json!({"withdraw": true}));
    }

    /// Revokes a token of this client.
    pub fn revoke(&mut self, token: &str, client: &str) {
        self.order(&json!({"revoke": {"token": token, "client": client}}));
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
