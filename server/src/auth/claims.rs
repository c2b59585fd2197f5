//! What a verified token says, and what of it is believed.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::auth::rules::{LEEWAY_SECONDS, Rules};

/// Bytes of a user or client name, at most: what a namespace can have.
const MAX_NAME_BYTES: usize = 255;
pub(super) const UNTRUSTED_ISSUER: &str = "The token is not of a trusted issuer.";

/// A verified token's content.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claims {
    pub(crate) user: String,
    pub(crate) client: String,
    scopes: Vec<String>,
    /// True also where none is required.
    pub(crate) has_linked_identity: bool,
    /// Seconds since 1970.
    expires: f64,
    not_before: Option<f64>,
}

impl Claims {
    /// Reads the claims of a JWT of an issuer that is believed, and checks all but the times.
    pub(crate) fn read(token: &Map<String, Value>, rules: &Rules) -> Result<Self, &'static str> {
        let expires = seconds(token, "exp", "The token's exp is not a number.")?
            .ok_or("The token has no exp.")?;
        Self::named(token, &["sub"], expires, rules)
    }

    /// Reads what an issuer answers about an active token (RFC 7662 section 2.2), and
    /// checks all but the times. Who answers is the issuer, so it need not name itself, and
    /// how long a token is valid it need not say.
    pub(crate) fn introspected(
        answer: &Map<String, Value>,
        issuer: Option<&str>,
        rules: &Rules,
    ) -> Result<Self, &'static str> {
        if let (Some(issuer), Some(named)) = (issuer, answer.get("iss"))
            && named.as_str() != Some(issuer)
        {
            return Err(UNTRUSTED_ISSUER);
        }
        // A refresh token is active, too. Those that access is given by are of this type
        // (RFC 6750 section 6.1.1).
        if let Some(kind) = answer.get("token_type")
            && !kind
                .as_str()
                .is_some_and(|kind| kind.eq_ignore_ascii_case("Bearer"))
        {
            return Err("The token is not a bearer token.");
        }
        let expires = seconds(answer, "exp", "The token's exp is not a number.")?;
        Self::named(
            answer,
            &["user_id", "sub"],
            expires.unwrap_or(f64::INFINITY),
            rules,
        )
    }

    /// The user is in the first of `usual_users` that is there, where none is configured.
    fn named(
        token: &Map<String, Value>,
        usual_users: &[&str],
        expires: f64,
        rules: &Rules,
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
            None => usual_users.iter().find_map(|claim| token.get(*claim)),
        };
        let client = first(token, &names.client).and_then(Value::as_str);
        Ok(Self {
            user: name(user.and_then(Value::as_str)).ok_or("The token names no user.")?,
            client: name(client).ok_or("The token names no client.")?,
            scopes: scopes(first(token, &names.scope)),
            has_linked_identity: rules
                .linked_identity_claim
                .as_ref()
                .is_none_or(|claim| is_linked(token.get(claim))),
            expires,
            not_before,
        })
    }

    /// Whether it holds at `now`, in seconds since 1970.
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

    /// Bytes that it takes in memory, roughly.
    pub(crate) fn weight(&self) -> usize {
        let scopes: usize = self
            .scopes
            .iter()
            .map(|s| s.len() + size_of::<String>())
            .sum();
        size_of::<Self>() + self.user.len() + self.client.len() + scopes
    }

    #[cfg(test)]
    pub(crate) fn of(user: &str, client: &str, scopes: &[&str]) -> Self {
        Self {
            user: user.to_owned(),
            client: client.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            has_linked_identity: true,
            expires: f64::MAX,
            not_before: None,
        }
    }
}

/// What a token says that a key has signed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verified {
    pub(super) claims: Arc<Claims>,
    /// Of the keys that it was judged by.
    pub(super) generation: u64,
}

fn first<'a>(token: &'a Map<String, Value>, names: &[String]) -> Option<&'a Value> {
    names.iter().find_map(|name| token.get(name))
}

/// A name that a namespace can have.
fn name(name: Option<&str>) -> Option<String> {
    let name = name?;
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control);
    fits.then(|| name.to_owned())
}

/// `NumericDate` (RFC 7519 section 2): a number, whole or decimal, never a text.
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

/// One audience, or a list of them (RFC 7519 section 4.1.3).
fn names_audience(claim: Option<&Value>, audience: &str) -> bool {
    match claim {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(audience)),
        _ => false,
    }
}

/// A text of scopes with spaces between them (RFC 6749 section 3.3), or a list.
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

    fn read(token: &Value, rules: &Rules) -> Result<Claims, &'static str> {
        Claims::read(token.as_object().unwrap(), rules)
    }

    fn with(name: &str, value: Value) -> Value {
        let mut token = json!({"sub": "u", "client_id": "c", "exp": 1000});
        token[name] = value;
        token
    }

    #[test]
    fn user_and_client_must_be_names_of_a_namespace() {
        let rules = Rules::default();
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
        assert_eq!(read(&azp, &rules).unwrap().client, "z");
        let both = json!({"sub": "u", "azp": "z", "client_id": "c", "exp": 1});
        assert_eq!(read(&both, &rules).unwrap().client, "c");
    }

    #[test]
    fn scopes_are_a_text_or_a_list() {
        for claim in [json!("a b  c"), json!(["a", "b", 7, "c"])] {
            for name in ["scope", "scp"] {
                let claims = read(&with(name, claim.clone()), &Rules::default()).unwrap();
                assert_eq!(claims.scopes, ["a", "b", "c"]);
                assert!(claims.has_scope("b") && !claims.has_scope("a b"));
            }
        }
        // An element of a list is one scope, spaces and all.
        let claims = read(&with("scp", json!(["a b"])), &Rules::default()).unwrap();
        assert!(!claims.has_scope("a"));
    }

    #[test]
    fn times_are_numbers_and_have_30_seconds_of_leeway() {
        let rules = Rules::default();
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
    fn an_audience_is_required_once_configured() {
        let rules = Rules {
            audience: Some("prefd".to_owned()),
            ..Rules::default()
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
    fn an_answer_about_a_token_need_not_repeat_what_is_known() {
        let rules = Rules::default();
        let read = |answer: &Value| {
            Claims::introspected(answer.as_object().unwrap(), Some("https://i"), &rules)
        };
        let least = json!({"active": true, "sub": "u", "client_id": "c"});
        let claims = read(&least).unwrap();
        assert_eq!((claims.user.as_str(), claims.client.as_str()), ("u", "c"));
        assert!(claims.check_time(9e9).is_ok());
        let with = |name: &str, value: Value| {
            let mut answer = least.clone();
            answer[name] = value;
            read(&answer)
        };
        assert_eq!(with("user_id", json!("v")).unwrap().user, "v");
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
            ("user_id", json!("")),
        ] {
            assert!(with(name, value.clone()).is_err(), "{name} {value}");
        }
        let rules = Rules {
            audience: Some("prefd".to_owned()),
            ..Rules::default()
        };
        let answer = least.as_object().unwrap();
        assert!(Claims::introspected(answer, None, &rules).is_err());
    }

    #[test]
    fn a_linked_identity_is_a_claim_that_says_something() {
        let rules = Rules {
            linked_identity_claim: Some("linked".to_owned()),
            ..Rules::default()
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
            read(&with("other", json!(1)), &Rules::default())
                .unwrap()
                .has_linked_identity
        );
    }
}
