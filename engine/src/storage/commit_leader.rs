//! Proof that the caller is the commit leader.

/// Proof that the calling thread is the commit leader, and therefore the only thread that changes
/// data owned by the commit leader. Functions that only the commit leader may call require a
/// reference to a `CommitLeader`.
///
/// An open engine has exactly one `CommitLeader`, which is owned by the committer. The committer is
/// protected by a mutex, so only one thread at a time can use it.
pub(crate) struct CommitLeader {
    _private: (),
}

impl CommitLeader {
    /// Creates the proof. Call this function only when the committer of an engine is created, or in
    /// a test.
    pub(crate) fn new() -> Self {
        Self { _private: () }
    }
}
