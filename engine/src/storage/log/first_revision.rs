//! The first revision that an open store gives to a write.
//!
//! Copies of a store must not give the same revision to different documents, because the revision
//! of a document is also its entity tag. Copies do not know about each other. Therefore, each open
//! continues with a number that depends on the time of the open and on random bits.

use std::io;
use std::path::Path;

use crate::format::manifest::Manifest;
use crate::format::revision_time::{EPOCH_MS, MS_SHIFT};
use crate::model::error::{Error, Result};

/// Number of random bits that are added, so that copies that are opened in the same millisecond use
/// different revisions. 2³⁰ revisions correspond to half a second.
const RANDOM_BITS: u32 = 30;
/// Number of random bits of the gap that is used if the clock is wrong or has not moved. With gaps
/// of up to 2⁴⁰ revisions, a store can be opened at least 2²³ (8 million) times before it exceeds
/// the maximum revision, 2⁶³.
const GAP_BITS: u32 = 40;

/// Returns the first revision of an open store. `reserved` is the lowest revision that has not been
/// used yet according to the manifest in `dir`.
///
/// # Errors
/// [`Error::Io`] if the operating system provides no random bytes.
pub(crate) fn first_revision(dir: &Path, reserved: u64, now_ms: u64) -> Result<u64> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|error| Error::io("generate random bytes for", dir, io::Error::from(error)))?;
    Ok(from_parts(reserved, now_ms, u64::from_le_bytes(random)))
}

fn from_parts(reserved: u64, now_ms: u64, random: u64) -> u64 {
    let low_bits = |bits: u32| random & ((1 << bits) - 1);
    let since_epoch_ms = now_ms.saturating_sub(EPOCH_MS);
    let of_clock = since_epoch_ms
        .checked_mul(1 << MS_SHIFT)
        .map(|base| base.saturating_add(low_bits(RANDOM_BITS)))
        .filter(|revision| since_epoch_ms > 0 && *revision <= Manifest::MAX_REVISION);
    match of_clock {
        Some(revision) if revision > reserved => revision,
        _ => reserved.saturating_add(1 + low_bits(GAP_BITS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_796_000_000_000;

    #[test]
    fn first_revision_is_computed_from_the_clock() {
        let base = (NOW_MS - EPOCH_MS) << 21;
        assert_eq!(from_parts(1, NOW_MS, 0), base);
        assert_eq!(from_parts(1, NOW_MS, u64::MAX), base + 0x3fff_ffff);
        assert_eq!(from_parts(base - 1, NOW_MS, 0), base);
    }

    #[test]
    fn clock_that_has_not_moved_gives_a_random_gap() {
        let reserved = (NOW_MS - EPOCH_MS) << 21;
        assert_eq!(from_parts(reserved, NOW_MS, 0), reserved + 1);
        assert_eq!(
            from_parts(reserved, NOW_MS, 7 << 30),
            reserved + 1 + (7 << 30)
        );
        assert_eq!(from_parts(9, 0, u64::MAX), 9 + (1 << 40));
        assert_eq!(from_parts(u64::MAX, NOW_MS, 5), u64::MAX);
    }

    #[test]
    fn clock_after_the_year_2159_gives_a_random_gap() {
        let last_ms = EPOCH_MS + (1 << 42) - 1;
        assert_eq!(from_parts(9, last_ms, 0), ((1 << 42) - 1) << 21);
        assert_eq!(from_parts(9, last_ms + 1, 0), 10);
        assert_eq!(from_parts(9, u64::MAX, 3), 13);
    }
}
