//! Reads the token of a request, and builds the error responses for a token that is
//! missing, invalid or insufficient (RFC 6750 sections 2.1 and 3).

use std::borrow::Cow;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::auth::rules::Denial;
use crate::auth::scope::MissingScope;
use crate::http::{ApiError, Code};

/// The error text for a missing linked identity, as documented for the PACE Cloud preferences API.
pub(crate) const NO_LINKED_IDENTITY: &str = "Linked identity is needed to access this resource, \
     please check why the user does not have a linked identity";

/// Builds the `WWW-Authenticate` headers for one realm.
pub(super) struct Challenges {
    realm: String,
    plain: HeaderValue,
    invalid_token: HeaderValue,
}

impl Challenges {
    /// `None` if the realm contains characters that are not allowed in a header.
    pub(super) fn new(realm: &str) -> Option<Self> {
        let realm = format!(
            "Bearer realm=\"{}\"",
            realm.replace('\\', "\\\\").replace('"', "\\\"")
        );
        let invalid_token = format!("{realm}, error=\"invalid_token\"");
        Some(Self {
            plain: HeaderValue::try_from(&realm).ok()?,
            invalid_token: HeaderValue::try_from(invalid_token).ok()?,
            realm,
        })
    }

    /// Extracts the bearer token of a request without checking the token.
    pub(super) fn token<'a>(&self, headers: &'a HeaderMap) -> Result<&'a [u8], Box<ApiError>> {
        let header = authorization(headers)?;
        header.and_then(bearer).ok_or_else(|| {
            ApiError::new(
                Code::MissingToken,
                "The request has no Authorization header with a Bearer token.",
            )
            .challenge(self.plain.clone())
        })
    }

    /// The error response for a token that is invalid or could not be checked.
    pub(super) fn denied(&self, denial: Denial) -> Box<ApiError> {
        let invalid = |reason: Cow<'static, str>| {
            ApiError::new(Code::InvalidToken, reason)
                .at_header("Authorization")
                .challenge(self.invalid_token.clone())
        };
        match denial {
            Denial::Invalid(reason) => invalid(reason.into()),
            Denial::TooLong(max_bytes) => {
                invalid(format!("The token is longer than {max_bytes} bytes.").into())
            }
            // If a token could not be checked, the status must not be 401, because the client could
            // then discard a valid token.
            Denial::Unavailable => ApiError::new(
                Code::Overloaded,
                "The token cannot be verified now, because prefd got no usable response from the issuer of \
                 the token. Try again later.",
            ),
            Denial::KeyFetchNotAllowed(wait) => ApiError::new(
                Code::Overloaded,
                "The token cannot be verified now, because the key that signed it is not known, and \
                 the keys of the issuer were fetched too often lately. Try again later.",
            )
            .retry_after(wait),
        }
    }

    /// The error response for a user without the required linked identity.
    pub(super) fn not_linked(&self) -> Box<ApiError> {
        ApiError::new(Code::MissingLinkedIdentity, NO_LINKED_IDENTITY).challenge(self.plain.clone())
    }

    /// The error response for a token without the required scope.
    pub(super) fn insufficient(&self, missing: &MissingScope) -> Box<ApiError> {
        let scope = &missing.scope;
        let detail = if missing.is_own {
            format!("The token does not have the scope {scope}.")
        } else {
            format!("The token was issued to another client and does not have the scope {scope}.")
        };
        let error = ApiError::new(Code::InsufficientScope, detail);
        // A scope consists of visible ASCII characters other than the quote and the backslash (RFC
        // 6749 section 3.3). If the client id contains a character that is not allowed in a scope,
        // the `WWW-Authenticate` header names no scope.
        let is_valid_scope = scope
            .bytes()
            .all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        let challenge = if is_valid_scope {
            format!(
                "{}, error=\"insufficient_scope\", scope=\"{scope}\"",
                self.realm
            )
        } else {
            format!("{}, error=\"insufficient_scope\"", self.realm)
        };
        match HeaderValue::try_from(challenge) {
            Ok(challenge) => error.challenge(challenge),
            Err(_) => error.challenge(self.plain.clone()),
        }
    }
}

/// Returns the `Authorization` header of a request, or `None` if the request has none.
///
/// # Errors
/// [`Code::InvalidRequest`] if the request has several. A proxy could use one of them and the
/// server another.
pub(crate) fn authorization(headers: &HeaderMap) -> Result<Option<&HeaderValue>, Box<ApiError>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (header, None) => Ok(header),
        _ => Err(ApiError::new(
            Code::InvalidRequest,
            "There is more than one Authorization header.",
        )
        .at_header("Authorization")),
    }
}

/// The token in an `Authorization` header whose scheme is `Bearer` (RFC 6750 section 2.1). The
/// scheme is case-insensitive (RFC 9110 section 11.1).
pub(crate) fn bearer(header: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = header.as_bytes().split_at_checked("Bearer".len())?;
    if !scheme.eq_ignore_ascii_case(b"Bearer") {
        return None;
    }
    match token.first() {
        None => Some(token),
        Some(b' ') => Some(token.trim_ascii()),
        Some(_) => None,
    }
}
