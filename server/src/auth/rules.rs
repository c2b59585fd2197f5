//! The requirements that a token must meet, and the reasons to deny access.

/// Tolerated clock difference in seconds when `exp` and `nbf` are checked.
pub(super) const LEEWAY_SECONDS: f64 = 30.0;

/// The requirements for a token, in addition to a valid signature and a trusted issuer.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenRules {
    pub(crate) audience: Option<String>,
    /// The value that `typ` must have in the header of a JWT. `None` if `typ` is not checked.
    pub(crate) typ: Option<String>,
    pub(crate) names: ClaimNames,
    /// The claim that shows that the user has a linked identity. Requests are refused if this claim
    /// is missing, null, false or empty. `None` if no linked identity is required.
    pub(crate) linked_identity_claim: Option<String>,
}

/// The names of the claims that prefd reads.
#[derive(Debug, Clone)]
pub(crate) struct ClaimNames {
    /// The claim that contains the user id. `None` for the default claim, which differs between
    /// JWTs and introspection responses.
    pub(crate) user: Option<String>,
    /// The claims that can contain the client id. If a token has several of these claims, the first
    /// one in this list is used.
    pub(crate) client: Vec<String>,
    /// The claims that can contain the scopes. If a token has several of these claims, the first
    /// one in this list is used.
    pub(crate) scope: Vec<String>,
}

impl Default for ClaimNames {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            user: None,
            // RFC 9068 section 2.2 defines `client_id`, and OpenID Connect Core section 2 defines
            // `azp`.
            client: names(&["client_id", "azp"]),
            // RFC 8693 section 4.2 defines `scope`. Several providers send `scp` instead of
            // `scope`.
            scope: names(&["scope", "scp"]),
        }
    }
}

/// Why the token of a request is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    /// The token is invalid for this reason.
    Invalid(&'static str),
    /// The token could not be checked, because its provider cannot be reached, or because too many
    /// requests are waiting for providers.
    Unavailable,
}

impl From<&'static str> for Denial {
    fn from(reason: &'static str) -> Self {
        Self::Invalid(reason)
    }
}
