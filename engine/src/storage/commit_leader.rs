//! Proof that the caller is the commit leader.

/// Proof that the calling thread is the commit leader, and therefore the only thread that changes
/// data owned by the commit leader. Functions that only the commit leader may call require a
/// reference to a `CommitLeader`.
///
/// An open engine has exactly one `CommitLeader`, which is owned by the committer. The committer is
/// locked by one thread at a time.
pub(crate) struct CommitLeader {
    _private: (),
}

impl CommitLeader {
    /// Creates the proof. Only two callers are allowed: the committer of an engine that is being
    /// opened, and tests.
    pub(crate) fn new() -> Self {
        Self { _private: () }
    }
}
