use std::collections::HashMap;

use crate::index::table::slots::*;

fn entry(revision: u64) -> FrameLocation {
    FrameLocation {
        revision,
        segment: SegmentId::new(3),
        offset: Offset::from_u32(28),
        bytes: 7,
        kind: EntryKind::Put,
    }
}

#[test]
fn slot_has_40_bytes_and_preserves_an_entry() {
    assert_eq!(size_of::<Slot>(), 40);
    let hash = NamespaceHash::of(&[7; 16], "u", "c");
    let kinds = [
        EntryKind::Put,
        EntryKind::PutWithMetadata,
        EntryKind::Delete,
        EntryKind::Damaged,
    ];
    for kind in kinds {
        let entry = FrameLocation {
            revision: u64::MAX,
            segment: SegmentId::new(u32::MAX - 1),
            offset: Offset::from_u32(u32::MAX - 2),
            bytes: FrameLocation::MAX_BYTES,
            kind,
        };
        assert_eq!(Slot::new(hash, &entry, None).entry(), entry);
    }
}

#[test]
fn slots_behave_like_a_map() {
    let mut slots = Slots::default();
    let mut model = HashMap::new();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    for step in 0..60_000_u64 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let n = random % 700;
        let hash = NamespaceHash::of(&[7; 16], &n.to_string(), "c");
        let found = slots.get(hash).map(|slot| slot.entry().revision);
        assert_eq!(found, model.get(&n).copied());
        if (random >> 32).is_multiple_of(3) {
            let removed = slots.remove(hash).map(|slot| slot.entry().revision);
            assert_eq!(removed, model.remove(&n));
        } else if let Some(slot) = slots.get_mut(hash) {
            *slot = Slot::new(hash, &entry(step), None);
            model.insert(n, step);
        } else {
            slots.insert(Slot::new(hash, &entry(step), None));
            model.insert(n, step);
        }
        assert_eq!(slots.len, model.len());
    }
    assert_eq!(slots.iter().count(), model.len());
    let odd = |slot: &Slot| slot.entry().revision % 2 == 1;
    let moved = slots.split_off(odd);
    assert!(moved.iter().all(odd) && !slots.iter().any(odd));
    for (n, revision) in &model {
        let hash = NamespaceHash::of(&[7; 16], &n.to_string(), "c");
        let half = if revision % 2 == 1 { &moved } else { &slots };
        assert_eq!(half.get(hash).map(|s| s.entry().revision), Some(*revision));
    }
}

#[test]
fn load_factor_is_high_at_any_size() {
    let mut slots = Slots::default();
    for n in 0..5000_u64 {
        let hash = NamespaceHash::of(&[7; 16], &n.to_string(), "c");
        slots.insert(Slot::new(hash, &entry(n), None));
        let taken = slots.len * 100 / slots.slots.len();
        let least = if n < 100 { 10 } else { 77 };
        assert!(
            (least..=MAX_LOAD_PERCENT).contains(&taken),
            "{taken} % of {n}"
        );
    }
}
