//! Keeps the signal SIGXFSZ from ending the process.
//!
//! The kernel sends SIGXFSZ if a write exceeds the limit on file sizes (`ulimit -f`), see
//! setrlimit(2). If the signal does not end the process, the write fails with EFBIG, which the
//! store handles like a full disk.

use std::io;

use rustix::process::Signal;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Installs a handler for SIGXFSZ that does nothing.
///
/// # Errors
/// Any error of the operating system.
pub(super) fn ignore() -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let _runtime = runtime.enter();
    // The handler stays installed after the stream is dropped.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}
