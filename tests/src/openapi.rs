//! Reads the OpenAPI document of a server, and checks responses against it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::api_error;
use crate::http::{Request, Response};
use crate::server::Server;

/// Path of the OpenAPI document on a server.
pub const TARGET: &str = "/openapi.json";
/// The path of preferences documents, as a key of `paths`.
pub const PREFERENCES: &str = "/user/{version}/preferences/{clientId}";
const JSON_API: &str = "application/vnd.api+json";
/// Headers that the OpenAPI document need not list.
const TRANSFER_HEADERS: [&str; 4] = ["connection", "content-length", "content-type", "date"];

/// An OpenAPI document.
#[derive(Debug, Clone)]
pub struct OpenApi(Value);

impl OpenApi {
    /// Requests the document from a server.
    pub fn of(server: &Server) -> Self {
        let response = server.connect().request(&Request::new("GET", TARGET));
        assert_eq!(response.status, 200, "{response:?}");
        Self(serde_json::from_slice(&response.body).unwrap())
    }

    /// Returns the value at a JSON pointer (RFC 6901), or null.
    pub fn at(&self, pointer: &str) -> &Value {
        self.0.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// Follows a `$ref`. Returns other values unchanged.
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            None => value,
            Some(reference) => {
                let target = reference.strip_prefix('#').and_then(|p| self.0.pointer(p));
                target.unwrap_or_else(|| panic!("the reference {reference} does not resolve"))
            }
        }
    }

    /// Returns the documented response for a method and a status. If the path does not have the
    /// method, returns the `MethodNotAllowed` response.
    fn response(&self, path: &str, method: &str, status: u16) -> Option<&Value> {
        let operation = &self.0["paths"][path][method.to_ascii_lowercase()];
        let response = match operation {
            Value::Null => &self.0["components"]["responses"]["MethodNotAllowed"],
            operation => operation["responses"].get(status.to_string())?,
        };
        Some(self.resolve(response))
    }

    /// Returns the error codes in the schema of a response. Panics unless each code has an
    /// example with its name.
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

    /// Checks that a response is documented: its status, media type and body, all required
    /// headers, and no undocumented headers. Returns the error code of an error response.
    pub fn check(
        &self,
        path: &str,
        method: &str,
        response: &Response,
        context: &str,
    ) -> Option<&'static str> {
        let documented = self
            .response(path, method, response.status)
            .unwrap_or_else(|| panic!("{context}: the status is not documented: {response:?}"));
        let none = Map::new();
        let headers = documented["headers"].as_object().unwrap_or(&none);
        for (name, header) in headers {
            let is_required = self.resolve(header)["required"] == true;
            let is_present = response.header(&name.to_ascii_lowercase()).is_some();
            assert!(
                is_present || !is_required,
                "{context}: the required header {name} is missing: {response:?}"
            );
        }
        for (name, _) in &response.headers {
            let is_documented = headers.keys().any(|known| known.eq_ignore_ascii_case(name));
            let is_transfer_header = TRANSFER_HEADERS.contains(&name.as_str());
            assert!(
                is_documented || is_transfer_header,
                "{context}: the header {name} is not documented: {response:?}"
            );
        }
        let Some(content) = documented["content"].as_object() else {
            assert!(
                response.body.is_empty(),
                "{context}: no body is documented: {response:?}"
            );
            return None;
        };
        let media_type = response.header("content-type").unwrap_or_default();
        let essence = media_type.split(';').next().unwrap_or_default();
        let content = content
            .get(essence)
            .unwrap_or_else(|| panic!("{context}: the media type is not documented: {response:?}"));
        if media_type != JSON_API {
            return None;
        }
        let code = api_error::check_any(response, context);
        assert!(
            self.codes(content).contains(code),
            "{context}: the error code is not documented: {response:?}"
        );
        Some(code)
    }
}
