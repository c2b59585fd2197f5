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

/// The scope that a token lacks for a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MissingScope {
    pub(super) scope: String,
    /// Whether the namespace belongs to the client of the token.
    pub(super) is_own: bool,
}

impl Access {
    fn base_scope(self) -> &'static str {
        match self {
            Self::Read => "user:preferences:read",
            Self::Write => "user:preferences:write",
        }
    }

    /// Checks that a token with these claims may access the namespace of `client_id`. If
    /// `needs_own_scope` is true, a token also needs a scope for the namespace of its own client.
    pub(super) fn check(
        self,
        claims: &Claims,
        client_id: &str,
        needs_own_scope: bool,
    ) -> Result<(), MissingScope> {
        let is_own = claims.client.as_str() == client_id;
        let base = self.base_scope();
        if is_own && (!needs_own_scope || claims.has_scope(base)) {
            return Ok(());
        }
        let scope = format!("{base}:{client_id}");
        if claims.has_scope(&scope) {
            return Ok(());
        }
        let scope = if is_own { base.to_owned() } else { scope };
        Err(MissingScope { scope, is_own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(access: Access, scopes: &[&str]) -> bool {
        let claims = Claims::for_test("alice", "own", scopes);
        access.check(&claims, "xyz", false).is_ok()
    }

    #[test]
    fn only_the_exact_scope_opens_another_clients_namespace() {
        use Access::{Read, Write};
        let own = Claims::for_test("alice", "xyz", &[]);
        assert!(Read.check(&own, "xyz", false).is_ok() && Write.check(&own, "xyz", false).is_ok());
        assert!(Read.check(&own, "XYZ", false).is_err() && Read.check(&own, "xy", false).is_err());
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

    #[test]
    fn own_namespace_needs_a_scope_only_if_configured() {
        use Access::{Read, Write};
        let check = |scopes: &[&str], access: Access| {
            let claims = Claims::for_test("alice", "xyz", scopes);
            assert!(access.check(&claims, "xyz", false).is_ok(), "{scopes:?}");
            access.check(&claims, "xyz", true)
        };
        let missing = |scope: &str| {
            let scope = scope.to_owned();
            Err(MissingScope {
                scope,
                is_own: true,
            })
        };
        let (read, write) = ("user:preferences:read", "user:preferences:write");
        for (scopes, reads, writes) in [
            (&[][..], missing(read), missing(write)),
            (&[read], Ok(()), missing(write)),
            (&[write], missing(read), Ok(())),
            (&[read, write], Ok(()), Ok(())),
            (&["user:preferences:read:xyz"], Ok(()), missing(write)),
            (
                &["user:preferences:read:other"],
                missing(read),
                missing(write),
            ),
            (&["user:preferences"], missing(read), missing(write)),
        ] {
            assert_eq!(check(scopes, Read), reads, "{scopes:?}");
            assert_eq!(check(scopes, Write), writes, "{scopes:?}");
        }
    }
}
