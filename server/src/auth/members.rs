//! JSON objects in which each name must be unique.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The members of a JSON object. RFC 7515 section 4 and RFC 7519 section 4 require unique names in
/// a token. serde_json would use the last one of several members with the same name, and another
/// program may use the first one.
#[derive(Debug, Default)]
pub(crate) struct Members {
    pub(crate) map: Map<String, Value>,
    /// Whether a name appears more than once.
    pub(crate) has_duplicates: bool,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Members, A::Error> {
        let mut members = Members::default();
        while let Some((name, value)) = access.next_entry::<String, Value>()? {
            members.has_duplicates |= members.map.insert(name, value).is_some();
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_names_are_found_and_only_objects_are_accepted() {
        let read = serde_json::from_str::<Members>;
        let members = read(r#"{"a": 1, "b": {"a": 2}}"#).unwrap();
        assert!(!members.has_duplicates && members.map.len() == 2);
        assert!(read(r#"{"a": 1, "b": 2, "a": 1}"#).unwrap().has_duplicates);
        assert!(read(r#"{"a": 1, "\u0061": 2}"#).unwrap().has_duplicates);
        for text in ["[]", "7", "null", "{\"a\":}", ""] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
