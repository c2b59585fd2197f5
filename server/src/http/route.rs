//! The route of a document: `/user/{version}/preferences/{clientId}`.
//!
//! Paths are not normalised, so `..` is an ordinary segment, and an encoded slash is part of the
//! clientId.

use std::borrow::Cow;

use crate::http::path_name::{self, InvalidPathName};
use crate::store::Name;

/// The methods that the route supports.
pub(crate) const METHODS: &str = "GET, HEAD, PUT, DELETE";

/// The clientId of a path that matches the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route<'a> {
    /// The clientId as it appears in the path, percent-encoded.
    client_id: &'a str,
}

impl<'a> Route<'a> {
    /// The name of the route in metrics and in the log. This name is used instead of the path, so
    /// that metrics and log lines contain no clientId.
    pub(crate) const TEMPLATE: &'static str = "/user/{version}/preferences/{clientId}";

    /// Parses a path. Returns `None` if the path does not match the route, or if its version is not
    /// in `versions`.
    pub(crate) fn parse(path: &'a str, versions: &[String]) -> Option<Self> {
        let (version, route) = Self::parse_any_version(path)?;
        let is_served = versions.iter().any(|served| served == version);
        is_served.then_some(route)
    }

    /// Whether the path matches the route, except that its version may be any text.
    pub(crate) fn matches_with_any_version(path: &'a str) -> bool {
        Self::parse_any_version(path).is_some()
    }

    /// Parses a path. Returns the version and the route.
    fn parse_any_version(path: &'a str) -> Option<(&'a str, Self)> {
        let mut segments = path.strip_prefix("/user/")?.split('/');
        let version = segments.next()?;
        if segments.next()? != "preferences" {
            return None;
        }
        let client_id = segments.next().filter(|segment| !segment.is_empty())?;
        let is_end = segments.next().is_none();
        is_end.then_some((version, Self { client_id }))
    }

    /// Returns the decoded clientId. `own` is the client that the token was issued to. If the
    /// clientId is equal to `own`, the result borrows `own`, so that most requests need no copy.
    ///
    /// # Errors
    /// [`InvalidPathName`] if the clientId is too long, contains a control character, or cannot be
    /// decoded.
    pub(crate) fn client_id<'n>(&self, own: &'n Name) -> Result<Cow<'n, Name>, InvalidPathName> {
        let client_id = path_name::decode(self.client_id)?;
        if *client_id == **own {
            return Ok(Cow::Borrowed(own));
        }
        let name = Name::new(&client_id).map_err(InvalidPathName::Name)?;
        Ok(Cow::Owned(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<Result<String, InvalidPathName>> {
        let versions = ["2025-1".to_owned(), "2024-2".to_owned()];
        let route = Route::parse(path, &versions)?;
        let own = Name::new("own").unwrap();
        Some(route.client_id(&own).map(|name| name.to_string()))
    }

    #[test]
    fn only_the_path_of_a_document_matches() {
        for path in [
            "",
            "/",
            "*",
            "/user",
            "/user/",
            "/user/2025-1",
            "/user/2025-1/preferences",
            "/user/2025-1/preferences/",
            "/user/2025-1/preferences/x/",
            "/user/2025-1/preferences//x",
            "/user/2025-1/preferences/x/y",
            "/user/2025-1/preferences/../x",
            "//user/2025-1/preferences/x",
            "/user//preferences/x",
            "/user/2023-1/preferences/x",
            "/user/2025-1/Preferences/x",
            "/USER/2025-1/preferences/x",
            "/user/2025%2d1/preferences/x",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn client_id_is_decoded_exactly_once() {
        for (encoded, decoded) in [
            ("xyz", "xyz"),
            ("a%20b", "a b"),
            ("a%2Fb", "a/b"),
            ("%2e%2E", ".."),
            ("..", ".."),
            ("a%2525", "a%25"),
            ("caf%C3%A9", "café"),
            ("a+b", "a+b"),
        ] {
            let path = format!("/user/2025-1/preferences/{encoded}");
            assert_eq!(parse(&path), Some(Ok(decoded.to_owned())), "{encoded}");
        }
        // The clientId is decoded before it is compared with the client that the token was issued
        // to.
        assert_eq!(
            parse("/user/2025-1/preferences/ow%6E"),
            Some(Ok("own".to_owned()))
        );
        let longest = "é".repeat(127) + "x";
        let path = format!("/user/2024-2/preferences/{}", "%C3%A9".repeat(127) + "x");
        assert_eq!(parse(&path), Some(Ok(longest)));
    }

    #[test]
    fn invalid_client_id_is_rejected() {
        for encoded in [
            "%",
            "%2",
            "%zz",
            "a%0",
            "%ff",
            "%C3",
            "%00",
            "a%0Ab",
            "%7f",
            "%C2%80",
            &"x".repeat(256),
            &("%C3%A9".repeat(128)),
        ] {
            let path = format!("/user/2025-1/preferences/{encoded}");
            assert!(matches!(parse(&path), Some(Err(_))), "{encoded}");
        }
    }
}
