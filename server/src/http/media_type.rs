//! Whether a body is what is taken here: JSON, without an encoding around it.

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::http::error::{Code, Refusal};

/// JSON, if the request says what it is, and as it is: no encoding is undone here.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Box<Refusal>> {
    let refuse =
        |detail, name| Err(Refusal::new(Code::UnsupportedMediaType, detail).at_header(name));
    for value in headers.get_all(CONTENT_TYPE) {
        if !is_json(value) {
            return refuse(
                "The Content-Type is neither application/json nor application/*+json.",
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
            return refuse("A Content-Encoding is not supported.", "Content-Encoding");
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
    fn json_media_types_are_told_from_others() {
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
