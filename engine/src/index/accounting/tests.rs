use crate::index::accounting::*;

const SEGMENT: u64 = 1000;

fn entry(segment: u32, kind: EntryKind, bytes: u32) -> FrameLocation {
    FrameLocation {
        revision: 1,
        segment: SegmentId::new(segment),
        offset: crate::model::ids::Offset::from_u32(28),
        bytes,
        kind,
    }
}

fn victim(segments: &SegmentUsages) -> Option<u32> {
    segments.victim(SEGMENT).map(|victim| victim.id.get())
}

/// Creates full segments that contain only puts. `stale` lists the number of stale bytes in each
/// segment.
fn segments(stale: &[u32]) -> SegmentUsages {
    let mut segments = SegmentUsages::default();
    for (id, stale) in (1..).zip(stale) {
        for bytes in [*stale, 1000 - stale]
            .into_iter()
            .filter(|bytes| *bytes > 0)
        {
            segments.appended(&entry(id, EntryKind::Put, bytes));
        }
        if *stale > 0 {
            segments.superseded(&entry(id, EntryKind::Put, *stale));
        }
    }
    // Segment 100 becomes the active segment.
    segments.appended(&entry(100, EntryKind::Put, 1));
    segments
}

#[test]
fn stale_bytes_are_tolerated_up_to_the_limit() {
    assert_eq!(victim(&segments(&[400, 300, 300])), None);
    assert_eq!(victim(&segments(&[500, 700, 600])), Some(2));
}

#[test]
fn segment_without_current_frames_is_the_first_victim() {
    assert_eq!(victim(&segments(&[0, 0, 0, 1000])), Some(4));
}

#[test]
fn active_damaged_and_deferred_segments_are_never_victims() {
    let mut segments = segments(&[900, 800]);
    segments.mark_damaged(SegmentId::new(1));
    assert_eq!(victim(&segments), Some(2));
    segments.defer(SegmentId::new(2));
    assert_eq!(victim(&segments), None);
    let active = entry(100, EntryKind::Put, 1);
    segments.superseded(&active);
    assert_eq!(victim(&segments), None);
}

#[test]
fn needed_tombstones_count_only_after_a_segment_is_removed() {
    let mut segments = segments(&[0, 1000]);
    for _ in 0..10 {
        segments.appended(&entry(3, EntryKind::Delete, 100));
    }
    segments.appended(&entry(100, EntryKind::Put, 1));
    segments.retired(SegmentId::new(2));
    assert_eq!(victim(&segments), Some(3));
    segments.mark_tombstones_needed(SegmentId::new(3));
    assert_eq!(victim(&segments), None);
    segments.retired(SegmentId::new(1));
    assert_eq!(victim(&segments), Some(3));
}

#[test]
fn short_segments_are_merged_above_the_limit() {
    let mut segments = SegmentUsages::default();
    for id in 1..=8 {
        segments.appended(&entry(id, EntryKind::Put, 10));
    }
    segments.appended(&entry(100, EntryKind::Put, 1));
    assert_eq!(victim(&segments), None);
    segments.appended(&entry(101, EntryKind::Put, 1));
    assert_eq!(victim(&segments), Some(1));
}
