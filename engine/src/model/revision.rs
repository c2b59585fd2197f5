//! Revisions, and the preconditions that are judged against them.

use std::fmt;

/// The place of a write in the order of all writes of one engine.
///
/// One global sequence: it only grows, and a number is never used twice, not even
/// after a crash. So an equal revision means the very same document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// The revision with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of revisions that a precondition names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revisions {
    /// Every revision: matches whatever is stored, but not an absent document.
    Any,
    /// These, and an empty list matches nothing.
    OneOf(Vec<Revision>),
}

impl Revisions {
    fn matches(&self, current: Option<Revision>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::OneOf(list), Some(current)) => list.contains(&current),
        }
    }
}

/// What must hold of the newest revision for a write to happen.
///
/// Judged inside the commit, against every write before it: of two writers with
/// the same precondition exactly one can win. The default is no precondition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The current revision must be one of these (HTTP `If-Match`).
    pub must_match: Option<Revisions>,
    /// The current revision must be none of these (HTTP `If-None-Match`).
    pub must_not_match: Option<Revisions>,
}

impl Precondition {
    /// Always holds.
    pub const fn none() -> Self {
        Self {
            must_match: None,
            must_not_match: None,
        }
    }

    /// Holds where exactly this revision is stored.
    pub fn matches(revision: Revision) -> Self {
        Self {
            must_match: Some(Revisions::OneOf(vec![revision])),
            must_not_match: None,
        }
    }

    /// Holds where nothing is stored: never set, or deleted.
    pub const fn absent() -> Self {
        Self {
            must_match: None,
            must_not_match: Some(Revisions::Any),
        }
    }

    /// Whether it holds on `current`, `None` meaning that nothing is stored.
    pub fn holds(&self, current: Option<Revision>) -> bool {
        self.must_match.as_ref().is_none_or(|r| r.matches(current))
            && !self
                .must_not_match
                .as_ref()
                .is_some_and(|r| r.matches(current))
    }

    /// Whether it holds on every revision, so that none need be known.
    pub(crate) fn is_none(&self) -> bool {
        self.must_match.is_none() && self.must_not_match.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preconditions_hold_as_rfc_9110_section_13_1_says() {
        let one = Some(Revision::new(1));
        assert!(Precondition::none().holds(None) && Precondition::none().holds(one));
        assert!(Precondition::matches(Revision::new(1)).holds(one));
        assert!(!Precondition::matches(Revision::new(2)).holds(one));
        assert!(!Precondition::matches(Revision::new(1)).holds(None));
        assert!(Precondition::absent().holds(None) && !Precondition::absent().holds(one));
        let both = Precondition {
            must_match: Some(Revisions::Any),
            must_not_match: Some(Revisions::OneOf(vec![Revision::new(1)])),
        };
        assert!(!both.holds(one) && !both.holds(None) && both.holds(Some(Revision::new(2))));
    }
}
