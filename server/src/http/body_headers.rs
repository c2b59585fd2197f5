//! Checks the headers that describe a request body: the body must be a complete document, as JSON
//! without a content encoding.

use hyper::header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::http::error::{ApiError, Code};

/// Checks Content-Type, Content-Encoding and Content-Range. A request may omit Content-Type and
/// Content-Encoding.
///
/// # Errors
/// [`Code::UnsupportedMediaType`] if the Content-Type is not a JSON type, or if the
/// Content-Encoding is not `identity`. [`Code::InvalidRequest`] if the request has a Content-Range.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Box<ApiError>> {
    for value in headers.get_all(CONTENT_TYPE) {
        if !is_json(value) {
            return Err(ApiError::new(
                Code::UnsupportedMediaType,
                "The Content-Type must be application/json or application/*+json.",
            )
            .at_header("Content-Type"));
        }
    }
    check_encoding(headers)?;
    // The body is a part of a document. If Content-Range were ignored, the part would replace the
    // whole document (RFC 9110 section 14.5).
    if headers.contains_key(CONTENT_RANGE) {
        return Err(ApiError::new(
            Code::InvalidRequest,
            "A PUT replaces the whole document, so Content-Range is not supported.",
        )
        .at_header("Content-Range"));
    }
    Ok(())
}

/// Checks Content-Encoding, which a request may omit.
///
/// # Errors
/// [`Code::UnsupportedMediaType`] if the Content-Encoding is not `identity`.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Box<ApiError>> {
    let is_identity = |value: &HeaderValue| {
        let mut codings = value.as_bytes().split(|byte| *byte == b',');
        codings.all(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"identity"))
    };
    if headers.get_all(CONTENT_ENCODING).iter().all(is_identity) {
        return Ok(());
    }
    Err(ApiError::new(
        Code::UnsupportedMediaType,
        "The body must not have a Content-Encoding other than identity.",
    )
    .at_header("Content-Encoding"))
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
