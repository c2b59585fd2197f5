//! Checks that a request body is JSON without a content encoding.

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::http::error::{ApiError, Code};

/// Checks Content-Type and Content-Encoding. A request may omit either header.
///
/// # Errors
/// [`Code::UnsupportedMediaType`] if the Content-Type is not a JSON type, or if the
/// Content-Encoding is not `identity`.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Box<ApiError>> {
    let unsupported =
        |detail, name| Err(ApiError::new(Code::UnsupportedMediaType, detail).at_header(name));
    for value in headers.get_all(CONTENT_TYPE) {
        if !is_json(value) {
            return unsupported(
                "The Content-Type must be application/json or application/*+json.",
                "Content-Type",
            );
        }
    }
    for value in headers.get_all(CONTENT_ENCODING) {
        let identity = value
            .as_bytes()
            .split(|byte| *byte == b',')
            .all(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"identity"));
        if !identity {
            return unsupported(
                "The body must not have a Content-Encoding other than identity.",
                "Content-Encoding",
            );
        }
    }
    Ok(())
}

fn is_json(value: &HeaderValue) -> bool {
    let essence = value.as_bytes().split(|byte| *byte == b';').next();
    let essence = essence
        .unwrap_or_default()
        .trim_ascii()
        .to_ascii_lowercase();
    let Some(subtype) = essence.strip_prefix(b"application/") else {
        return false;
    };
    let is_token = subtype
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(b));
    is_token && (subtype == b"json" || (subtype.len() > 5 && subtype.ends_with(b"+json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_media_types_are_accepted() {
        for (value, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.api+json", true),
            ("application/merge-patch+JSON ;x=y", true),
            ("application/+json", false),
            ("application/jsonx", false),
            ("application/json, text/plain", false),
            ("text/json", false),
            ("application/x-www-form-urlencoded", false),
            ("", false),
        ] {
            assert_eq!(is_json(&HeaderValue::from_static(value)), json, "{value}");
        }
    }
}
