//! A checker for linearizability of the operations on one namespace.
//!
//! A history is a set of [`Operation`]s, each with the times of its call and its return. A history
//! is linearizable if the operations have a total order with two properties (Herlihy and Wing,
//! 1990):
//!
//! - An operation that returned before another one was called comes first.
//! - A register that executes the operations in this order produces every observed outcome.
//!
//! The register models a namespace: a value, its entity tag, and preconditions on the tag. Tags
//! increase with every write and are never reused. Values are numbers, and no two puts have the
//! same value. The checker does not depend on HTTP.
//!
//! `search` searches for such an order. `shrink` reduces a history that has no such order to a
//! small part that also has none.

mod search;
mod shrink;

use std::fmt;

/// The number in an entity tag.
pub type Tag = u64;

/// One operation of a client, with its outcome and its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Number of the connection, for error messages only.
    pub connection: u32,
    /// Time before the first byte of the request was sent, in nanoseconds.
    pub called: u64,
    /// Time after the last byte of the response was read, by the same clock. Meaningless if the
    /// outcome is unknown.
    pub returned: u64,
    /// The requested action.
    pub action: Action,
    /// The observed outcome.
    pub outcome: Outcome,
}

/// An action that a client requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// GET or HEAD without a condition.
    Read,
    /// GET or HEAD with `If-None-Match: "tag"`.
    ReadUnless(Tag),
    /// PUT of a unique value.
    Put(u64, Condition),
    /// DELETE of the document.
    Delete(Condition),
}

/// The precondition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// No precondition.
    Always,
    /// `If-Match: "tag"`
    Matches(Tag),
    /// `If-None-Match: *`
    Absent,
}

/// The outcome of an operation, as the client observed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No response, because the connection broke. The operation may have taken effect at any time
    /// after its call, or never.
    Unknown,
    /// 204. A put has the new tag.
    Done(Option<Tag>),
    /// 200 with the tag, and with the value unless the request was a HEAD.
    Found(Tag, Option<u64>),
    /// 200 without a tag. The namespace is empty.
    Nothing,
    /// 304 with the current tag.
    Unchanged(Tag),
    /// 412. Has the current tag unless the namespace is empty.
    Failed(Option<Tag>),
}

/// A history that is not linearizable.
#[derive(Debug)]
pub struct Violation {
    /// A small part of the history that is not linearizable either, in the order of the calls.
    pub window: Vec<Operation>,
    /// Number of operations in the complete history.
    pub operations: usize,
}

/// Checks that `history` is linearizable.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    if search::is_linearizable(history) {
        return Ok(());
    }
    Err(Violation {
        window: shrink::shrink(history),
        operations: history.len(),
    })
}

/// The state of the register, which models a namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Register {
    current: Option<Written>,
    /// The highest tag that is known to have been assigned.
    newest: Tag,
}

/// The value of a put. If the response to the put was lost, its tag is unknown until another
/// operation observes the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Written {
    value: u64,
    tag: Option<Tag>,
}

impl Register {
    /// Applies an operation. Returns `None` if the operation cannot have the observed outcome in
    /// this state.
    fn after(self, operation: &Operation) -> Option<Self> {
        match (operation.action, operation.outcome) {
            (Action::Read | Action::ReadUnless(_), Outcome::Nothing) => self.require_empty(),
            (Action::Read, Outcome::Found(tag, value)) => self.observe(tag, value),
            (Action::ReadUnless(unless), Outcome::Found(tag, value)) if tag != unless => {
                self.observe(tag, value)
            }
            (Action::ReadUnless(unless), Outcome::Unchanged(tag)) if tag == unless => {
                self.observe(tag, None)
            }
            (Action::Put(_, condition) | Action::Delete(condition), Outcome::Failed(current)) => {
                self.fail_precondition(condition, current)
            }
            (Action::Put(value, condition), Outcome::Done(Some(tag))) => {
                self.require(condition)?.put(value, tag)
            }
            (Action::Put(value, condition), Outcome::Unknown) => {
                let tag = None;
                let current = Some(Written { value, tag });
                let register = self.require(condition)?;
                Some(Self {
                    current,
                    ..register
                })
            }
            (Action::Delete(condition), Outcome::Done(None) | Outcome::Unknown) => {
                let current = None;
                let register = self.require(condition)?;
                Some(Self {
                    current,
                    ..register
                })
            }
            _ => None,
        }
    }

    fn require_empty(self) -> Option<Self> {
        self.current.is_none().then_some(self)
    }

    /// Applies a read that observes the given tag and value.
    fn observe(mut self, tag: Tag, value: Option<u64>) -> Option<Self> {
        let current = self.current.as_mut()?;
        match current.tag {
            Some(known) if known != tag => return None,
            Some(_) => {}
            None if tag <= self.newest => return None,
            None => {
                current.tag = Some(tag);
                self.newest = tag;
            }
        }
        value
            .is_none_or(|value| value == current.value)
            .then_some(self)
    }

    fn require(self, condition: Condition) -> Option<Self> {
        match condition {
            Condition::Always => Some(self),
            Condition::Matches(tag) => self.observe(tag, None),
            Condition::Absent => self.require_empty(),
        }
    }

    /// Applies a failed precondition whose response has the tag `current`.
    fn fail_precondition(self, condition: Condition, current: Option<Tag>) -> Option<Self> {
        let fails = match condition {
            Condition::Always => false,
            Condition::Matches(tag) => current != Some(tag),
            Condition::Absent => current.is_some(),
        };
        if !fails {
            return None;
        }
        match current {
            None => self.require_empty(),
            Some(tag) => self.observe(tag, None),
        }
    }

    fn put(self, value: u64, tag: Tag) -> Option<Self> {
        let current = Some(Written {
            value,
            tag: Some(tag),
        });
        let newest = tag;
        (tag > self.newest).then_some(Self { current, newest })
    }
}

impl Outcome {
    /// Returns true if the outcome reveals the contents of the register and the operation changed
    /// nothing.
    fn is_observation(self) -> bool {
        match self {
            Self::Found(..) | Self::Nothing | Self::Unchanged(_) | Self::Failed(_) => true,
            Self::Unknown | Self::Done(_) => false,
        }
    }

    /// The current tag, if the outcome reveals it.
    fn observed(self) -> Option<Tag> {
        match self {
            Self::Found(tag, _) | Self::Unchanged(tag) => Some(tag),
            Self::Failed(tag) => tag,
            Self::Nothing | Self::Unknown | Self::Done(_) => None,
        }
    }
}

impl Action {
    /// The precondition of a write. Reads have none.
    pub fn condition(self) -> Condition {
        match self {
            Self::Put(_, condition) | Self::Delete(condition) => condition,
            Self::Read | Self::ReadUnless(_) => Condition::Always,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => Ok(()),
            Self::Matches(tag) => write!(f, " if-match \"{tag}\""),
            Self::Absent => write!(f, " if-none-match *"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Read => write!(f, "read")?,
            Action::ReadUnless(tag) => write!(f, "read if-none-match \"{tag}\"")?,
            Action::Put(value, condition) => write!(f, "put {value}{condition}")?,
            Action::Delete(condition) => write!(f, "delete{condition}")?,
        }
        write!(f, " -> ")?;
        match self.outcome {
            Outcome::Unknown => write!(f, "unknown"),
            Outcome::Done(None) => write!(f, "done"),
            Outcome::Done(Some(tag)) => write!(f, "done, \"{tag}\""),
            Outcome::Found(tag, None) => write!(f, "\"{tag}\""),
            Outcome::Found(tag, Some(value)) => write!(f, "{value}, \"{tag}\""),
            Outcome::Nothing => write!(f, "nothing"),
            Outcome::Unchanged(tag) => write!(f, "unchanged, \"{tag}\""),
            Outcome::Failed(None) => write!(f, "failed, the namespace is empty"),
            Outcome::Failed(Some(tag)) => write!(f, "failed, the current tag is \"{tag}\""),
        }
    }
}

impl fmt::Display for Violation {
    /// Prints one line for each operation of the window, in the order of the calls: the times, the
    /// connection and the operation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (window, all) = (self.window.len(), self.operations);
        writeln!(
            f,
            "not linearizable: {window} of {all} operations suffice to show the violation:"
        )?;
        let begin = self.window.first().map_or(0, |first| first.called);
        let micros = |at: u64| (at.saturating_sub(begin)) / 1000;
        for operation in &self.window {
            let until = match operation.outcome {
                Outcome::Unknown => "?".to_owned(),
                _ => micros(operation.returned).to_string(),
            };
            let (from, connection) = (micros(operation.called), operation.connection);
            writeln!(
                f,
                "{from:>12} to {until:>12} us, connection {connection:>3}: {operation}"
            )?;
        }
        Ok(())
    }
}
