//! What a token must say to give access, and why one gives none.

/// Seconds that clocks may differ.
pub(super) const LEEWAY_SECONDS: f64 = 30.0;

/// What a token must say to be believed, besides its signature and its issuer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) audience: Option<String>,
    /// The type that a JWT's header must name.
    pub(crate) typ: Option<String>,
    pub(crate) names: ClaimNames,
    /// The claim that a linked identity shows in, where one is required.
    pub(crate) linked_identity_claim: Option<String>,
}

/// Where in a token the names are.
#[derive(Debug, Clone)]
pub(crate) struct ClaimNames {
    /// `None` for the usual one, which is another for a JWT and for an answer about a
    /// token.
    pub(crate) user: Option<String>,
    /// The first one that is there counts.
    pub(crate) client: Vec<String>,
    /// The first one that is there counts.
    pub(crate) scope: Vec<String>,
}

impl Default for ClaimNames {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            user: None,
            // RFC 9068 section 2.2; OpenID Connect Core section 2.
            client: names(&["client_id", "azp"]),
            // RFC 8693 section 4.2; "scp" is what several providers send.
            scope: names(&["scope", "scp"]),
        }
    }
}

/// Why a token gives no access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    Refused(&'static str),
    /// Whoever could judge it cannot be reached.
    Unavailable,
}

impl From<&'static str> for Denial {
    fn from(reason: &'static str) -> Self {
        Self::Refused(reason)
    }
}
