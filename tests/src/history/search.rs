//! The search for an order: that of Wing and Gong (1993), which takes any operation
//! that no other one ended before, with Lowe's memory of where it has been (2017).
//!
//! Three things keep it near linear, and none of them decides what is to be checked:
//! an observation that fits is taken at once, since it changes nothing; of puts whose
//! tags are known only the lowest is tried, since tags must grow; and of deletes whose
//! answer was lost only the oldest, since all of them do the same.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{Action, Condition, Operation, Outcome, Register, Tag};

/// A history as the search takes it.
struct Search {
    /// Those that took effect, by call.
    definite: Vec<Operation>,
    /// Those that may have, by call.
    optional: Vec<Operation>,
}

/// How far an order has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Point {
    /// All definite ones before this one are taken.
    first: usize,
    /// So are these behind it, which are sorted.
    ahead: Vec<usize>,
    /// The optional ones that are taken, sorted.
    used: Vec<usize>,
    register: Register,
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
    /// A put whose answer was lost is as good as answered where its value was read:
    /// the readers know its tag, and it came before the first of them had ended. One
    /// that was not read, and of which nobody can have seen the tag, has no part in
    /// any order: without it every other answer stays what it is.
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
                // A read whose answer was lost.
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
        }];
        let mut been = HashSet::new();
        while let Some(mut point) = open.pop() {
            self.take_observations(&mut point);
            if point.first == self.definite.len() {
                return true;
            }
            if been.insert(point.clone()) {
                self.push_next(&point, &mut open);
            }
        }
        false
    }

    /// The definite ones that can come next, and the instant at which the first of all
    /// that remain had ended: what was called later cannot come next.
    fn next(&self, point: &Point) -> (Vec<usize>, u64) {
        let mut next = Vec::new();
        let mut ended = u64::MAX;
        for (index, operation) in self.definite.iter().enumerate().skip(point.first) {
            if operation.called > ended {
                break;
            }
            if point.ahead.binary_search(&index).is_err() {
                ended = ended.min(operation.returned);
                next.push(index);
            }
        }
        (next, ended)
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
                }
            }
            if before == (point.first, point.ahead.len()) {
                return;
            }
        }
    }

    /// Pushes what can follow; the last is tried first.
    fn push_next(&self, point: &Point, open: &mut Vec<Point>) {
        let (next, ended) = self.next(point);
        let mut deleted = false;
        for (index, operation) in self.optional.iter().enumerate() {
            if operation.called > ended {
                break;
            }
            if point.used.binary_search(&index).is_ok() {
                continue;
            }
            if operation.action == Action::Delete(Condition::Always) {
                // Where nothing is stored it would be spent for nothing.
                if deleted || point.register.current.is_none() {
                    continue;
                }
                deleted = true;
            }
            if let Some(register) = point.register.after(operation) {
                let mut following = point.clone();
                let place = following.used.partition_point(|used| *used < index);
                following.used.insert(place, index);
                following.register = register;
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
            if let Some(register) = point.register.after(&self.definite[index]) {
                let mut following = point.clone();
                following.register = register;
                following.take(index);
                open.push(following);
            }
        }
    }
}
