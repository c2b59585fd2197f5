//! Reads and checks the claims of verified tokens.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::auth::rules::{LEEWAY_SECONDS, TokenRules};
use crate::store::Name;

const UNTRUSTED_ISSUER: &str = "The token's issuer is not trusted.";

/// The claims that prefd uses from a verified token.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claims {
    pub(crate) user: Name,
    pub(crate) client: Name,
    scopes: Vec<String>,
    /// Whether the user has a linked identity. Always true if the settings require no linked
    /// identity.
    pub(crate) has_linked_identity: bool,
    /// The expiry time in seconds since 1970. The value is infinite if the claims come from an
    /// introspection response without `exp`.
    expires: f64,
    /// Seconds since 1970.
    not_before: Option<f64>,
}

impl Claims {
    /// Reads the claims of a JWT whose signature and issuer were verified. Checks the audience, the
    /// user and the client. [`Self::check_time`] checks the times.
    pub(crate) fn from_jwt(
        token: &Map<String, Value>,
        rules: &TokenRules,
    ) -> Result<Self, &'static str> {
        let expires = seconds(token, "exp", "The token's exp is not a number.")?
            .ok_or("The token has no exp.")?;
        Self::from_members(token, &["sub"], expires, rules)
    }

    /// Reads the introspection response for an active token (RFC 7662 section 2.2). Checks the
    /// issuer, the token type, the audience, the user and the client. [`Self::check_time`] checks
    /// the times.
    ///
    /// `iss` and `exp` are optional in the response. `iss` is not required, because the response
    /// comes from the issuer itself. If the response has no `exp`, the token is valid for as long
    /// as the issuer reports the token as active.
    pub(crate) fn from_introspection(
        response: &Map<String, Value>,
        issuer: Option<&str>,
        rules: &TokenRules,
    ) -> Result<Self, &'static str> {
        if let (Some(issuer), Some(named)) = (issuer, response.get("iss"))
            && named.as_str() != Some(issuer)
        {
            return Err(UNTRUSTED_ISSUER);
        }
        // A refresh token can be active too, but only an access token has the type Bearer (RFC 6750
        // section 6.1.1).
        if let Some(kind) = response.get("token_type")
            && !kind
                .as_str()
                .is_some_and(|kind| kind.eq_ignore_ascii_case("Bearer"))
        {
            return Err("The token is not a bearer token.");
        }
        let expires = seconds(response, "exp", "The token's exp is not a number.")?;
        Self::from_members(
            response,
            &["user_id", "sub"],
            expires.unwrap_or(f64::INFINITY),
            rules,
        )
    }

    /// Reads the members that both JWTs and introspection responses have. If no user claim is
    /// configured, the first of `default_user_claims` that is present names the user.
    fn from_members(
        token: &Map<String, Value>,
        default_user_claims: &[&str],
        expires: f64,
        rules: &TokenRules,
    ) -> Result<Self, &'static str> {
        if let Some(audience) = &rules.audience
            && !names_audience(token.get("aud"), audience)
        {
            return Err("The token is not meant for this service.");
        }
        let not_before = seconds(token, "nbf", "The token's nbf is not a number.")?;
        let names = &rules.names;
        let user = match &names.user {
            Some(claim) => token.get(claim),
            None => default_user_claims
                .iter()
                .find_map(|claim| present(token, claim)),
        };
        let client = first_present(token, &names.client);
        Ok(Self {
            user: valid_name(user).ok_or("The token names no user.")?,
            client: valid_name(client).ok_or("The token names no client.")?,
            scopes: scopes(first_present(token, &names.scope)),
            has_linked_identity: rules
                .linked_identity_claim
                .as_ref()
                .is_none_or(|claim| is_linked(token.get(claim))),
            expires,
            not_before,
        })
    }

    /// Checks that the token is valid at `now`, in seconds since 1970.
    pub(crate) fn check_time(&self, now: f64) -> Result<(), &'static str> {
        if now >= self.expires + LEEWAY_SECONDS {
            return Err("The token has expired.");
        }
        if self
            .not_before
            .is_some_and(|not_before| now + LEEWAY_SECONDS < not_before)
        {
            return Err("The token is not valid yet.");
        }
        Ok(())
    }

    pub(crate) fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|granted| granted == scope)
    }

    /// Approximate size of the claims in memory, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let scopes: usize = self
            .scopes
            .iter()
            .map(|s| s.len() + size_of::<String>())
            .sum();
        size_of::<Self>() + self.user.len() + self.client.len() + scopes
    }

    #[cfg(test)]
    pub(crate) fn for_test(user: &str, client: &str, scopes: &[&str]) -> Self {
        Self {
            user: Name::new(user).unwrap(),
            client: Name::new(client).unwrap(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            has_linked_identity: true,
            expires: f64::MAX,
            not_before: None,
        }
    }
}

/// The claims of a verified token, with the key generation of the verification.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct VerifiedToken {
    pub(super) claims: Arc<Claims>,
    /// The key generation when the signature was verified. The generation is incremented when a key
    /// is withdrawn.
    pub(super) generation: u64,
}

fn first_present<'a>(token: &'a Map<String, Value>, names: &[String]) -> Option<&'a Value> {
    names.iter().find_map(|name| present(token, name))
}

/// The value of a claim. `None` if the claim is missing, null or empty. Some providers send each
/// claim that they know, and leave it empty if it does not apply.
fn present<'a>(token: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    token.get(name).filter(|value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    })
}

/// The user or client name in a claim. `None` if the claim is not a string, or not a valid name.
fn valid_name(claim: Option<&Value>) -> Option<Name> {
    Name::new(claim?.as_str()?).ok()
}

/// Reads a claim that is a `NumericDate` (RFC 7519 section 2): a JSON number, with or without a
/// fractional part. If the claim is present but is not a finite number, the error is `wrong`.
fn seconds(
    token: &Map<String, Value>,
    claim: &str,
    wrong: &'static str,
) -> Result<Option<f64>, &'static str> {
    match token.get(claim) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let seconds = number.as_f64().filter(|seconds| seconds.is_finite());
            seconds.map(Some).ok_or(wrong)
        }
        Some(_) => Err(wrong),
    }
}

/// Whether an `aud` claim contains `audience`. An `aud` claim is one string or an array of strings
/// (RFC 7519 section 4.1.3).
fn names_audience(claim: Option<&Value>, audience: &str) -> bool {
    match claim {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(audience)),
        _ => false,
    }
}

/// The scopes in a claim. The claim is either a string with spaces between the scopes (RFC 6749
/// section 3.3), or an array of strings.
fn scopes(claim: Option<&Value>) -> Vec<String> {
    match claim {
        Some(Value::String(text)) => text
            .split(' ')
            .filter(|scope| !scope.is_empty())
            .map(str::to_owned)
            .collect(),
        Some(Value::Array(list)) => list
            .iter()
            .filter_map(|scope| scope.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether a linked-identity claim is present, and is not null, false or empty.
fn is_linked(claim: Option<&Value>) -> bool {
    match claim {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(members)) => !members.is_empty(),
        Some(Value::Bool(true) | Value::Number(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(token: &Value, rules: &TokenRules) -> Result<Claims, &'static str> {
        Claims::from_jwt(token.as_object().unwrap(), rules)
    }

    fn with(name: &str, value: Value) -> Value {
        let mut token = json!({"sub": "u", "client_id": "c", "exp": 1000});
        token[name] = value;
        token
    }

    #[test]
    fn token_without_valid_user_and_client_is_rejected() {
        let rules = TokenRules::default();
        for bad in [
            json!(""),
            json!(null),
            json!(7),
            json!("a\nb"),
            json!("x".repeat(256)),
            json!(["u"]),
        ] {
            assert!(read(&with("sub", bad.clone()), &rules).is_err(), "{bad}");
            assert!(
                read(&with("client_id", bad.clone()), &rules).is_err(),
                "{bad}"
            );
        }
        let azp = json!({"sub": "u", "azp": "z", "exp": 1});
        assert_eq!(read(&azp, &rules).unwrap().client.as_str(), "z");
        let both = json!({"sub": "u", "azp": "z", "client_id": "c", "exp": 1});
        assert_eq!(read(&both, &rules).unwrap().client.as_str(), "c");
    }

    #[test]
    fn null_or_empty_claim_counts_as_absent() {
        let rules = TokenRules::default();
        for absent in [json!(null), json!(""), json!([])] {
            let token = json!({"sub": "u", "azp": "z", "client_id": absent, "exp": 1});
            assert_eq!(read(&token, &rules).unwrap().client.as_str(), "z");
        }
        for absent in [json!(null), json!(""), json!([])] {
            let token = with("scope", absent);
            let mut token = token.as_object().unwrap().clone();
            token.insert("scp".to_owned(), json!(["a"]));
            let claims = Claims::from_jwt(&token, &rules).unwrap();
            assert!(claims.has_scope("a"));
            let response = json!({"user_id": "", "sub": "u", "azp": "z"});
            let response = response.as_object().unwrap();
            let claims = Claims::from_introspection(response, None, &rules).unwrap();
            assert_eq!((claims.user.as_str(), claims.client.as_str()), ("u", "z"));
        }
        // A value of another type is not absent, so the next claim is not used.
        let token = json!({"sub": "u", "azp": "z", "client_id": 7, "exp": 1});
        assert!(read(&token, &rules).is_err());
    }

    #[test]
    fn scopes_are_read_from_string_or_array() {
        for claim in [json!("a b  c"), json!(["a", "b", 7, "c"])] {
            for name in ["scope", "scp"] {
                let claims = read(&with(name, claim.clone()), &TokenRules::default()).unwrap();
                assert_eq!(claims.scopes, ["a", "b", "c"]);
                assert!(claims.has_scope("b") && !claims.has_scope("a b"));
            }
        }
        // An array element is one scope, even if it contains spaces.
        let claims = read(&with("scp", json!(["a b"])), &TokenRules::default()).unwrap();
        assert!(!claims.has_scope("a"));
    }

    #[test]
    fn times_must_be_numbers_and_get_30_seconds_of_leeway() {
        let rules = TokenRules::default();
        for bad in [json!("1000"), json!(null), json!([]), json!(true)] {
            assert!(read(&with("exp", bad.clone()), &rules).is_err(), "{bad}");
            assert!(read(&with("nbf", bad.clone()), &rules).is_err(), "{bad}");
        }
        assert!(read(&json!({"sub": "u", "client_id": "c"}), &rules).is_err());
        let decimal = read(&with("exp", json!(1000.5)), &rules).unwrap();
        assert!(decimal.check_time(1030.4).is_ok() && decimal.check_time(1030.5).is_err());
        let early = read(&with("nbf", json!(900)), &rules).unwrap();
        assert!(early.check_time(869.9).is_err() && early.check_time(870.0).is_ok());
    }

    #[test]
    fn configured_audience_is_required() {
        let rules = TokenRules {
            audience: Some("prefd".to_owned()),
            ..TokenRules::default()
        };
        let with = |aud: Value| read(&with("aud", aud), &rules);
        assert!(with(json!("prefd")).is_ok());
        assert!(with(json!(["other", "prefd"])).is_ok());
        for aud in [
            json!("prefd2"),
            json!(["x"]),
            json!(null),
            json!({"prefd": 1}),
        ] {
            assert!(with(aud).is_err());
        }
    }

    #[test]
    fn introspection_response_may_omit_issuer_and_expiry() {
        let rules = TokenRules::default();
        let read = |response: &Value| {
            Claims::from_introspection(response.as_object().unwrap(), Some("https://i"), &rules)
        };
        let minimal = json!({"active": true, "sub": "u", "client_id": "c"});
        let claims = read(&minimal).unwrap();
        assert_eq!((claims.user.as_str(), claims.client.as_str()), ("u", "c"));
        assert!(claims.check_time(9e9).is_ok());
        let with = |name: &str, value: Value| {
            let mut response = minimal.clone();
            response[name] = value;
            read(&response)
        };
        assert_eq!(with("user_id", json!("v")).unwrap().user.as_str(), "v");
        assert!(with("iss", json!("https://i")).is_ok());
        assert!(with("token_type", json!("bearer")).is_ok());
        let expiring = with("exp", json!(1000)).unwrap();
        assert!(expiring.check_time(1029.0).is_ok() && expiring.check_time(1030.0).is_err());
        for (name, value) in [
            ("iss", json!("https://j")),
            ("iss", json!(null)),
            ("token_type", json!("DPoP")),
            ("token_type", json!("refresh_token")),
            ("exp", json!("1000")),
            ("sub", json!(7)),
            ("sub", json!("")),
        ] {
            assert!(with(name, value.clone()).is_err(), "{name} {value}");
        }
        let rules = TokenRules {
            audience: Some("prefd".to_owned()),
            ..TokenRules::default()
        };
        let response = minimal.as_object().unwrap();
        assert!(Claims::from_introspection(response, None, &rules).is_err());
    }

    #[test]
    fn linked_identity_claim_must_not_be_absent_null_false_or_empty() {
        let rules = TokenRules {
            linked_identity_claim: Some("linked".to_owned()),
            ..TokenRules::default()
        };
        for (value, linked) in [
            (json!(null), false),
            (json!(false), false),
            (json!(""), false),
            (json!([]), false),
            (json!({}), false),
            (json!(true), true),
            (json!("id"), true),
            (json!(["id"]), true),
            (json!(1), true),
        ] {
            assert_eq!(
                read(&with("linked", value.clone()), &rules)
                    .unwrap()
                    .has_linked_identity,
                linked,
                "{value}"
            );
        }
        assert!(
            !read(&with("other", json!(1)), &rules)
                .unwrap()
                .has_linked_identity
        );
        assert!(
            read(&with("other", json!(1)), &TokenRules::default())
                .unwrap()
                .has_linked_identity
        );
    }
}
