//! Revisions of documents, and preconditions on the current revision.

use std::fmt;

/// The revision of a document: the number of the write that stored the document.
///
/// All committed writes to a store are numbered in one ascending sequence. A number is never used
/// for two committed writes, even after a crash. Therefore, if two reads of a namespace return the
/// same revision, they return the same document.
///
/// The sequence has gaps. Each open of a store begins with a number that depends on the time and on
/// random bits, so that copies of a store do not use the same number for different documents.
///
/// ```
/// use prefd_engine::Revision;
/// // A revision survives a round trip through text, such as an HTTP entity tag.
/// let text = Revision::new(42).to_string();
/// assert_eq!(text, "42");
/// assert_eq!(Revision::new(text.parse().unwrap()), Revision::new(42));
/// assert!(Revision::new(41) < Revision::new(42));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Creates the revision with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number of this revision.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of revisions, as used in a [`Precondition`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revisions {
    /// All revisions. Matches every stored document, but not an absent document.
    Any,
    /// The listed revisions. An empty list matches nothing.
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

/// A condition on the current revision of a document. A write whose precondition is false fails
/// with [`crate::Error::PreconditionFailed`].
///
/// The precondition is evaluated during the commit, and takes all earlier writes into account. If
/// two writers require the same revision, at most one of them succeeds. The default precondition is
/// always true.
///
/// ```
/// use prefd_engine::{Config, Engine, Error, Precondition, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let engine = Engine::open(Config::new(path))?;
/// let namespace = engine.namespace("alice", "editor")?;
/// let revision = namespace.write(br#"{"zoom": 1}"#, WriteOptions::default())?;
/// let unchanged = WriteOptions {
///     precondition: Precondition::matches(revision.expect("a document is stored")),
///     ..WriteOptions::default()
/// };
/// namespace.write(br#"{"zoom": 2}"#, unchanged.clone())?;
/// // The document now has a newer revision, so a write with the same precondition fails.
/// let second = namespace.write(br#"{"zoom": 3}"#, unchanged);
/// assert!(matches!(second, Err(Error::PreconditionFailed { .. })));
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The current revision must be in this set (HTTP `If-Match`). If `must_match` is `None`, every
    /// revision and an absent document are allowed.
    pub must_match: Option<Revisions>,
    /// The current revision must not be in this set (HTTP `If-None-Match`). If `must_not_match` is
    /// `None`, no revision is excluded.
    pub must_not_match: Option<Revisions>,
}

impl Precondition {
    /// A precondition that is always true.
    pub const fn none() -> Self {
        Self {
            must_match: None,
            must_not_match: None,
        }
    }

    /// A precondition that is true if the current revision is `revision`.
    pub fn matches(revision: Revision) -> Self {
        Self {
            must_match: Some(Revisions::OneOf(vec![revision])),
            must_not_match: None,
        }
    }

    /// A precondition that is true if no document is stored.
    pub const fn absent() -> Self {
        Self {
            must_match: None,
            must_not_match: Some(Revisions::Any),
        }
    }

    /// Returns true if the precondition is true for the revision `current`. `current` is `None` if
    /// no document is stored.
    pub fn holds(&self, current: Option<Revision>) -> bool {
        self.must_match.as_ref().is_none_or(|r| r.matches(current))
            && !self
                .must_not_match
                .as_ref()
                .is_some_and(|r| r.matches(current))
    }

    /// Returns true if the precondition is true for every revision and for an absent document.
    pub(crate) fn is_unconditional(&self) -> bool {
        self.must_match.is_none() && self.must_not_match.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precondition_is_evaluated_as_in_rfc_9110_section_13_1() {
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
