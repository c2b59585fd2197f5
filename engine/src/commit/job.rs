//! The jobs that maintenance gives to the committer. Jobs are plain data: maintenance creates them,
//! and the committer executes them.

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
    /// True if the task may use the space of the reserve. Set for the rewrite of a segment whose
    /// copies fit into the reserve, and for the seal that precedes an erasure.
    pub(crate) may_use_reserve: bool,
    /// The channel for the outcome. A closed engine drops the channel without an outcome.
    pub(crate) done: SyncSender<Result<()>>,
}

pub(crate) enum JobTask {
    /// Append copies of the frames that are still current.
    Copy(Vec<FrameCopy>),
    /// Remove a segment from the log. The only current frames of the segment must be `deletes`.
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

/// The channel for a snapshot point. A closed engine drops the channel without a snapshot point.
pub(crate) type SnapshotRequest = SyncSender<SnapshotPoint>;
