//! The jobs of the committer. Jobs are plain data: the maintenance layer creates the jobs, and the
//! committer executes them.

use std::sync::mpsc::SyncSender;

use crate::format::frame::encoded::EncodedFrame;
use crate::format::location::FrameLocation;
use crate::model::error::Result;
use crate::model::ids::{BlobId, SegmentId};
use crate::model::limits::Usage;
use crate::model::names::{Names, NamespaceHash};
use crate::storage::log::LogImage;
use crate::storage::pins::Pin;

/// Maximum number of frames in one [`JobTask::Copy`].
pub(crate) const MAX_COPIED_FRAMES: usize = 1024;

/// A task for the committer, with the channel for its outcome.
pub(crate) struct CommitJob {
    pub(crate) task: JobTask,
    /// True if the task may use the space of the reserve. The reserve may be used to rewrite a
    /// segment whose copies fit into three quarters of the reserve, and to seal segments during an
    /// erasure.
    pub(crate) may_use_reserve: bool,
    /// The channel for the outcome. If the committer panics, the channel is dropped without an
    /// outcome.
    pub(crate) done: SyncSender<Result<()>>,
}

pub(crate) enum JobTask {
    /// Append copies of the listed frames that are still current.
    Copy(Vec<FrameCopy>),
    /// Remove a segment from the log. The segment must contain no current frames except the
    /// tombstones in `deletes`.
    Retire {
        segment: SegmentId,
        deletes: Vec<(NamespaceHash, FrameLocation)>,
    },
    /// Seal the active segment.
    Seal,
}

/// A frame to be copied to the end of the log.
pub(crate) struct FrameCopy {
    pub(crate) from: FrameLocation,
    pub(crate) names: Names,
    pub(crate) frame: EncodedFrame,
    pub(crate) usage: Usage,
    pub(crate) modified_ms: u64,
}

/// The state of the store between two batches.
pub(crate) struct SnapshotPoint {
    pub(crate) image: LogImage,
    /// The blobs that current frames refer to, sorted by id.
    pub(crate) blobs: Vec<BlobId>,
    pub(crate) documents: u64,
    pub(crate) damaged_frames: u64,
    pub(crate) pin: Pin,
}

/// The channel for a snapshot point. If the committer panics, the channel is dropped without a
/// snapshot point.
pub(crate) type SnapshotRequest = SyncSender<SnapshotPoint>;
