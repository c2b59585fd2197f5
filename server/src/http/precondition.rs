//! Conditional requests (RFC 9110 section 13).

use std::time::SystemTime;

use hyper::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
};

use crate::http::date::is_unmodified_since;
use crate::http::error::{ApiError, Code};
use crate::http::etag::revision;
use crate::store::{Precondition, Revision, Revisions};

/// The conditions in the headers of a request.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    /// The conditions of If-Match and If-None-Match.
    pub(crate) etags: Precondition,
    /// The date in If-Unmodified-Since. `None` if the request also has If-Match, because If-Match
    /// overrides If-Unmodified-Since (RFC 9110 section 13.1.4).
    pub(crate) unmodified_since: Option<SystemTime>,
    /// The date in If-Modified-Since. `None` if the request also has If-None-Match, because
    /// If-None-Match overrides If-Modified-Since (RFC 9110 section 13.1.3).
    pub(crate) modified_since: Option<SystemTime>,
}

impl Conditions {
    /// Parses the conditional headers. An invalid date is ignored, as RFC 9110 sections 13.1.3 and
    /// 13.1.4 require.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] if a list of entity tags is malformed. If a malformed list were
    /// ignored, the request would be performed without its condition.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, Box<ApiError>> {
        let must_match = parse_etags(headers, &IF_MATCH, "If-Match", Comparison::Strong)?;
        let must_not_match =
            parse_etags(headers, &IF_NONE_MATCH, "If-None-Match", Comparison::Weak)?;
        let unmodified_since = match must_match {
            None => parse_date(headers, &IF_UNMODIFIED_SINCE),
            Some(_) => None,
        };
        let modified_since = match must_not_match {
            None => parse_date(headers, &IF_MODIFIED_SINCE),
            Some(_) => None,
        };
        Ok(Self {
            etags: Precondition {
                must_match,
                must_not_match,
            },
            unmodified_since,
            modified_since,
        })
    }

    /// Evaluates If-Match and If-None-Match for a GET or HEAD of a resource without a modification
    /// date, in the order that RFC 9110 section 13.2.2 requires. Returns `None` if both conditions
    /// are met.
    pub(crate) fn check_undated(&self, current: Option<Revision>) -> Option<UnmetCondition> {
        let must_match = Precondition {
            must_match: self.etags.must_match.clone(),
            must_not_match: None,
        };
        if !must_match.holds(current) {
            return Some(UnmetCondition::PreconditionFailed);
        }
        (!self.etags.holds(current)).then_some(UnmetCondition::NotModified)
    }

    /// Evaluates the conditions of a GET or HEAD of a document that precede the dates. The date in
    /// If-Unmodified-Since takes precedence over If-None-Match, so if the request has
    /// If-Unmodified-Since, only [`Self::check_dates`] evaluates conditions. Returns `None` if the
    /// evaluated conditions are met.
    pub(crate) fn check_etags(&self, current: Option<Revision>) -> Option<UnmetCondition> {
        match self.unmodified_since {
            None => self.check_undated(current),
            Some(_) => None,
        }
    }

    /// Evaluates the conditions of a GET or HEAD that [`Self::check_etags`] does not evaluate, in
    /// the order that RFC 9110 section 13.2.2 requires. `modified` is the time at which the
    /// document with the revision `current` was written. If no document is stored, the dates are
    /// ignored. `now` determines which dates are valid. Returns `None` if the conditions are met.
    pub(crate) fn check_dates(
        &self,
        current: Option<Revision>,
        modified: Option<SystemTime>,
        now: SystemTime,
    ) -> Option<UnmetCondition> {
        if self.unmodified_since.is_some() {
            if modified.is_some_and(|modified| self.is_modified(modified, now)) {
                return Some(UnmetCondition::PreconditionFailed);
            }
            if !self.etags.holds(current) {
                return Some(UnmetCondition::NotModified);
            }
        }
        let modified = modified?;
        self.modified_since
            .is_some_and(|since| is_unmodified_since(since, modified, now))
            .then_some(UnmetCondition::NotModified)
    }

    /// Whether the request has If-Unmodified-Since, and its condition is not met for a document
    /// that was written at `modified`.
    pub(crate) fn is_modified(&self, modified: SystemTime, now: SystemTime) -> bool {
        self.unmodified_since
            .is_some_and(|since| !is_unmodified_since(since, modified, now))
    }
}

/// The response to a GET or HEAD with an unmet condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnmetCondition {
    /// Status 412.
    PreconditionFailed,
    /// Status 304.
    NotModified,
}

fn parse_date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    httpdate::parse_http_date(value).ok()
}

/// How entity tags are compared (RFC 9110 section 8.8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// In a strong comparison, a weak tag never matches.
    Strong,
    /// In a weak comparison, two tags match if their opaque parts are equal, even if one of the
    /// tags is weak.
    Weak,
}

fn parse_etags(
    headers: &HeaderMap,
    name: &HeaderName,
    display_name: &'static str,
    comparison: Comparison,
) -> Result<Option<Revisions>, Box<ApiError>> {
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    // If a request has several header lines with the same name, their values form one list (RFC
    // 9110 section 5.3).
    let mut list = Vec::new();
    for line in lines {
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(line.as_bytes());
    }
    parse_list(&list, comparison).map(Some).ok_or_else(|| {
        ApiError::new(
            Code::InvalidRequest,
            format!("{display_name} must be * or a list of entity tags in double quotes."),
        )
        .at_header(display_name)
    })
}

/// Parses the value of If-Match or If-None-Match. Returns `None` if the value is malformed. Tags
/// that prefd never sends are omitted from the result, because no revision matches them.
fn parse_list(list: &[u8], comparison: Comparison) -> Option<Revisions> {
    if list.trim_ascii() == b"*" {
        return Some(Revisions::Any);
    }
    let mut revisions = Vec::new();
    let mut rest = list.trim_ascii();
    let mut has_tag = false;
    while !rest.is_empty() {
        // Empty list elements are ignored (RFC 9110 section 5.6.1.2).
        if let Some(after_comma) = rest.strip_prefix(b",") {
            rest = after_comma.trim_ascii_start();
            continue;
        }
        let (is_weak, tag) = match rest.strip_prefix(b"W/") {
            Some(tag) => (true, tag),
            None => (false, rest),
        };
        let tag = tag.strip_prefix(b"\"")?;
        let end = tag.iter().position(|byte| *byte == b'"')?;
        let (opaque, after_opaque) = tag.split_at(end);
        if !opaque
            .iter()
            .all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..))
        {
            return None;
        }
        has_tag = true;
        if !(is_weak && comparison == Comparison::Strong) {
            revisions.extend(revision(opaque));
        }
        rest = after_opaque.get(1..)?.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
    has_tag.then_some(Revisions::OneOf(revisions))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn one_of(numbers: &[u64]) -> Revisions {
        Revisions::OneOf(numbers.iter().copied().map(Revision::new).collect())
    }

    #[test]
    fn entity_tag_lists_are_parsed_as_rfc_9110_defines_them() {
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
            assert_eq!(
                parse_list(text.as_bytes(), Comparison::Strong),
                strong,
                "{text}"
            );
            assert_eq!(
                parse_list(text.as_bytes(), Comparison::Weak),
                weak,
                "{text}"
            );
        }
    }

    #[test]
    fn header_lines_with_the_same_name_form_one_list() {
        let mut headers = HeaderMap::new();
        headers.append(IF_MATCH, HeaderValue::from_static("\"1\""));
        headers.append(IF_MATCH, HeaderValue::from_static("\"2\""));
        let conditions = Conditions::from_headers(&headers).unwrap();
        assert_eq!(conditions.etags.must_match, Some(one_of(&[1, 2])));
        headers.append(IF_MATCH, HeaderValue::from_static("*"));
        assert!(Conditions::from_headers(&headers).is_err());
    }

    #[test]
    fn dates_are_ignored_if_the_request_has_entity_tags() {
        const STORED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
        // The store keeps times with a finer resolution than HTTP dates, whose resolution is one
        // second.
        let stored = httpdate::parse_http_date(STORED).unwrap();
        let modified = Some(stored + std::time::Duration::from_millis(999));
        let evaluate = |name: HeaderName, value: &'static str, tag: Option<HeaderName>| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            if let Some(tag) = tag {
                headers.insert(tag, HeaderValue::from_static("\"1\""));
            }
            Conditions::from_headers(&headers).unwrap().check_dates(
                None,
                modified,
                stored + std::time::Duration::from_secs(3600),
            )
        };
        let (since, until) = (IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE);
        let not_modified = Some(UnmetCondition::NotModified);
        assert_eq!(evaluate(since.clone(), STORED, None), not_modified);
        assert_eq!(evaluate(since.clone(), BEFORE, None), None);
        assert_eq!(evaluate(since.clone(), "yesterday", None), None);
        assert_eq!(evaluate(since, STORED, Some(IF_NONE_MATCH)), None);
        assert_eq!(evaluate(until.clone(), STORED, None), None);
        assert_eq!(
            evaluate(until.clone(), BEFORE, None),
            Some(UnmetCondition::PreconditionFailed)
        );
        assert_eq!(evaluate(until.clone(), "yesterday", None), None);
        assert_eq!(evaluate(until, BEFORE, Some(IF_MATCH)), None);
    }
}
