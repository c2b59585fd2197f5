//! The search for a linearization: the algorithm of Wing and Gong (1993), with the set of visited
//! states that Lowe added (2017).
//!
//! The next operation in an order can be any operation that was called before the first remaining
//! operation returned. Four rules keep the search almost linear without changing its result:
//!
//! - An observation that fits the current state is taken at once, because it changes nothing.
//! - Of all puts with known tags, only the one with the lowest tag is tried, because tags must
//!   increase.
//! - An operation whose response was lost is only tried if the next operation reveals its effect.
//!   If an unconditional write comes next, the history without the lost operation has the same
//!   outcomes.
//! - Of all puts whose response was lost and that have the same condition, only the oldest is
//!   tried, because no read returned their values, so they have the same effect. Deletes likewise.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Action, Condition, Operation, Outcome, Register, Tag};

/// Maximum number of visited states, so that a search that is not almost linear fails instead of
/// filling the memory. A history of `linearizability.rs` has up to a few thousand operations.
const MAX_STATES: usize = 500_000;

/// A history, prepared for the search.
struct Search {
    /// Operations that took effect, in the order of their calls.
    definite: Vec<Operation>,
    /// Operations that may have taken effect, in the order of their calls.
    optional: Vec<Operation>,
}

/// A state of the search: the operations taken so far, and the resulting register.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Point {
    /// All definite operations before this index are taken.
    first: usize,
    /// Sorted indexes of the taken definite operations after `first`.
    ahead: Vec<usize>,
    /// Sorted indexes of the taken optional operations.
    used: Vec<usize>,
    register: Register,
    /// True if the last write was optional, and no operation has revealed its effect yet.
    unconfirmed: bool,
}

impl Point {
    fn take(&mut self, index: usize) {
        let place = self.ahead.partition_point(|taken| *taken < index);
        self.ahead.insert(place, index);
        let run = self
            .ahead
            .iter()
            .enumerate()
            .take_while(|(at, taken)| **taken == self.first + at)
            .count();
        self.first += run;
        self.ahead.drain(..run);
    }
}

pub(super) fn is_linearizable(history: &[Operation]) -> bool {
    Search::new(history).run()
}

impl Search {
    /// Classifies the operations with a lost response.
    ///
    /// - A put whose value was read took effect before the first of these reads returned. The reads
    ///   reveal its tag.
    /// - A put whose value was not read is optional if some observed tag belongs to no known put.
    ///   Otherwise the put is left out, because no outcome depends on it.
    /// - A delete is optional.
    /// - A read is left out.
    fn new(history: &[Operation]) -> Self {
        let mut read: BTreeMap<u64, (Tag, u64)> = BTreeMap::new();
        let mut owned: BTreeSet<Tag> = BTreeSet::new();
        let mut seen: BTreeSet<Tag> = BTreeSet::new();
        for operation in history {
            match operation.outcome {
                Outcome::Found(tag, Some(value)) => {
                    let (_, returned) = read.entry(value).or_insert((tag, operation.returned));
                    *returned = operation.returned.min(*returned);
                    owned.insert(tag);
                }
                Outcome::Done(Some(tag)) => drop(owned.insert(tag)),
                Outcome::Done(None) | Outcome::Unknown => {}
                other => seen.extend(other.observed()),
            }
            if let (Condition::Matches(tag), Outcome::Done(_) | Outcome::Unknown) =
                (operation.action.condition(), operation.outcome)
            {
                seen.insert(tag);
            }
        }
        let has_orphans = seen.difference(&owned).next().is_some();
        let (mut definite, mut optional) = (Vec::new(), Vec::new());
        for operation in history {
            match (operation.action, operation.outcome) {
                (Action::Put(value, _), Outcome::Unknown) => match read.get(&value) {
                    Some((tag, returned)) => definite.push(Operation {
                        outcome: Outcome::Done(Some(*tag)),
                        returned: *returned,
                        ..operation.clone()
                    }),
                    None if has_orphans => optional.push(operation.clone()),
                    None => {}
                },
                (Action::Delete(_), Outcome::Unknown) => optional.push(operation.clone()),
                // A read without a response proves nothing.
                (_, Outcome::Unknown) => {}
                _ => definite.push(operation.clone()),
            }
        }
        definite.sort_by_key(|operation| operation.called);
        optional.sort_by_key(|operation| operation.called);
        Self { definite, optional }
    }

    fn run(&self) -> bool {
        let mut open = vec![Point {
            first: 0,
            ahead: Vec::new(),
            used: Vec::new(),
            register: Register::default(),
            unconfirmed: false,
        }];
        let mut visited = HashSet::new();
        while let Some(mut point) = open.pop() {
            self.take_observations(&mut point);
            if point.first == self.definite.len() {
                return true;
            }
            assert!(
                visited.len() < MAX_STATES,
                "the search visited {MAX_STATES} states without a result: {:?} {:?}",
                self.definite,
                self.optional
            );
            if visited.insert(point.clone()) {
                self.push_next(&point, &mut open);
            }
        }
        false
    }

    /// Returns the definite operations that can be taken next, and the earliest return time of all
    /// remaining ones. An operation that was called after that time cannot be taken next.
    fn next(&self, point: &Point) -> (Vec<usize>, u64) {
        let mut next = Vec::new();
        let mut first_return = u64::MAX;
        for (index, operation) in self.definite.iter().enumerate().skip(point.first) {
            if operation.called > first_return {
                break;
            }
            if point.ahead.binary_search(&index).is_err() {
                first_return = first_return.min(operation.returned);
                next.push(index);
            }
        }
        (next, first_return)
    }

    fn take_observations(&self, point: &mut Point) {
        loop {
            let before = (point.first, point.ahead.len());
            for index in self.next(point).0 {
                let operation = &self.definite[index];
                if operation.outcome.is_observation()
                    && point.register.after(operation) == Some(point.register)
                {
                    point.take(index);
                    point.unconfirmed = false;
                }
            }
            if before == (point.first, point.ahead.len()) {
                return;
            }
        }
    }

    /// Pushes all successor states. The last one pushed is tried first.
    fn push_next(&self, point: &Point, open: &mut Vec<Point>) {
        let (next, first_return) = self.next(point);
        // Every operation reveals the effect of the write before it, except an unconditional write.
        let may_follow = |operation: &Operation| {
            let reveals = operation.outcome.is_observation()
                || operation.action.condition() != Condition::Always;
            reveals || !point.unconfirmed
        };
        let mut tried = Vec::new();
        for (index, operation) in self.optional.iter().enumerate() {
            if operation.called > first_return {
                break;
            }
            let kind = (
                matches!(operation.action, Action::Put(..)),
                operation.action.condition(),
            );
            let is_used = point.used.binary_search(&index).is_ok();
            if is_used || tried.contains(&kind) || !may_follow(operation) {
                continue;
            }
            tried.push(kind);
            if let Some(register) = point.register.after(operation) {
                let mut following = point.clone();
                let place = following.used.partition_point(|used| *used < index);
                following.used.insert(place, index);
                following.register = register;
                following.unconfirmed = true;
                open.push(following);
            }
        }
        let put_tag = |index: &usize| match self.definite[*index].outcome {
            Outcome::Done(tag) => tag,
            _ => None,
        };
        let lowest = next.iter().filter_map(put_tag).min();
        for index in next {
            if put_tag(&index) != lowest && put_tag(&index).is_some() {
                continue;
            }
            let operation = &self.definite[index];
            if !may_follow(operation) {
                continue;
            }
            if let Some(register) = point.register.after(operation) {
                let mut following = point.clone();
                following.register = register;
                following.unconfirmed = false;
                following.take(index);
                open.push(following);
            }
        }
    }
}
