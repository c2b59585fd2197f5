//! The relation between revisions and times: the first revision after an open contains the time of
//! the open.

/// 2020-01-01 UTC, in milliseconds since 1970-01-01 UTC.
pub(crate) const EPOCH_MS: u64 = 1_577_836_800_000;
/// Number of revisions per millisecond, as a power of two. A store would have to commit 2²¹ writes
/// in each millisecond before its revisions reach the first revision of a copy that is opened
/// later. The revisions stay below 2⁶³ until the year 2159.
pub(crate) const MS_SHIFT: u32 = 21;

/// Returns the time that a revision contains, in milliseconds since 1970-01-01 UTC. Usually, the
/// store was opened at this time. Frame headers contain the time of a write as the difference from
/// this time, which is a small number.
pub(crate) fn time_of_revision_ms(revision: u64) -> u64 {
    EPOCH_MS + (revision >> MS_SHIFT)
}
