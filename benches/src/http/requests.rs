//! The requests that are sent to a server: one for each user, repeated in turn.

use bytes::Bytes;

use crate::contender::Contender;
use crate::documents::Key;

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum RequestMethod {
    Get,
    Put,
}

/// Path and token of one user's request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RequestTarget {
    pub(super) path: String,
    pub(super) token: String,
}

/// Requests with one method for many users.
pub(super) struct RequestSet {
    pub(super) contender: Contender,
    pub(super) method: RequestMethod,
    pub(super) targets: Vec<RequestTarget>,
    /// The documents that are put, or that gets must find. The targets use them in turn.
    pub(super) bodies: Vec<Bytes>,
}

impl RequestSet {
    /// Creates one request for each token. The first token is that of user 0, and so on.
    pub(super) fn new(
        contender: Contender,
        method: RequestMethod,
        tokens: Vec<String>,
        bodies: Vec<Bytes>,
    ) -> Self {
        let targets = (0..).zip(tokens).map(|(user, token)| RequestTarget {
            path: path(contender, method, user),
            token,
        });
        Self {
            contender,
            method,
            targets: targets.collect(),
            bodies,
        }
    }

    /// Returns these requests with other tokens.
    pub(super) fn with_tokens(&self, tokens: Vec<String>) -> Self {
        Self::new(self.contender, self.method, tokens, self.bodies.clone())
    }

    /// Returns requests for the same documents with another method.
    pub(super) fn with_method(&self, method: RequestMethod) -> Self {
        let tokens = self.targets.iter().map(|target| target.token.clone());
        Self::new(
            self.contender,
            method,
            tokens.collect(),
            self.bodies.clone(),
        )
    }

    /// Each target with its document.
    pub(super) fn documents(&self) -> impl Iterator<Item = (&RequestTarget, &Bytes)> {
        self.targets.iter().zip(self.bodies.iter().cycle())
    }

    /// Size of each document, in bytes.
    pub(super) fn body_bytes(&self) -> usize {
        self.bodies.first().map_or(0, Bytes::len)
    }
}

/// The path of a user's document on a server.
fn path(contender: Contender, method: RequestMethod, user: u64) -> String {
    let mut key = Key::default();
    key.set(user);
    match (contender, method) {
        (Contender::Webdis, RequestMethod::Get) => format!("/GET/{}.txt", key.user()),
        (Contender::Webdis, RequestMethod::Put) => format!("/SET/{}", key.user()),
        (Contender::Prefd, _) => format!("/user/2025-1/preferences/{}", key.client()),
        _ => format!("/{}.json", key.user()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_puts_and_gets_the_same_document() {
        let tokens: Vec<String> = (0..5).map(|n| format!("t{n}")).collect();
        let bodies = vec![Bytes::from_static(b"{}"), Bytes::from_static(b"[]")];
        let puts = RequestSet::new(Contender::Webdis, RequestMethod::Put, tokens, bodies);
        let gets = puts.with_method(RequestMethod::Get);
        assert_eq!(puts.targets[3].path, "/SET/user-000000000003");
        assert_eq!(gets.targets[3].path, "/GET/user-000000000003.txt");
        assert_eq!(gets.targets[3].token, "t3");
        let of = |requests: &RequestSet| {
            let bodies = requests.documents().map(|(_, body)| body.clone());
            bodies.collect::<Vec<_>>()
        };
        assert_eq!(of(&puts), of(&gets));
        assert_eq!(of(&puts).len(), 5);
        assert_eq!(of(&puts)[4], "{}");
    }
}
