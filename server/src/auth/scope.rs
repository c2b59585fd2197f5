//! What a token may do with a namespace of its user.
//!
//! "All clients have their own preferences namespace, only with the respective scope
//! … might [a client] be able to read the preferences of a different client": the
//! scope names the foreign client, and is compared whole, byte for byte.

use crate::auth::claims::Claims;

/// What a request does with the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Access {
    /// The scope that opens the namespace of a foreign client.
    pub(crate) fn scope(self, client_id: &str) -> String {
        let verb = match self {
            Self::Read => "read",
            Self::Write => "write",
        };
        format!("user:preferences:{verb}:{client_id}")
    }

    /// Whether `claims` allow it.
    pub(crate) fn is_allowed(self, claims: &Claims, client_id: &str) -> bool {
        claims.client == client_id || claims.has_scope(&self.scope(client_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(access: Access, scopes: &[&str]) -> bool {
        let claims = Claims::of("alice", "own", scopes);
        access.is_allowed(&claims, "xyz")
    }

    #[test]
    fn the_scope_table_holds() {
        use Access::{Read, Write};
        let own = Claims::of("alice", "xyz", &[]);
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
