//! Divides the file descriptors of the process between connections and the store.
//!
//! The limit on open files (`RLIMIT_NOFILE`) covers both sockets and files. Without a maximum
//! number of connections, idle clients could use all file descriptors. Without a free file
//! descriptor, the store could not create a log segment or a blob, so a valid write would fail.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::store::Store;

/// File descriptors of the process, not counting connections and the store: three standard streams,
/// the listener, a connection that waits for a slot, the epoll and signal descriptors of the two
/// async runtimes, and a key file during a reload. The total includes a reserve for files that the
/// process has inherited.
const PROCESS_DESCRIPTORS: u64 = 20;
/// File descriptors for each connection: one for the socket, one for the blob of a large document
/// that the connection reads or writes, and one that is open only briefly, to sync a directory or
/// to read a segment.
const CONNECTION_DESCRIPTORS: u64 = 3;
/// Of the file descriptors that remain for segments and connections, segments get at most one in
/// `SEGMENTS_DIVISOR`. Connections get the other descriptors.
const SEGMENTS_DIVISOR: u64 = 4;

/// How the available file descriptors are divided between connections and log segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FdBudget {
    /// Maximum number of simultaneous connections.
    pub(crate) connections: usize,
    /// Maximum number of log segments that are kept open for reading.
    pub(crate) open_segments: usize,
}

/// The limit on open files is too low to serve one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit on open files (ulimit -n) is {limit}, but prefd requires at least {needed}: raise \
     the limit"
)]
pub(crate) struct FdLimitError {
    limit: u64,
    needed: u64,
}

impl FdLimitError {
    fn with_reserved(self, reserved: u64) -> Self {
        Self {
            limit: self.limit + reserved,
            needed: self.needed + reserved,
        }
    }
}

impl FdBudget {
    /// Divides the file descriptors of the process between log segments and up to `wanted`
    /// connections. Raises the limit on open files if necessary and permitted. Logs a warning if
    /// the limit allows fewer than `wanted` connections. `reserved` is the number of file
    /// descriptors for other uses, such as the connections of the admin listener.
    ///
    /// # Errors
    /// [`FdLimitError`] if the limit is too low for one connection.
    pub(crate) fn of_process(wanted: usize, reserved: u64) -> Result<Self, FdLimitError> {
        let limit = raise_limit(wanted, reserved).saturating_sub(reserved);
        let budget =
            Self::of_limit(limit, wanted).map_err(|error| error.with_reserved(reserved))?;
        if budget.connections < wanted {
            tracing::warn!(
                connections = budget.connections,
                wanted,
                "maximum number of connections reduced to fit the limit on open files (ulimit -n)"
            );
        }
        Ok(budget)
    }

    /// Divides `limit` file descriptors between log segments and up to `wanted` connections.
    fn of_limit(limit: u64, wanted: usize) -> Result<Self, FdLimitError> {
        let fixed = PROCESS_DESCRIPTORS + Store::DESCRIPTORS;
        let divisible = limit.saturating_sub(fixed);
        let max_segments = Store::default_open_segments();
        let open_segments = saturating_usize(divisible / SEGMENTS_DIVISOR).min(max_segments);
        let remaining = divisible - open_segments as u64;
        let connections = saturating_usize(remaining / CONNECTION_DESCRIPTORS).min(wanted);
        if open_segments == 0 || connections == 0 {
            let needed = fixed + SEGMENTS_DIVISOR;
            return Err(FdLimitError { limit, needed });
        }
        Ok(Self {
            connections,
            open_segments,
        })
    }
}

/// Raises the limit on open files to the number that `connections` connections need, or to the hard
/// limit if the hard limit is lower. Returns the limit that is then in effect. A sufficient limit
/// is not changed.
fn raise_limit(connections: usize, reserved: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let sufficient = sufficient_limit(connections).saturating_add(reserved);
    // `None` means unlimited.
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = limit
        .maximum
        .map_or(sufficient, |maximum| maximum.min(sufficient));
    if raised <= current {
        return current;
    }
    let raise = Rlimit {
        current: Some(raised),
        ..limit
    };
    setrlimit(Resource::Nofile, raise).map_or(current, |()| raised)
}

/// Returns the smallest limit on open files that allows this number of connections and the default
/// number of open segments.
fn sufficient_limit(connections: usize) -> u64 {
    let segments = Store::default_open_segments() as u64;
    let connections = (connections as u64).saturating_mul(CONNECTION_DESCRIPTORS);
    let divisible = (connections.saturating_add(segments)).max(segments * SEGMENTS_DIVISOR);
    divisible.saturating_add(PROCESS_DESCRIPTORS + Store::DESCRIPTORS)
}

fn saturating_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used_descriptors(budget: FdBudget) -> u64 {
        let connections = budget.connections as u64 * CONNECTION_DESCRIPTORS;
        PROCESS_DESCRIPTORS + Store::DESCRIPTORS + budget.open_segments as u64 + connections
    }

    #[test]
    fn budget_never_exceeds_the_limit_and_grows_with_it() {
        let mut connections = 0;
        for limit in 0..10_000 {
            let Ok(budget) = FdBudget::of_limit(limit, 1_024) else {
                assert_eq!(
                    connections, 0,
                    "limit {limit}: a lower limit was sufficient"
                );
                continue;
            };
            assert!(
                used_descriptors(budget) <= limit,
                "limit {limit} exceeded: {budget:?}"
            );
            assert!(
                budget.connections >= connections,
                "limit {limit}: a lower limit allowed {connections} connections: {budget:?}"
            );
            connections = budget.connections;
        }
        assert_eq!(
            connections, 1_024,
            "the largest limit allows all connections"
        );
    }

    #[test]
    fn too_low_limit_error_names_the_smallest_sufficient_limit() {
        let FdLimitError { needed, .. } = FdBudget::of_limit(0, 1).unwrap_err();
        assert!(FdBudget::of_limit(needed - 1, 1).is_err());
        assert_eq!(FdBudget::of_limit(needed, 1).unwrap().connections, 1);
    }

    #[test]
    fn sufficient_limit_allows_all_connections_and_segments() {
        for wanted in [1, 2, 100, 1_024, 1_000_000] {
            let budget = FdBudget::of_limit(sufficient_limit(wanted), wanted).unwrap();
            assert_eq!(budget.connections, wanted);
            assert_eq!(budget.open_segments, Store::default_open_segments());
        }
        assert!(FdBudget::of_limit(u64::MAX, usize::MAX).is_ok());
    }
}
