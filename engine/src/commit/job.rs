//! What maintenance asks of the committer. Plain data: maintenance fills it, and the
//! committer carries it out.

use std::sync::mpsc::SyncSender;

use crate::format::frame::encoded::EncodedFrame;
use crate::format::location::FrameLocation;
use crate::model::error::Result;
use crate::model::ids::{BlobId, SegmentId};
use crate::model::limits::Usage;
use crate::model::names::{Names, NamespaceHash};
use crate::storage::log::LogImage;
use crate::storage::pins::Pin;

/// Maximum number of frames that one [`JobTask::Copy`] has.
pub(crate) const MAX_COPIED_FRAMES: usize = 1024;

/// A task for the committer, and where to send the outcome.
pub(crate) struct CommitJob {
    pub(crate) task: JobTask,
    /// Whether the reserve may be used. Only for tasks that free more space than they take.
    pub(crate) may_use_reserve: bool,
    /// Dropped without an outcome if the engine is closed.
    pub(crate) done: SyncSender<Result<()>>,
}

pub(crate) enum JobTask {
    /// Append copies of these frames, if they are still current.
    Copy(Vec<FrameCopy>),
    /// Take a segment out of the log in which nothing is current but these deletes.
    Retire {
        segment: SegmentId,
        deletes: Vec<(NamespaceHash, FrameLocation)>,
    },
    /// Seal the active segment.
    Seal,
}

/// A frame to be copied.
pub(crate) struct FrameCopy {
    pub(crate) from: FrameLocation,
    pub(crate) names: Names,
    pub(crate) frame: EncodedFrame,
    pub(crate) usage: Usage,
    pub(crate) modified_ms: u64,
}

/// The store between two batches.
pub(crate) struct SnapshotPoint {
    pub(crate) image: LogImage,
    /// The blobs that current frames name, sorted by id.
    pub(crate) blobs: Vec<BlobId>,
    pub(crate) documents: u64,
    pub(crate) damaged_frames: u64,
    pub(crate) pin: Pin,
}

/// Where to send a snapshot point. Dropped without one if the engine is closed.
pub(crate) type SnapshotRequest = SyncSender<SnapshotPoint>;
