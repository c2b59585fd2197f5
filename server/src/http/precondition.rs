//! Conditional requests: RFC 9110 section 13.

use std::time::SystemTime;

use hyper::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
};

use crate::http::error::{Code, Refusal};
use crate::http::etag::revision;
use crate::store::{Precondition, Revision, Revisions};

/// The conditions of a request.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    /// On the revision.
    pub(crate) tags: Precondition,
    /// Only where there is no `If-Match` (section 13.1.4).
    pub(crate) unmodified_since: Option<SystemTime>,
    /// Only where there is no `If-None-Match` (section 13.1.3).
    pub(crate) modified_since: Option<SystemTime>,
}

impl Conditions {
    /// Reads the conditional headers.
    ///
    /// A date that is none is to be ignored (sections 13.1.3 and 13.1.4); an entity
    /// tag that is none is refused, since a condition is never ignored.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Box<Refusal>> {
        let must_match = tags(headers, &IF_MATCH, "If-Match", Comparison::Strong)?;
        let must_not_match = tags(headers, &IF_NONE_MATCH, "If-None-Match", Comparison::Weak)?;
        let unmodified_since = match must_match {
            None => date(headers, &IF_UNMODIFIED_SINCE),
            Some(_) => None,
        };
        let modified_since = match must_not_match {
            None => date(headers, &IF_MODIFIED_SINCE),
            Some(_) => None,
        };
        Ok(Self {
            tags: Precondition {
                must_match,
                must_not_match,
            },
            unmodified_since,
            modified_since,
        })
    }

    /// Whether a reader can be answered by the revision alone, in the order of
    /// section 13.2.2.
    pub(crate) fn judge_read(&self, current: Option<Revision>) -> Option<Verdict> {
        let must_match = Precondition {
            must_match: self.tags.must_match.clone(),
            must_not_match: None,
        };
        if !must_match.holds(current) {
            return Some(Verdict::Failed);
        }
        (!self.tags.holds(current)).then_some(Verdict::NotModified)
    }

    /// The same of the dates, which need the time of the document.
    pub(crate) fn judge_dates(&self, modified: Option<SystemTime>) -> Option<Verdict> {
        if !unmodified(self.unmodified_since, modified) {
            return Some(Verdict::Failed);
        }
        let modified = modified?;
        self.modified_since
            .is_some_and(|since| whole_seconds(modified) <= since)
            .then_some(Verdict::NotModified)
    }
}

/// What a condition of a read leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// 412
    Failed,
    /// 304
    NotModified,
}

/// Whether nothing was changed since. There is nothing to be modified where nothing
/// is stored.
pub(crate) fn unmodified(since: Option<SystemTime>, modified: Option<SystemTime>) -> bool {
    match (since, modified) {
        (Some(since), Some(modified)) => whole_seconds(modified) <= since,
        _ => true,
    }
}

/// HTTP dates have whole seconds.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    httpdate::parse_http_date(value).ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// A weak tag matches nothing (section 8.8.3.2).
    Strong,
    Weak,
}

fn tags(
    headers: &HeaderMap,
    name: &HeaderName,
    shown: &'static str,
    comparison: Comparison,
) -> Result<Option<Revisions>, Box<Refusal>> {
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    // Lines of one name are one list (section 5.3).
    let mut list = Vec::new();
    for line in lines {
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(line.as_bytes());
    }
    parse(&list, comparison).map(Some).ok_or_else(|| {
        Refusal::new(
            Code::InvalidRequest,
            format!("{shown} is neither * nor a list of entity tags."),
        )
        .at_header(shown)
    })
}

fn parse(list: &[u8], comparison: Comparison) -> Option<Revisions> {
    if list.trim_ascii() == b"*" {
        return Some(Revisions::Any);
    }
    let mut revisions = Vec::new();
    let mut rest = list.trim_ascii();
    let mut found = false;
    while !rest.is_empty() {
        // An empty element is allowed for (section 5.6.1.2).
        if let Some(behind) = rest.strip_prefix(b",") {
            rest = behind.trim_ascii_start();
            continue;
        }
        let (weak, tag) = match rest.strip_prefix(b"W/") {
            Some(tag) => (true, tag),
            None => (false, rest),
        };
        let tag = tag.strip_prefix(b"\"")?;
        let end = tag.iter().position(|byte| *byte == b'"')?;
        let (opaque, behind) = tag.split_at(end);
        if !opaque
            .iter()
            .all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..))
        {
            return None;
        }
        found = true;
        if !(weak && comparison == Comparison::Strong) {
            revisions.extend(revision(opaque));
        }
        rest = behind.get(1..)?.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
    found.then_some(Revisions::OneOf(revisions))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn one_of(numbers: &[u64]) -> Revisions {
        Revisions::OneOf(numbers.iter().copied().map(Revision::new).collect())
    }

    #[test]
    fn lists_of_tags_are_read_as_the_grammar_says() {
        for (text, strong, weak) in [
            ("\"7\"", Some(one_of(&[7])), Some(one_of(&[7]))),
            ("W/\"7\"", Some(one_of(&[])), Some(one_of(&[7]))),
            ("\"7\", W/\"8\" ,\"x y\"", None, None),
            (
                "\"7\", W/\"8\" ,\"xy\"",
                Some(one_of(&[7])),
                Some(one_of(&[7, 8])),
            ),
            (",, \"7\",", Some(one_of(&[7])), Some(one_of(&[7]))),
            ("\"07\", \"+7\", \"\"", Some(one_of(&[])), Some(one_of(&[]))),
            ("\"a,b\",\"9\"", Some(one_of(&[9])), Some(one_of(&[9]))),
            (" * ", Some(Revisions::Any), Some(Revisions::Any)),
            ("", None, None),
            (",", None, None),
            ("7", None, None),
            ("\"7", None, None),
            ("\"7\" \"8\"", None, None),
            ("w/\"7\"", None, None),
            ("*, \"7\"", None, None),
            ("'7'", None, None),
        ] {
            assert_eq!(parse(text.as_bytes(), Comparison::Strong), strong, "{text}");
            assert_eq!(parse(text.as_bytes(), Comparison::Weak), weak, "{text}");
        }
    }

    #[test]
    fn lines_of_one_name_are_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(IF_MATCH, HeaderValue::from_static("\"1\""));
        headers.append(IF_MATCH, HeaderValue::from_static("\"2\""));
        let conditions = Conditions::of(&headers).unwrap();
        assert_eq!(conditions.tags.must_match, Some(one_of(&[1, 2])));
        headers.append(IF_MATCH, HeaderValue::from_static("*"));
        assert!(Conditions::of(&headers).is_err());
    }

    #[test]
    fn dates_count_where_there_are_no_tags() {
        const STORED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
        // HTTP knows whole seconds, the store more.
        let stored = httpdate::parse_http_date(STORED).unwrap();
        let modified = Some(stored + std::time::Duration::from_millis(999));
        let judged = |name: HeaderName, value: &'static str, tag: Option<HeaderName>| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            if let Some(tag) = tag {
                headers.insert(tag, HeaderValue::from_static("\"1\""));
            }
            Conditions::of(&headers).unwrap().judge_dates(modified)
        };
        let (since, until) = (IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE);
        let not_modified = Some(Verdict::NotModified);
        assert_eq!(judged(since.clone(), STORED, None), not_modified);
        assert_eq!(judged(since.clone(), BEFORE, None), None);
        assert_eq!(judged(since.clone(), "yesterday", None), None);
        assert_eq!(judged(since, STORED, Some(IF_NONE_MATCH)), None);
        assert_eq!(judged(until.clone(), STORED, None), None);
        assert_eq!(judged(until.clone(), BEFORE, None), Some(Verdict::Failed));
        assert_eq!(judged(until.clone(), "yesterday", None), None);
        assert_eq!(judged(until, BEFORE, Some(IF_MATCH)), None);
    }
}
