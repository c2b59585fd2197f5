//! Documents against every limit: the engine's verdict is that of `serde_json` and of
//! the limits taken literally (`judgement.rs`); it is the same for every way of cutting
//! the body, and for the way in of what is whole; and what was accepted is read back as
//! it was sent.

use std::cell::RefCell;
use std::collections::HashMap;

use prefd_engine::{Engine, Error, Limits, Prepared, Violation, WriteOptions, check};

use crate::oracle::document_shape;
use crate::oracle::judgement::{Rule, decoded, judgement, members};
use crate::oracle::stage::Stage;
use crate::oracle::{Choices, choices};

/// A document, the limits it is to be judged by, and how it arrives.
#[derive(Debug, Clone)]
pub struct Case {
    /// Which of [`limits`].
    pub limits: usize,
    /// Which of [`INLINE_BYTES`].
    pub inline: usize,
    /// The body.
    pub body: Vec<u8>,
    /// Where it is cut, in order.
    pub cuts: Vec<usize>,
}

/// Inline sizes: everything goes to a blob, some does in the middle of a key or a
/// value, nothing does.
pub const INLINE_BYTES: [u32; 4] = [0, 12, 40, 1 << 20];

/// Sets of limits: small ones, so that a few bytes are at each; the nesting that is
/// allowed by default; and values of several checksummed pieces.
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

/// Judges a whole input: choices (see [`crate::oracle`]), or a body as it is.
pub fn run(input: &[u8]) {
    if let Some((limits, mut choices)) = choices(input) {
        let limits = usize::from(limits) % 4;
        let body = document_shape::body(&mut choices, &self::limits()[limits]);
        let inline = choices.upto(INLINE_BYTES.len() - 1);
        let cuts = document_shape::cuts(&mut choices, body.len());
        return judge(&Case {
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
            judge(&Case {
                limits,
                inline,
                body: input.to_vec(),
                cuts,
            });
        }
    }
}

/// Judges one document, in whole and as it is cut.
///
/// # Panics
/// Where the engine judges otherwise.
pub fn judge(case: &Case) {
    let limits = &limits()[case.limits];
    let shown = || {
        let (body, cuts) = (String::from_utf8_lossy(&case.body), &case.cuts);
        format!("{body:?}, limits {}, cut at {cuts:?}", case.limits)
    };
    let whole = check(&case.body, limits);
    let expected = judgement(&case.body, limits);
    match (&whole, &expected) {
        (Ok(usage), Ok(text)) => {
            assert_eq!(usage.bytes, text.len() as u64, "{}", shown());
        }
        (Err(violation), Err(possible)) => {
            let found = (kind(violation), offset(violation));
            let fits = possible
                .iter()
                .any(|p| p.kind == found.0 && p.at.contains(&found.1));
            assert!(fits, "{violation:?}, and not {possible:?}: {}", shown());
        }
        _ => panic!("{whole:?}, and not {expected:?}: {}", shown()),
    }
    with_engine(case.limits, case.inline, |engine| {
        let cut = stream(engine, &case.body, &case.cuts);
        assert_eq!(
            cut.as_ref().map(Prepared::usage),
            whole.as_ref().map(|usage| *usage),
            "{}",
            shown()
        );
        let at_once = engine.prepare(&case.body).map_err(rejected);
        assert_eq!(
            at_once.as_ref().map(Prepared::usage),
            whole.as_ref().map(|usage| *usage),
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

/// Takes `body` in through a writer, cut as `cuts` says.
///
/// # Errors
/// The violation it is refused for.
///
/// # Panics
/// Where it fails otherwise.
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
        other => panic!("{other}"),
    }
}

/// Commits a document and reads it: whole, its keys, and each value.
fn read_back(engine: &Engine, document: Prepared, text: &str, shown: &dyn Fn() -> String) {
    let namespace = engine.namespace("u", "c").unwrap();
    namespace.write(document, WriteOptions::default()).unwrap();
    let stored = namespace.get().unwrap().expect("it was put");
    let whole = stored.read().unwrap();
    assert!(whole == text.as_bytes(), "read back changed: {}", shown());
    let members = members(text).expect("it was accepted");
    let keys: Vec<String> = members.iter().map(|(key, _)| decoded(key)).collect();
    assert_eq!(stored.keys().collect::<Vec<_>>(), keys, "{}", shown());
    for (key, (_, value)) in keys.iter().zip(&members) {
        let chunks = stored.value(key).expect("it has the key");
        let found: Vec<u8> = chunks.flat_map(|chunk| chunk.unwrap()).collect();
        assert!(found == value.get().as_bytes(), "{key:?}: {}", shown());
    }
}

fn with_engine<T>(limits: usize, inline: usize, act: impl FnOnce(&Engine) -> T) -> T {
    thread_local! {
        static STAGES: RefCell<HashMap<(usize, usize), Stage>> = RefCell::default();
    }
    STAGES.with_borrow_mut(|stages| {
        let stage = stages.entry((limits, inline)).or_insert_with(|| {
            Stage::new(move |config| {
                config.limits = self::limits()[limits].clone();
                config.inline_bytes = INLINE_BYTES[inline];
            })
        });
        act(stage.take().0)
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
        other => panic!("{other:?}"),
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
        other => panic!("{other:?}"),
    };
    usize::try_from(offset).unwrap()
}
