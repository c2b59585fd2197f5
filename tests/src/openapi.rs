//! An OpenAPI document as its readers see it, and whether answers are as it says.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::api_error;
use crate::http::{Request, Response};
use crate::server::Server;

/// Where a server has it.
pub const TARGET: &str = "/openapi.json";
/// The path of the documents, as the document writes it.
pub const PREFERENCES: &str = "/user/{version}/preferences/{clientId}";
const JSON_API: &str = "application/vnd.api+json";
/// Headers that say how an answer is sent, and not what it is.
const OF_THE_TRANSFER: [&str; 4] = ["connection", "content-length", "content-type", "date"];

/// The document.
#[derive(Debug, Clone)]
pub struct OpenApi(Value);

impl OpenApi {
    /// That of a server.
    pub fn of(server: &Server) -> Self {
        let response = server.connect().request(&Request::new("GET", TARGET));
        assert_eq!(response.status, 200, "{response:?}");
        Self(serde_json::from_slice(&response.body).unwrap())
    }

    /// What a pointer (RFC 6901) points at, or else null.
    pub fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// What is meant, where that is said by reference.
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            None => value,
            Some(reference) => {
                let target = reference.strip_prefix('#').and_then(|p| self.0.pointer(p));
                target.unwrap_or_else(|| panic!("{reference} is not there"))
            }
        }
    }

    /// The answer that it has for a method and a status; of a method that the path does not
    /// have, the one for all of those.
    fn response(&self, path: &str, method: &str, status: u16) -> Option<&Value> {
        let operation = &self.0["paths"][path][method.to_ascii_lowercase()];
        let response = match operation {
            Value::Null => &self.0["components"]["responses"]["MethodNotAllowed"],
            operation => operation["responses"].get(status.to_string())?,
        };
        Some(self.resolve(response))
    }

    /// The codes that it names for a status of an operation, each with an example.
    fn codes<'a>(&'a self, content: &'a Value) -> BTreeSet<&'a str> {
        let narrowed = &content["schema"]["allOf"][1];
        let code = &narrowed["properties"]["errors"]["items"]["properties"]["code"];
        let codes = code["enum"].as_array().unwrap();
        let codes: BTreeSet<&str> = codes.iter().map(|code| code.as_str().unwrap()).collect();
        let examples = content["examples"].as_object().unwrap();
        for (name, example) in examples {
            let error = &self.resolve(example)["value"]["errors"][0];
            assert_eq!(error["code"], name.as_str());
        }
        assert!(
            examples
                .keys()
                .map(String::as_str)
                .eq(codes.iter().copied())
        );
        codes
    }

    /// Checks that an answer is one that the document has: its status, its media type and
    /// body, the headers that must be there, and no others. Returns the code of an error.
    pub fn check(
        &self,
        path: &str,
        method: &str,
        answer: &Response,
        context: &str,
    ) -> Option<&'static str> {
        let response = self
            .response(path, method, answer.status)
            .unwrap_or_else(|| panic!("{context}: no such status: {answer:?}"));
        let none = Map::new();
        let headers = response["headers"].as_object().unwrap_or(&none);
        for (name, header) in headers {
            let is_required = self.resolve(header)["required"] == true;
            let is_there = answer.header(&name.to_ascii_lowercase()).is_some();
            assert!(is_there || !is_required, "{context}: {name}: {answer:?}");
        }
        for (name, _) in &answer.headers {
            let is_named = headers.keys().any(|known| known.eq_ignore_ascii_case(name));
            let is_of_transfer = OF_THE_TRANSFER.contains(&name.as_str());
            assert!(is_named || is_of_transfer, "{context}: {name}: {answer:?}");
        }
        let Some(content) = response["content"].as_object() else {
            assert!(answer.body.is_empty(), "{context}: {answer:?}");
            return None;
        };
        let media_type = answer.header("content-type").unwrap_or_default();
        let essence = media_type.split(';').next().unwrap_or_default();
        let content = content
            .get(essence)
            .unwrap_or_else(|| panic!("{context}: no such media type: {answer:?}"));
        if media_type != JSON_API {
            return None;
        }
        let code = api_error::check_any(answer, context);
        assert!(self.codes(content).contains(code), "{context}: {answer:?}");
        Some(code)
    }
}
