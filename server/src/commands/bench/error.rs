//! Why a measurement ended.

use std::io;
use std::path::PathBuf;

use crate::store::{Error, cause};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BenchError {
    #[error("{0}{cause}", cause = cause(.0))]
    Engine(#[from] Error),
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        op: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    #[error("latencies cannot be counted: {0}")]
    Creation(#[from] hdrhistogram::CreationError),
    #[error("latencies cannot be added up: {0}")]
    Addition(#[from] hdrhistogram::AdditionError),
    #[error("a thread has panicked")]
    Panic,
}
