//! File descriptors: how many connections there may be at a time, so that clients,
//! however many and however idle, never take the descriptor that the store needs.
//!
//! The system counts sockets and files alike (`RLIMIT_NOFILE`). Without a cap, idle
//! clients would take all of them, and the next segment of the log, or the blob of a
//! large document, could not be made: a write would fail that nothing is wrong with.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::store::Store;

/// What the process has open besides connections and the store: its three standard
/// streams, the listener, the connection that waits for a place, the runtime's polling
/// and signals, a key file that is read; the rest may have been inherited.
const PROCESS: u64 = 16;
/// A connection's socket, the blob of the large document that it sends or receives, and
/// one more for a moment: the folder whose names are synced, or the segment that the
/// document's place is read from.
const CONNECTION: u64 = 3;
/// Of what is left to share, segments get this part, and connections the rest.
const SEGMENTS_PART: u64 = 4;

/// How the descriptors are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// Segments of the log that are kept open for reading.
    pub(crate) open_segments: usize,
}

/// The process may not open enough files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the process may have {limit} files open (ulimit -n), and serving one connection takes \
     {needed}"
)]
pub(crate) struct TooFew {
    limit: u64,
    needed: u64,
}

impl TooFew {
    fn with(self, besides: u64) -> Self {
        Self {
            limit: self.limit + besides,
            needed: self.needed + besides,
        }
    }
}

impl Shares {
    /// Shares out what the process may open, and says so where that leaves fewer
    /// connections than `wanted`. A limit that is too low is raised, if it may be.
    /// `besides`: descriptors that others need, such as the operator's connections.
    pub(crate) fn of_process(wanted: usize, besides: u64) -> Result<Self, TooFew> {
        let limit = raised_for(wanted, besides).saturating_sub(besides);
        let shares = Self::of(limit, wanted).map_err(|few| few.with(besides))?;
        if shares.connections < wanted {
            tracing::warn!(
                connections = shares.connections,
                wanted,
                "fewer connections at a time, because of the limit on open files (ulimit -n)"
            );
        }
        Ok(shares)
    }

    /// Shares out `limit` descriptors, for up to `wanted` connections.
    fn of(limit: u64, wanted: usize) -> Result<Self, TooFew> {
        let fixed = PROCESS + Store::DESCRIPTORS;
        let left = limit.saturating_sub(fixed);
        let usual = Store::usual_open_segments();
        let open_segments = narrow(left / SEGMENTS_PART).min(usual);
        let connections = narrow((left - open_segments as u64) / CONNECTION).min(wanted);
        if open_segments == 0 || connections == 0 {
            let needed = fixed + SEGMENTS_PART;
            return Err(TooFew { limit, needed });
        }
        Ok(Self {
            connections,
            open_segments,
        })
    }
}

/// The limit on open files, raised as far as `connections` need it and it may be.
fn raised_for(connections: usize, besides: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let enough = enough_for(connections).saturating_add(besides);
    // `None` is no limit.
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = limit.maximum.map_or(enough, |maximum| maximum.min(enough));
    if raised <= current {
        return current;
    }
    let raise = Rlimit {
        current: Some(raised),
        ..limit
    };
    setrlimit(Resource::Nofile, raise).map_or(current, |()| raised)
}

/// The limit at which so many connections, and every segment that is usually kept
/// open, get their share.
fn enough_for(connections: usize) -> u64 {
    let segments = Store::usual_open_segments() as u64;
    let connections = (connections as u64).saturating_mul(CONNECTION);
    let shared = (connections.saturating_add(segments)).max(segments * SEGMENTS_PART);
    shared.saturating_add(PROCESS + Store::DESCRIPTORS)
}

fn narrow(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is taken at most.
    fn taken(shares: Shares) -> u64 {
        let connections = shares.connections as u64 * CONNECTION;
        PROCESS + Store::DESCRIPTORS + shares.open_segments as u64 + connections
    }

    #[test]
    fn never_more_is_shared_out_than_there_is() {
        let mut served = 0;
        for limit in 0..10_000 {
            let Ok(shares) = Shares::of(limit, 1_024) else {
                assert_eq!(served, 0, "{limit}");
                continue;
            };
            assert!(taken(shares) <= limit, "{limit}: {shares:?}");
            assert!(shares.connections >= served, "{limit}: {shares:?}");
            served = shares.connections;
        }
        assert_eq!(served, 1_024);
    }

    #[test]
    fn too_few_says_how_many_would_do() {
        let TooFew { needed, .. } = Shares::of(0, 1).unwrap_err();
        assert!(Shares::of(needed - 1, 1).is_err());
        assert_eq!(Shares::of(needed, 1).unwrap().connections, 1);
    }

    #[test]
    fn what_is_enough_gives_everything() {
        for wanted in [1, 2, 100, 1_024, 1_000_000] {
            let shares = Shares::of(enough_for(wanted), wanted).unwrap();
            assert_eq!(shares.connections, wanted);
            assert_eq!(shares.open_segments, Store::usual_open_segments());
        }
        assert!(Shares::of(u64::MAX, usize::MAX).is_ok());
    }
}
