//! The requirements that a token must meet, and the reasons to deny access.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tolerated clock difference in seconds when `exp` and `nbf` are checked.
pub(super) const LEEWAY_SECONDS: f64 = 30.0;

/// Default maximum length of a token in bytes. A token with the ids of 150 groups has about half of
/// this length.
pub(super) const DEFAULT_MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The requirements for a token, in addition to a valid signature and a trusted issuer.
#[derive(Debug, Clone)]
pub(crate) struct TokenRules {
    /// Maximum length of a token in bytes.
    pub(crate) max_token_bytes: usize,
    /// Whether a token needs a scope for the namespace of its own client.
    pub(crate) needs_own_scope: bool,
    pub(crate) audience: Option<String>,
    /// The value that `typ` must have in the header of a JWT. `None` if `typ` is not checked.
    pub(crate) typ: Option<String>,
    pub(crate) names: ClaimNames,
    /// The claim that shows that the user has a linked identity. Requests are refused if this claim
    /// is missing, null, false or empty. `None` if no linked identity is required.
    pub(crate) linked_identity_claim: Option<String>,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self {
            max_token_bytes: DEFAULT_MAX_TOKEN_BYTES,
            needs_own_scope: false,
            audience: None,
            typ: None,
            names: ClaimNames::default(),
            linked_identity_claim: None,
        }
    }
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
    /// The token is longer than this number of bytes.
    TooLong(usize),
    /// The token could not be checked, because its provider cannot be reached, or because too many
    /// requests are waiting for providers.
    Unavailable,
    /// The token may be signed by a new key, but tokens have triggered too many fetches of the
    /// keys. The next fetch is allowed after this time.
    KeyFetchNotAllowed(Duration),
}

impl From<&'static str> for Denial {
    fn from(reason: &'static str) -> Self {
        Self::Invalid(reason)
    }
}

/// Seconds since 1970.
pub(super) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}
