//! What clients saw of one namespace, and whether one register can have shown it.
//!
//! A history is a set of [`Operation`]s, each with the instants between which it took
//! effect. It is linearizable if they can be put in one order that no pair of instants
//! contradicts, and in which a register that does one after the other gives every
//! answer that was given (Herlihy and Wing, 1990). The register here is a namespace:
//! a value, its tag, and conditions on the tag; tags grow with every write that is
//! seen, and none comes twice.
//!
//! `search` looks for such an order, `shrink` makes of a history that has none the
//! smallest one. Nothing here knows of HTTP. Values are numbers, each put once.

mod search;
mod shrink;

use std::fmt;

/// The number in an entity tag.
pub type Tag = u64;

/// What a client asked for, what it was told, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Which connection: for people.
    pub connection: u32,
    /// Before the first byte was sent, in nanoseconds.
    pub called: u64,
    /// After the last byte of the answer was read, by the same clock. Of no meaning
    /// where the outcome is unknown.
    pub returned: u64,
    /// What was asked for.
    pub action: Action,
    /// What was told.
    pub outcome: Outcome,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// GET or HEAD.
    Read,
    /// The same with `If-None-Match: "tag"`.
    ReadUnless(Tag),
    /// PUT of a value that no other put has.
    Put(u64, Condition),
    /// DELETE.
    Delete(Condition),
}

/// A condition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// None.
    Always,
    /// `If-Match: "tag"`
    Matches(Tag),
    /// `If-None-Match: *`
    Absent,
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: the connection died. It may have taken effect at any time since, or not.
    Unknown,
    /// 204, with the tag of a put.
    Done(Option<Tag>),
    /// 200: the tag, and the value unless it was a HEAD.
    Found(Tag, Option<u64>),
    /// 200 without a tag: nothing is stored.
    Nothing,
    /// 304, with this tag.
    Unchanged(Tag),
    /// 412, with the current tag where something is stored.
    Failed(Option<Tag>),
}

/// A history that no register can have shown.
#[derive(Debug)]
pub struct Violation {
    /// The smallest part of it that no register can have shown either, by call.
    pub window: Vec<Operation>,
    /// Operations of the whole history.
    pub operations: usize,
}

/// Looks for an order in which one register shows `history`.
pub fn check(history: &[Operation]) -> Result<(), Violation> {
    if search::is_linearizable(history) {
        return Ok(());
    }
    Err(Violation {
        window: shrink::shrink(history),
        operations: history.len(),
    })
}

/// The register: a namespace, as far as its clients can tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Register {
    current: Option<Written>,
    /// The highest tag that is known to have been given out.
    newest: Tag,
}

/// What a put left behind. The tag of one whose answer was lost is not known until
/// somebody is told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Written {
    value: u64,
    tag: Option<Tag>,
}

impl Register {
    /// The register after the operation, where it gives the answer that was given.
    fn after(self, operation: &Operation) -> Option<Self> {
        match (operation.action, operation.outcome) {
            (Action::Read | Action::ReadUnless(_), Outcome::Nothing) => self.absent(),
            (Action::Read, Outcome::Found(tag, value)) => self.shows(tag, value),
            (Action::ReadUnless(unless), Outcome::Found(tag, value)) if tag != unless => {
                self.shows(tag, value)
            }
            (Action::ReadUnless(unless), Outcome::Unchanged(tag)) if tag == unless => {
                self.shows(tag, None)
            }
            (Action::Put(_, condition) | Action::Delete(condition), Outcome::Failed(current)) => {
                self.refused(condition, current)
            }
            (Action::Put(value, condition), Outcome::Done(Some(tag))) => {
                self.holds(condition)?.put(value, tag)
            }
            (Action::Put(value, condition), Outcome::Unknown) => {
                let tag = None;
                let current = Some(Written { value, tag });
                let register = self.holds(condition)?;
                Some(Self {
                    current,
                    ..register
                })
            }
            (Action::Delete(condition), Outcome::Done(None) | Outcome::Unknown) => {
                let current = None;
                let register = self.holds(condition)?;
                Some(Self {
                    current,
                    ..register
                })
            }
            _ => None,
        }
    }

    fn absent(self) -> Option<Self> {
        self.current.is_none().then_some(self)
    }

    /// Whether a reader can be told this tag, and this value.
    fn shows(mut self, tag: Tag, value: Option<u64>) -> Option<Self> {
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

    fn holds(self, condition: Condition) -> Option<Self> {
        match condition {
            Condition::Always => Some(self),
            Condition::Matches(tag) => self.shows(tag, None),
            Condition::Absent => self.absent(),
        }
    }

    /// A 412 that tells `current`.
    fn refused(self, condition: Condition, current: Option<Tag>) -> Option<Self> {
        let fails = match condition {
            Condition::Always => false,
            Condition::Matches(tag) => current != Some(tag),
            Condition::Absent => current.is_some(),
        };
        if !fails {
            return None;
        }
        match current {
            None => self.absent(),
            Some(tag) => self.shows(tag, None),
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
    /// Whether it tells what the register holds, and nothing was changed.
    fn is_observation(self) -> bool {
        match self {
            Self::Found(..) | Self::Nothing | Self::Unchanged(_) | Self::Failed(_) => true,
            Self::Unknown | Self::Done(_) => false,
        }
    }

    /// The tag that it tells to be the current one.
    fn observed(self) -> Option<Tag> {
        match self {
            Self::Found(tag, _) | Self::Unchanged(tag) => Some(tag),
            Self::Failed(tag) => tag,
            Self::Nothing | Self::Unknown | Self::Done(_) => None,
        }
    }
}

impl Action {
    /// The condition of a write.
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
            Outcome::Failed(None) => write!(f, "failed, nothing is there"),
            Outcome::Failed(Some(tag)) => write!(f, "failed, \"{tag}\" is there"),
        }
    }
}

impl fmt::Display for Violation {
    /// One line for each operation of the window, by call: when, who, what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (window, all) = (self.window.len(), self.operations);
        writeln!(
            f,
            "not linearizable; of {all} operations these {window} suffice:"
        )?;
        let begin = self.window.first().map_or(0, |first| first.called);
        let micros = |at: u64| (at.saturating_sub(begin)) / 1000;
        for operation in &self.window {
            let until = match operation.outcome {
                Outcome::Unknown => "?".to_owned(),
                _ => micros(operation.returned).to_string(),
            };
            let (from, who) = (micros(operation.called), operation.connection);
            writeln!(
                f,
                "{from:>12} to {until:>12} us, connection {who:>3}: {operation}"
            )?;
        }
        Ok(())
    }
}
