//! The requirements that a token must meet, and the reasons to deny access.

/// Clock difference in seconds that is tolerated when `exp` and `nbf` are checked.
pub(super) const LEEWAY_SECONDS: f64 = 30.0;

/// What a token must contain, in addition to a valid signature and a trusted issuer.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenRules {
    pub(crate) audience: Option<String>,
    /// Required `typ` in the header of a JWT.
    pub(crate) typ: Option<String>,
    pub(crate) names: ClaimNames,
    /// The claim that must be present and not empty. `None` if no linked identity is
    /// required.
    pub(crate) linked_identity_claim: Option<String>,
}

/// The names of the claims that prefd reads.
#[derive(Debug, Clone)]
pub(crate) struct ClaimNames {
    /// The claim with the user id. `None` for the default, which differs between JWTs and
    /// introspection responses.
    pub(crate) user: Option<String>,
    /// Claims with the client id. The first one that the token has is used.
    pub(crate) client: Vec<String>,
    /// Claims with the scopes. The first one that the token has is used.
    pub(crate) scope: Vec<String>,
}

impl Default for ClaimNames {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            user: None,
            // RFC 9068 section 2.2; OpenID Connect Core section 2.
            client: names(&["client_id", "azp"]),
            // RFC 8693 section 4.2; several providers send "scp".
            scope: names(&["scope", "scp"]),
        }
    }
}

/// Why a token gives no access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    /// The token is invalid, for this reason.
    Invalid(&'static str),
    /// The token could not be checked, because its provider cannot be reached or too many
    /// requests wait for providers.
    Unavailable,
}

impl From<&'static str> for Denial {
    fn from(reason: &'static str) -> Self {
        Self::Invalid(reason)
    }
}
