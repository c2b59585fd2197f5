//! Helper functions that build the JSON of the OpenAPI document.

use serde_json::{Map, Value, json};

/// A reference to a component, such as `#/components/schemas/Error`.
pub(super) fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// Creates a JSON object with these members.
pub(super) fn object(members: impl IntoIterator<Item = (String, Value)>) -> Map<String, Value> {
    members.into_iter().collect()
}
