//! Reduces a history that is not linearizable to a small part that is not linearizable either.
//!
//! An operation is left out only if the remaining operations do not depend on it. So a violation in
//! the remaining history proves a violation in the complete history. These operations can be left
//! out:
//!
//! - an observation
//! - a put whose value and tag do not occur in any remaining operation
//! - a delete that returned before the first call of an operation that is not a delete

use std::collections::BTreeSet;

use super::search::is_linearizable;
use super::{Action, Condition, Operation, Outcome};

/// Returns the smallest part that was found, in the order of the calls.
pub(super) fn shrink(history: &[Operation]) -> Vec<Operation> {
    let mut kept = shortest_prefix(history);
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
        // Operations that referred to a put may have been removed in this pass, so the smallest
        // step is repeated until nothing changes.
        if step > 1 || kept.len() == before {
            step /= 2;
        }
    }
    kept
}

/// Returns the history up to the first moment at which it is not linearizable.
fn shortest_prefix(history: &[Operation]) -> Vec<Operation> {
    let mut ends: Vec<u64> = history.iter().map(|o| o.returned.max(o.called)).collect();
    ends.sort_unstable();
    let right = ends.partition_point(|end| is_linearizable(&prefix(history, *end)));
    let end = ends.get(right).copied().unwrap_or(u64::MAX);
    prefix(history, end)
}

/// Returns the history up to the time `end`. Operations that had not returned have an unknown
/// outcome.
fn prefix(history: &[Operation], end: u64) -> Vec<Operation> {
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

/// Returns the history without those operations in `range` that can be left out.
fn without(kept: &[Operation], range: std::ops::Range<usize>) -> Vec<Operation> {
    let marked = |index: usize| range.contains(&index);
    let is_removable = |operation: &Operation| {
        operation.outcome.is_observation()
            || (operation.outcome == Outcome::Unknown
                && matches!(operation.action, Action::Read | Action::ReadUnless(_)))
    };
    let mut left: Vec<(usize, &Operation)> = kept.iter().enumerate().collect();
    left.retain(|(index, operation)| !(marked(*index) && is_removable(operation)));
    let (tags, values) = referenced(&left);
    let mut owned = BTreeSet::new();
    for (_, operation) in &left {
        if let Outcome::Done(Some(tag)) | Outcome::Found(tag, Some(_)) = operation.outcome {
            owned.insert(tag);
        }
    }
    let has_orphans = !tags.is_subset(&owned);
    left.retain(|(index, operation)| {
        let is_referenced = match (operation.action, operation.outcome) {
            (Action::Put(value, _), Outcome::Done(Some(tag))) => {
                tags.contains(&tag) || values.contains(&value)
            }
            // A tag that belongs to no known put may belong to this put.
            (Action::Put(value, _), Outcome::Unknown) => has_orphans || values.contains(&value),
            _ => true,
        };
        is_referenced || !marked(*index)
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

/// Returns the tags and values that occur in operations other than their own puts.
fn referenced(left: &[(usize, &Operation)]) -> (BTreeSet<u64>, BTreeSet<u64>) {
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
