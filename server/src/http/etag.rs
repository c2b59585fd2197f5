//! Converts between revisions and strong entity tags (RFC 9110 section 8.8.3).

use hyper::header::HeaderValue;

use crate::http::header::header_value;
use crate::store::Revision;

/// The strong entity tag of a revision.
pub(crate) fn etag(revision: Revision) -> Option<HeaderValue> {
    header_value(format_args!("\"{revision}\""))
}

/// The revision in an entity tag. `opaque` is the tag without its quotes. Returns `None` if prefd
/// never sends this tag.
pub(super) fn revision(opaque: &[u8]) -> Option<Revision> {
    let text = std::str::from_utf8(opaque).ok()?;
    let number: u64 = text.parse().ok()?;
    // Entity tags are compared byte by byte, so "+7" and "07" are not the tag of revision 7.
    (number.to_string() == text).then(|| Revision::new(number))
}
