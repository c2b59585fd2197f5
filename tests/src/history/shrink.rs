//! Makes a history that is not linearizable as small as it can be and still not be.
//!
//! Only what cannot matter to the rest is left out, so that the rest being wrong proves
//! the whole wrong: an observation; a put that no operation that is left speaks of; a
//! delete that had ended before anything but deletes was called.

use std::collections::BTreeSet;

use super::search::is_linearizable;
use super::{Action, Condition, Operation, Outcome};

/// The smallest part found, by call.
pub(super) fn shrink(history: &[Operation]) -> Vec<Operation> {
    let mut kept = shortest_beginning(history);
    let mut step = kept.len().div_ceil(2);
    while step > 0 {
        let before = kept.len();
        let mut end = kept.len();
        while end > 0 {
            let begin = end.saturating_sub(step);
            let smaller = without(&kept, begin..end);
            if smaller.len() < kept.len() && !is_linearizable(&smaller) {
                kept = smaller;
            }
            end = begin.min(kept.len());
        }
        // What speaks of a put may be gone only now.
        if step > 1 || kept.len() == before {
            step /= 2;
        }
    }
    kept
}

/// What was known at the first instant at which it was wrong.
fn shortest_beginning(history: &[Operation]) -> Vec<Operation> {
    let mut ends: Vec<u64> = history.iter().map(|o| o.returned.max(o.called)).collect();
    ends.sort_unstable();
    let right = ends.partition_point(|end| is_linearizable(&beginning(history, *end)));
    let end = ends.get(right).copied().unwrap_or(u64::MAX);
    beginning(history, end)
}

/// What was known at an instant: what had not returned by then is unknown.
fn beginning(history: &[Operation], end: u64) -> Vec<Operation> {
    let mut begun: Vec<Operation> = history
        .iter()
        .filter(|operation| operation.called <= end)
        .cloned()
        .collect();
    for operation in &mut begun {
        if operation.returned > end {
            operation.outcome = Outcome::Unknown;
        }
    }
    begun.sort_by_key(|operation| operation.called);
    begun
}

/// The history without what can be left out of the operations in `range`.
fn without(kept: &[Operation], range: std::ops::Range<usize>) -> Vec<Operation> {
    let marked = |index: usize| range.contains(&index);
    let unobserved = |operation: &Operation| {
        operation.outcome.is_observation()
            || (operation.outcome == Outcome::Unknown
                && matches!(operation.action, Action::Read | Action::ReadUnless(_)))
    };
    let mut left: Vec<(usize, &Operation)> = kept.iter().enumerate().collect();
    left.retain(|(index, operation)| !(marked(*index) && unobserved(operation)));
    let (tags, values) = spoken_of(&left);
    let mut owned = BTreeSet::new();
    for (_, operation) in &left {
        if let Outcome::Done(Some(tag)) | Outcome::Found(tag, Some(_)) = operation.outcome {
            owned.insert(tag);
        }
    }
    let has_orphans = !tags.is_subset(&owned);
    left.retain(|(index, operation)| {
        let speakable = match (operation.action, operation.outcome) {
            (Action::Put(value, _), Outcome::Done(Some(tag))) => {
                tags.contains(&tag) || values.contains(&value)
            }
            // A tag that nobody owns may be its own.
            (Action::Put(value, _), Outcome::Unknown) => has_orphans || values.contains(&value),
            _ => true,
        };
        speakable || !marked(*index)
    });
    let is_delete = |o: &Operation| matches!(o.action, Action::Delete(Condition::Always));
    let begin = left
        .iter()
        .filter(|(_, operation)| !is_delete(operation))
        .map(|(_, operation)| operation.called)
        .min()
        .unwrap_or_default();
    left.retain(|(index, operation)| {
        let is_over = operation.outcome != Outcome::Unknown && operation.returned < begin;
        !(marked(*index) && is_delete(operation) && is_over)
    });
    left.into_iter().map(|(_, o)| o.clone()).collect()
}

/// The tags and values that others than their puts speak of.
fn spoken_of(left: &[(usize, &Operation)]) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let (mut tags, mut values) = (BTreeSet::new(), BTreeSet::new());
    for (_, operation) in left {
        tags.extend(operation.outcome.observed());
        if let Condition::Matches(tag) = operation.action.condition() {
            tags.insert(tag);
        }
        if let Outcome::Found(_, Some(value)) = operation.outcome {
            values.insert(value);
        }
    }
    (tags, values)
}
