//! Proof that the caller is the commit leader.

/// Proof that the calling thread is the commit leader, so that no other thread changes the same
/// data at this moment. Functions that only the commit leader may call take a reference.
///
/// An open engine has one. Its committer owns it and is locked by one thread at a time.
pub(crate) struct CommitLeader {
    _private: (),
}

impl CommitLeader {
    /// For the committer of an engine that is being opened, and for tests.
    pub(crate) fn new() -> Self {
        Self { _private: () }
    }
}
