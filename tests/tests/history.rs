//! The judge of histories, judged: by histories made by hand, and by a second judge
//! that tries every order there is.

use prefd_tests::history::{Action, Condition, Operation, Outcome, Tag, check};
use prefd_tests::random::{Random, seeds};

use Condition::{Absent, Always, Matches};

/// An operation from one instant to another.
fn at(called: u64, returned: u64, action: Action, outcome: Outcome) -> Operation {
    Operation {
        connection: 0,
        called,
        returned,
        action,
        outcome,
    }
}

fn put(called: u64, returned: u64, value: u64, tag: Tag) -> Operation {
    put_if(called, returned, value, Always, tag)
}

fn put_if(called: u64, returned: u64, value: u64, condition: Condition, tag: Tag) -> Operation {
    let outcome = Outcome::Done(Some(tag));
    at(called, returned, Action::Put(value, condition), outcome)
}

fn delete(called: u64, returned: u64) -> Operation {
    at(
        called,
        returned,
        Action::Delete(Always),
        Outcome::Done(None),
    )
}

fn lost(called: u64, action: Action) -> Operation {
    at(called, 0, action, Outcome::Unknown)
}

fn read(called: u64, returned: u64, value: u64, tag: Tag) -> Operation {
    let outcome = Outcome::Found(tag, Some(value));
    at(called, returned, Action::Read, outcome)
}

fn head(called: u64, returned: u64, tag: Tag) -> Operation {
    at(called, returned, Action::Read, Outcome::Found(tag, None))
}

fn nothing(called: u64, returned: u64) -> Operation {
    at(called, returned, Action::Read, Outcome::Nothing)
}

fn accepts(story: &str, history: &[Operation]) {
    if let Err(violation) = check(history) {
        panic!("{story}: {violation}");
    }
}

fn refuses(story: &str, history: &[Operation]) {
    assert!(check(history).is_err(), "{story}: it was accepted");
}

#[test]
fn what_a_register_can_show_is_accepted() {
    accepts("nothing happened", &[]);
    accepts(
        "a read beside a write sees either",
        &[
            put(0, 1, 1, 1),
            put(10, 20, 2, 2),
            read(11, 19, 1, 1),
            read(12, 18, 2, 2),
            read(21, 22, 2, 2),
        ],
    );
    accepts(
        "writes beside each other take effect in the order of their tags",
        &[put(0, 10, 1, 2), put(0, 10, 2, 1), read(11, 12, 1, 2)],
    );
    accepts(
        "a delete, and a conditional put of what is absent",
        &[
            put(0, 1, 1, 4),
            delete(2, 3),
            nothing(4, 5),
            put_if(6, 7, 2, Absent, 6),
        ],
    );
    accepts(
        "of two writers with one tag, one wins",
        &[
            put(0, 1, 1, 1),
            put_if(2, 9, 2, Matches(1), 3),
            at(2, 9, Action::Put(3, Matches(1)), Outcome::Failed(Some(3))),
        ],
    );
    accepts(
        "a copy that is as new as it can be",
        &[
            put(0, 1, 1, 1),
            at(2, 3, Action::ReadUnless(1), Outcome::Unchanged(1)),
        ],
    );
}

#[test]
fn a_write_whose_answer_was_lost_may_take_effect_later_or_never() {
    let put_lost = lost(2, Action::Put(2, Always));
    accepts(
        "never",
        &[put(0, 1, 1, 1), put_lost.clone(), read(30, 31, 1, 1)],
    );
    accepts(
        "much later",
        &[
            put(0, 1, 1, 1),
            put_lost.clone(),
            read(10, 11, 1, 1),
            read(20, 21, 2, 5),
        ],
    );
    accepts(
        "by its tag alone, which is then its own",
        &[
            put(0, 1, 1, 1),
            put_lost.clone(),
            head(20, 21, 5),
            read(22, 23, 2, 5),
        ],
    );
    accepts(
        "a delete",
        &[
            put(0, 1, 1, 1),
            lost(2, Action::Delete(Always)),
            read(3, 4, 1, 1),
            nothing(5, 6),
        ],
    );
    accepts(
        "under a condition that held",
        &[
            put(0, 1, 1, 1),
            lost(2, Action::Put(2, Matches(1))),
            read(5, 6, 2, 2),
        ],
    );
    refuses(
        "before it was called",
        &[read(0, 1, 2, 5), put_lost.clone()],
    );
    refuses(
        "under a condition that did not hold any more",
        &[
            put(0, 1, 1, 1),
            put(2, 3, 2, 2),
            lost(4, Action::Put(3, Matches(1))),
            read(5, 6, 3, 3),
        ],
    );
    refuses(
        "again, once it was replaced",
        &[
            put_lost.clone(),
            read(10, 11, 2, 5),
            put(12, 13, 3, 6),
            read(14, 15, 2, 5),
        ],
    );
    refuses(
        "under two tags",
        &[put_lost, read(10, 11, 2, 5), read(12, 13, 2, 6)],
    );
}

#[test]
fn what_no_register_shows_is_refused() {
    refuses(
        "a stale read",
        &[put(0, 1, 1, 1), put(2, 3, 2, 2), read(4, 5, 1, 1)],
    );
    refuses("a lost write", &[put(0, 1, 1, 1), nothing(2, 3)]);
    refuses(
        "a lost update: both writers were told that the first was current",
        &[
            put(0, 1, 1, 1),
            put_if(2, 9, 2, Matches(1), 2),
            put_if(2, 9, 3, Matches(1), 3),
        ],
    );
    refuses(
        "two winners where nothing is stored",
        &[put_if(0, 9, 1, Absent, 1), put_if(0, 9, 2, Absent, 2)],
    );
    refuses(
        "a value never written",
        &[put(0, 1, 1, 1), read(2, 3, 9, 1)],
    );
    refuses(
        "a read that goes back",
        &[
            put(0, 1, 1, 1),
            put(2, 20, 2, 2),
            read(3, 4, 2, 2),
            read(5, 6, 1, 1),
        ],
    );
    refuses(
        "what was deleted is back",
        &[put(0, 1, 1, 1), delete(2, 3), read(4, 5, 1, 1)],
    );
    refuses(
        "a condition that held and failed",
        &[
            put(0, 1, 1, 1),
            at(2, 3, Action::Put(2, Matches(1)), Outcome::Failed(Some(1))),
        ],
    );
    refuses(
        "a failure that tells an old tag",
        &[
            put(0, 1, 1, 1),
            put(2, 3, 2, 2),
            at(4, 5, Action::Delete(Matches(7)), Outcome::Failed(Some(1))),
        ],
    );
    refuses(
        "a copy that is out of date called the newest",
        &[
            put(0, 1, 1, 1),
            put(2, 3, 2, 2),
            at(4, 5, Action::ReadUnless(1), Outcome::Unchanged(1)),
        ],
    );
}

#[test]
fn tags_belong_to_one_write_and_grow() {
    refuses("one tag twice", &[put(0, 1, 1, 1), put(2, 3, 2, 1)]);
    refuses("a tag that is lower", &[put(0, 1, 1, 2), put(2, 3, 2, 1)]);
    refuses(
        "a tag that a lost write had is given out again",
        &[
            lost(0, Action::Put(1, Always)),
            read(1, 2, 1, 5),
            put(3, 4, 2, 5),
        ],
    );
    refuses(
        "the same, and only its tag was seen",
        &[
            lost(0, Action::Put(1, Always)),
            head(1, 2, 5),
            put(3, 4, 2, 5),
        ],
    );
    refuses("a tag of nobody", &[put(0, 1, 1, 1), head(2, 3, 2)]);
}

#[test]
fn a_violation_is_told_by_the_operations_that_make_it() {
    let mut history = Vec::new();
    for index in 0..300 {
        let begin = index * 100;
        history.push(put(begin, begin + 90, index + 1, index * 2 + 1));
        history.push(read(begin + 91, begin + 95, index + 1, index * 2 + 1));
    }
    history.push(delete(30_000, 30_001));
    history.push(lost(30_002, Action::Delete(Always)));
    accepts("the whole", &history);
    // The read behind put 201 tells what put 200 wrote.
    history[401].outcome = Outcome::Found(399, Some(200));
    let violation = check(&history).unwrap_err();
    let told = violation.to_string();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(
        lines[0], "not linearizable; of 602 operations these 3 suffice:",
        "{told}"
    );
    for (line, words) in lines[1..].iter().zip([
        ": put 200 -> done, \"399\"",
        ": put 201 -> done, \"401\"",
        ": read -> 200, \"399\"",
    ]) {
        assert!(line.ends_with(words), "{told}");
    }
}

/// The longest history of which every order is tried.
const MAX_OPERATIONS: u64 = 6;

/// Whether any order of the operations, with any tags for the puts whose answer was
/// lost, is one that a namespace shows. Says itself what a namespace shows.
fn some_order_fits(history: &[Operation]) -> bool {
    let mut tags: Vec<Option<Tag>> = (1..=2 * MAX_OPERATIONS).map(Some).collect();
    tags.push(None);
    let unknown: Vec<usize> = (0..history.len())
        .filter(|index| {
            matches!(history[*index].action, Action::Put(..))
                && history[*index].outcome == Outcome::Unknown
        })
        .collect();
    let combinations = tags.len().pow(unknown.len() as u32);
    (0..combinations).any(|mut combination| {
        let mut given = vec![None; history.len()];
        for index in &unknown {
            given[*index] = tags[combination % tags.len()];
            combination /= tags.len();
        }
        let left: Vec<usize> = (0..history.len()).collect();
        order_fits(history, &given, &left, None, 0)
    })
}

/// Whether what is `left` can follow, where (value, tag) is stored. `None` for a tag
/// that nobody is told.
fn order_fits(
    history: &[Operation],
    given: &[Option<Tag>],
    left: &[usize],
    stored: Option<(u64, Option<Tag>)>,
    newest: Tag,
) -> bool {
    let is_lost = |index: &usize| history[*index].outcome == Outcome::Unknown;
    if left.iter().all(is_lost) {
        return true;
    }
    left.iter().any(|index| {
        let operation = &history[*index];
        let others: Vec<usize> = left.iter().copied().filter(|o| o != index).collect();
        let is_late = others
            .iter()
            .any(|other| !is_lost(other) && history[*other].returned < operation.called);
        if is_late {
            return false;
        }
        let tag = stored.and_then(|(_, tag)| tag);
        let holds = |condition| match condition {
            Always => true,
            Matches(wanted) => tag == Some(wanted),
            Absent => stored.is_none(),
        };
        let (after, newest) = match (operation.action, operation.outcome) {
            (Action::Put(value, condition), Outcome::Done(Some(tag)))
                if holds(condition) && tag > newest =>
            {
                (Some((value, Some(tag))), tag)
            }
            (Action::Put(value, condition), Outcome::Unknown) if holds(condition) => {
                match given[*index] {
                    Some(tag) if tag <= newest => return false,
                    Some(tag) => (Some((value, Some(tag))), tag),
                    None => (Some((value, None)), newest),
                }
            }
            (Action::Delete(condition), Outcome::Done(None) | Outcome::Unknown)
                if holds(condition) =>
            {
                (None, newest)
            }
            (Action::Put(_, condition) | Action::Delete(condition), Outcome::Failed(told))
                if !holds(condition) && told == tag && told.is_some() == stored.is_some() =>
            {
                (stored, newest)
            }
            (Action::Read, Outcome::Found(told, value))
                if tag == Some(told) && value.is_none_or(|v| stored.unwrap().0 == v) =>
            {
                (stored, newest)
            }
            (Action::Read | Action::ReadUnless(_), Outcome::Nothing) if stored.is_none() => {
                (stored, newest)
            }
            (Action::ReadUnless(unless), Outcome::Found(told, value))
                if tag == Some(told)
                    && told != unless
                    && value.is_none_or(|v| stored.unwrap().0 == v) =>
            {
                (stored, newest)
            }
            (Action::ReadUnless(unless), Outcome::Unchanged(told))
                if tag == Some(told) && told == unless =>
            {
                (stored, newest)
            }
            _ => return false,
        };
        order_fits(history, given, &others, after, newest)
    })
}

/// What a namespace shows to a few clients; with luck, one thing in it is then changed.
fn small_history(random: &mut Random) -> Vec<Operation> {
    let mut history = Vec::new();
    let (mut stored, mut revision) = (None::<(u64, Tag)>, 0);
    for index in 0..=random.below(MAX_OPERATIONS) {
        // It takes effect at `instant`, and lasts for some time around it.
        let instant = 20 + index * 10;
        let called = instant - random.below(20);
        let returned = instant + random.below(20);
        let tag = stored.map(|(_, tag)| tag);
        let guess = 1 + random.below(revision + 1);
        let condition = *random.pick(&[Always, Matches(guess), Absent]);
        let holds = match condition {
            Always => true,
            Matches(guess) => tag == Some(guess),
            Absent => tag.is_none(),
        };
        let value = index + 1;
        let (action, outcome) = match random.below(6) {
            0..3 if holds => {
                revision += 1 + random.below(2);
                stored = Some((value, revision));
                let outcome = Outcome::Done(Some(revision));
                (Action::Put(value, condition), outcome)
            }
            0..3 => (Action::Put(value, condition), Outcome::Failed(tag)),
            3 if holds => {
                stored = None;
                (Action::Delete(condition), Outcome::Done(None))
            }
            3 => (Action::Delete(condition), Outcome::Failed(tag)),
            4 if tag == Some(guess) => (Action::ReadUnless(guess), Outcome::Unchanged(guess)),
            kind => {
                let outcome = stored.map_or(Outcome::Nothing, |(value, tag)| {
                    Outcome::Found(tag, (kind == 5).then_some(value))
                });
                (Action::Read, outcome)
            }
        };
        let is_lost = random.below(4) == 0;
        let outcome = if is_lost { Outcome::Unknown } else { outcome };
        history.push(at(called, returned, action, outcome));
    }
    if random.below(3) > 0 {
        let changed = random.below(history.len() as u64) as usize;
        let operation = &mut history[changed];
        match (&mut operation.outcome, random.below(2)) {
            (Outcome::Found(tag, _) | Outcome::Done(Some(tag)), 0) => *tag = 1 + random.below(6),
            (Outcome::Found(_, Some(value)), _) => *value = 1 + random.below(6),
            (Outcome::Failed(tag), _) => *tag = Some(1 + random.below(6)),
            _ => {
                let shift = random.below(40);
                operation.called += shift;
                operation.returned += shift;
            }
        }
    }
    history
}

#[test]
fn it_agrees_with_a_judge_that_tries_every_order() {
    let mut judged = [0, 0];
    for seed in seeds(3_000) {
        let history = small_history(&mut Random::new(seed));
        let fits = some_order_fits(&history);
        let found = check(&history);
        assert_eq!(found.is_ok(), fits, "seed {seed}: {history:#?}");
        if let Err(violation) = found {
            // What is told must be wrong by itself.
            assert!(
                !some_order_fits(&violation.window),
                "seed {seed}: {violation}"
            );
        }
        judged[usize::from(fits)] += 1;
    }
    if std::env::var_os("PREFD_TEST_SEED").is_none() {
        let [refused, accepted] = judged;
        assert!(
            refused * 10 > accepted && accepted * 10 > refused,
            "too few of one sort: {judged:?}"
        );
    }
}
