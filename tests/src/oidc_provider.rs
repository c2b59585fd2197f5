//! Runs `oidc-provider`, a real identity provider, in a child process. See
//! `tests/issuer/issuer.mjs`.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// The resource for which the provider issues JWTs.
pub const JWT: &str = "urn:prefd";
/// The resource for which the provider issues opaque tokens.
pub const OPAQUE: &str = "urn:prefd:opaque";
/// The audience of the tokens for both resources.
pub const AUDIENCE: &str = "prefd";
/// Credentials of a client with permission to introspect tokens.
pub const CREDENTIALS: &str = "prefd:secret\n";

/// The running provider. Killed when dropped.
#[derive(Debug)]
pub struct OidcProvider {
    child: Child,
    commands: ChildStdin,
    responses: BufReader<ChildStdout>,
    url: String,
}

/// The folder with the script and its npm packages.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("issuer")
}

impl OidcProvider {
    /// Starts the provider on a free port.
    pub fn start() -> Self {
        let mut child = Command::new("node")
            .arg(folder().join("issuer.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node is installed");
        let commands = child.stdin.take().expect("stdin is piped");
        let responses = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut provider = Self {
            child,
            commands,
            responses,
            url: String::new(),
        };
        let listening = provider.read();
        listening["url"]
            .as_str()
            .expect("the first line contains the URL")
            .clone_into(&mut provider.url);
        provider
    }

    /// The `iss` claim of the provider's tokens.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.responses
            .read_line(&mut line)
            .expect("the output of the provider is readable");
        let response: Value = serde_json::from_str(&line).unwrap_or_else(|error| {
            panic!("expected a line of JSON from the provider: {error}: {line:?}")
        });
        assert_eq!(
            response.get("error"),
            None,
            "the provider reported an error"
        );
        response
    }

    fn send_command(&mut self, command: &Value) -> Value {
        writeln!(self.commands, "{command}").expect("the provider reads commands");
        self.read()
    }

    /// Logs a user in to a client (`xyz` or `other`), and returns the access token for the given
    /// resource and scope.
    pub fn log_in(&mut self, user: &str, client: &str, resource: &str, scope: &str) -> String {
        let login = json!({"user": user, "client": client, "resource": resource, "scope": scope});
        let response = self.send_command(&json!({ "login": login }));
        response["token"]
            .as_str()
            .expect("a login returns a token")
            .to_owned()
    }

    /// Starts signing with a new key. The old keys stay published.
    pub fn rotate(&mut self) {
        self.send_command(&json!({"rotate": true}));
    }

    /// Withdraws all keys except for the newest one.
    pub fn withdraw(&mut self) {
        self.send_command(&json!({"withdraw": true}));
    }

    /// Revokes a token that was issued to the given client.
    pub fn revoke(&mut self, token: &str, client: &str) {
        self.send_command(&json!({"revoke": {"token": token, "client": client}}));
    }
}

impl Drop for OidcProvider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
