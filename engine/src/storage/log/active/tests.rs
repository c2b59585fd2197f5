use bytes::Bytes;

use crate::format::frame::header::FrameKind;
use crate::model::names::NamespaceHash;
use crate::platform::fs::Disk;
use crate::storage::log::active::*;

#[test]
fn image_excludes_the_unfinished_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut active = ActiveSegment::create(&Disk, dir.path(), SegmentId::FIRST, 7).unwrap();
    let names = Names::new("user", "client").unwrap();
    let hash = NamespaceHash::of(&[0; 16], "user", "client");
    let frame = EncodedFrame::new(
        FrameKind::Delete,
        hash,
        ("user", "client"),
        &[],
        Bytes::new(),
    );
    let write = FrameWrite {
        names: &names,
        frame: &frame.unwrap(),
        usage: Usage::default(),
        modified_ms: 0,
    };
    let mut images = Vec::new();
    for revision in [5, 6] {
        active.begin_batch();
        active.append_new(&write, revision).unwrap();
        images.push(active.image());
        active.end_batch();
    }
    images.push(active.image());
    let seen = images.iter();
    let seen: Vec<_> = seen.map(|(s, b)| (s.last_revision, b.len())).collect();
    assert_eq!(seen, [(0, 0), (5, 1), (6, 2)]);
    let lengths = images.iter().map(|(sealed, _)| sealed.bytes);
    assert!(lengths.is_sorted_by(|a, b| a < b));
}
