//! A revision as a strong entity tag, and back: RFC 9110 section 8.8.3.

use hyper::header::HeaderValue;

use crate::http::header::header_value;
use crate::store::Revision;

/// The strong entity tag of a revision.
pub(crate) fn etag(revision: Revision) -> Option<HeaderValue> {
    header_value(format_args!("\"{revision}\""))
}

/// The revision whose tag this is; `None` for a tag that was never given out.
pub(super) fn revision(opaque: &[u8]) -> Option<Revision> {
    let text = std::str::from_utf8(opaque).ok()?;
    let number: u64 = text.parse().ok()?;
    // One spelling only: "+7" and "07" are other tags.
    (number.to_string() == text).then(|| Revision::new(number))
}
