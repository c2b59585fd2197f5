//! Decides which namespaces of a user a request may read and write with the user's token.
//!
//! In the PACE Cloud preferences API, each client has its own namespace. A client can access the
//! namespace of another client only if its token has a scope that names the other client. Scopes
//! are compared byte by byte, and wildcards are not supported.

use crate::auth::claims::Claims;

/// What a request does with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Access {
    /// The scope that a token of another client must have to access the namespace of `client_id`.
    pub(crate) fn scope(self, client_id: &str) -> String {
        let verb = match self {
            Self::Read => "read",
            Self::Write => "write",
        };
        format!("user:preferences:{verb}:{client_id}")
    }

    /// Whether a token with these claims may access the namespace of `client_id`.
    pub(crate) fn is_allowed(self, claims: &Claims, client_id: &str) -> bool {
        claims.client.as_str() == client_id || claims.has_scope(&self.scope(client_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(access: Access, scopes: &[&str]) -> bool {
        let claims = Claims::for_test("alice", "own", scopes);
        access.is_allowed(&claims, "xyz")
    }

    #[test]
    fn only_the_exact_scope_opens_another_clients_namespace() {
        use Access::{Read, Write};
        let own = Claims::for_test("alice", "xyz", &[]);
        assert!(Read.is_allowed(&own, "xyz") && Write.is_allowed(&own, "xyz"));
        assert!(!Read.is_allowed(&own, "XYZ") && !Read.is_allowed(&own, "xy"));
        for (scope, read, write) in [
            ("user:preferences:read:xyz", true, false),
            ("user:preferences:write:xyz", false, true),
            ("user:preferences:read", false, false),
            ("user:preferences:write", false, false),
            ("user:preferences:read:", false, false),
            ("user:preferences:read:xy", false, false),
            ("user:preferences:read:xyzz", false, false),
            ("user:preferences:read:XYZ", false, false),
            ("User:preferences:read:xyz", false, false),
            ("user:preferences:read:*", false, false),
            ("user:preferences:*:xyz", false, false),
        ] {
            assert_eq!(allowed(Read, &[scope]), read, "{scope}");
            assert_eq!(allowed(Write, &["other", scope]), write, "{scope}");
        }
    }
}
