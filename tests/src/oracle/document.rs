//! The oracle for documents and limits:
//!
//! - The engine accepts and rejects the same documents as the reference validator
//!   (`reference_validator.rs`).
//! - The result does not depend on how the body is split, or on whether it is written in one pass.
//! - An accepted document is read back as it was sent.

use std::cell::RefCell;
use std::collections::HashMap;

use prefd_engine::{Engine, Error, Limits, Prepared, Violation, WriteOptions, check};

use crate::oracle::document_generator;
use crate::oracle::reference_validator::{Rule, decoded, members, validate};
use crate::oracle::reusable_store::ReusableStore;
use crate::oracle::{Choices, choices};

/// A document, the limits for it, and the offsets at which it is split.
#[derive(Debug, Clone)]
pub struct Case {
    /// Index into [`limits`].
    pub limits: usize,
    /// Index into [`INLINE_BYTES`].
    pub inline: usize,
    /// The body of the document.
    pub body: Vec<u8>,
    /// Offsets at which the body is split, in ascending order.
    pub cuts: Vec<usize>,
}

/// Inline sizes. With 0, every document is stored in a blob. With 12 or 40, the threshold is
/// reached within a key or a value. With 1 MiB, every document is stored inline.
pub const INLINE_BYTES: [u32; 4] = [0, 12, 40, 1 << 20];

/// The limits that the oracle uses: small ones that a few bytes reach, medium ones, the default
/// nesting depth, and values that have several checksums.
pub fn limits() -> [Limits; 4] {
    let mut small = Limits::new(3, 8, 24);
    small.max_body_bytes = 160;
    small.max_depth = 4;
    let mut medium = Limits::new(10, 128, 64);
    medium.max_body_bytes = 4096;
    let deep = Limits::new(4, 16, 300);
    let large = Limits::new(2, 16, 70_000);
    [small, medium, deep, large]
}

/// Runs the oracle on an input, which is a list of choices (see [`crate::oracle`]) or a body.
pub fn run(input: &[u8]) {
    if let Some((limits, mut choices)) = choices(input) {
        let limits = usize::from(limits) % 4;
        let body = document_generator::body(&mut choices, &self::limits()[limits]);
        let inline = choices.upto(INLINE_BYTES.len() - 1);
        let cuts = document_generator::cuts(&mut choices, body.len());
        return check_case(&Case {
            limits,
            inline,
            body,
            cuts,
        });
    }
    let every_byte: Vec<usize> = (0..input.len()).collect();
    for limits in [0, 1] {
        for (inline, cuts) in [
            (0, vec![input.len() / 2]),
            (1, every_byte.clone()),
            (3, vec![input.len() / 3, input.len() / 2]),
        ] {
            check_case(&Case {
                limits,
                inline,
                body: input.to_vec(),
                cuts,
            });
        }
    }
}

/// Checks one document, in one piece and split.
///
/// # Panics
/// Panics if the engine disagrees with the reference validator.
pub fn check_case(case: &Case) {
    let limits = &limits()[case.limits];
    let shown = || {
        let (body, cuts) = (String::from_utf8_lossy(&case.body), &case.cuts);
        format!("{body:?}, limits {}, cut at {cuts:?}", case.limits)
    };
    let in_one_piece = check(&case.body, limits);
    let expected = validate(&case.body, limits);
    match (&in_one_piece, &expected) {
        (Ok(usage), Ok(text)) => {
            assert_eq!(usage.bytes, text.len() as u64, "{}", shown());
        }
        (Err(violation), Err(possible)) => {
            let found = (kind(violation), offset(violation));
            let fits = possible
                .iter()
                .any(|p| p.kind == found.0 && p.at.contains(&found.1));
            assert!(
                fits,
                "the engine reports {violation:?}, expected one of {possible:?}: {}",
                shown()
            );
        }
        _ => panic!(
            "the engine returns {in_one_piece:?}, expected {expected:?}: {}",
            shown()
        ),
    }
    with_engine(case.limits, case.inline, |engine| {
        let cut = stream(engine, &case.body, &case.cuts);
        assert_eq!(
            cut.as_ref().map(Prepared::usage),
            in_one_piece.as_ref().map(|usage| *usage),
            "{}",
            shown()
        );
        let at_once = engine.prepare(&case.body).map_err(rejected);
        assert_eq!(
            at_once.as_ref().map(Prepared::usage),
            in_one_piece.as_ref().map(|usage| *usage),
            "{}",
            shown()
        );
        for document in [cut, at_once] {
            if let (Ok(document), Ok(text)) = (document, &expected) {
                read_back(engine, document, text, &shown);
            }
        }
    });
}

/// Writes `body` to a writer, split at the offsets in `cuts`.
///
/// # Errors
/// Returns the violation if the engine rejects the document.
///
/// # Panics
/// Panics on any other error.
pub fn stream(engine: &Engine, body: &[u8], cuts: &[usize]) -> Result<Prepared, Violation> {
    let mut writer = engine.writer();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([body.len()]) {
        writer.write(&body[from..cut]).map_err(rejected)?;
        from = cut;
    }
    writer.finish().map_err(rejected)
}

fn rejected(error: Error) -> Violation {
    match error {
        Error::Rejected(violation) => violation,
        other => panic!("expected a rejected document: {other}"),
    }
}

/// Commits a document. Then reads the complete document, its keys, and each value.
fn read_back(engine: &Engine, document: Prepared, text: &str, shown: &dyn Fn() -> String) {
    let namespace = engine.namespace("u", "c").unwrap();
    namespace.write(document, WriteOptions::default()).unwrap();
    let stored = namespace.get().unwrap().expect("the document was just put");
    let read_back = stored.read().unwrap();
    assert!(
        read_back == text.as_bytes(),
        "the document read back differs from the one written: {}",
        shown()
    );
    let members = members(text).expect("an accepted document is valid");
    let keys: Vec<String> = members.iter().map(|(key, _)| decoded(key)).collect();
    assert_eq!(stored.keys().collect::<Vec<_>>(), keys, "{}", shown());
    for (key, (_, value)) in keys.iter().zip(&members) {
        let chunks = stored.value(key).expect("the document has the key");
        let found: Vec<u8> = chunks.flat_map(|chunk| chunk.unwrap()).collect();
        assert!(found == value.get().as_bytes(), "{key:?}: {}", shown());
    }
}

fn with_engine<T>(limits: usize, inline: usize, act: impl FnOnce(&Engine) -> T) -> T {
    thread_local! {
        static STORES: RefCell<HashMap<(usize, usize), ReusableStore>> = RefCell::default();
    }
    STORES.with_borrow_mut(|stores| {
        let store = stores.entry((limits, inline)).or_insert_with(|| {
            ReusableStore::new(move |config| {
                config.limits = self::limits()[limits].clone();
                config.inline_bytes = INLINE_BYTES[inline];
            })
        });
        act(store.take().0)
    })
}

fn kind(violation: &Violation) -> Rule {
    match violation {
        Violation::Json { .. } => Rule::Json,
        Violation::NotAnObject { .. } => Rule::NotAnObject,
        Violation::DuplicateKey { .. } => Rule::DuplicateKey,
        Violation::TooManyKeys { .. } => Rule::TooManyKeys,
        Violation::KeyTooLong { .. } => Rule::KeyTooLong,
        Violation::ValueTooLong { .. } => Rule::ValueTooLong,
        Violation::BodyTooLong { .. } => Rule::BodyTooLong,
        other => panic!("unexpected kind of violation: {other:?}"),
    }
}

fn offset(violation: &Violation) -> usize {
    let offset = match violation {
        Violation::Json { at, .. }
        | Violation::NotAnObject { at }
        | Violation::DuplicateKey { at, .. }
        | Violation::TooManyKeys { at, .. }
        | Violation::KeyTooLong { at, .. }
        | Violation::ValueTooLong { at, .. } => at.offset,
        Violation::BodyTooLong { limit, .. } => *limit,
        other => panic!("unexpected kind of violation: {other:?}"),
    };
    usize::try_from(offset).unwrap()
}
