//! The signals that a server handles.

use std::future::pending;
use std::io;
use std::thread;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Signals that prefd does not use, but whose default action ends the process.
const IGNORED: [SignalKind; 3] = [
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
    SignalKind::alarm(),
];

/// What a signal asks the server to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalRequest {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals that the process has received since [`Self::install`]. A signal that arrives before
/// the server can act on it is not lost. Signals with the same request that arrive before the
/// server acts on the first one count as one signal.
pub(super) struct Signals {
    stops: watch::Receiver<()>,
    reloads: watch::Receiver<()>,
}

impl Signals {
    /// Installs the signal handlers. From then on, SIGTERM, SIGINT, SIGHUP and the
    /// [`IGNORED`] signals no longer end the process.
    ///
    /// A separate thread receives the signals, because the process must handle signals before the
    /// settings of the async runtime are known.
    ///
    /// # Errors
    /// Any error of the operating system.
    pub(super) fn install() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let handlers = {
            let _runtime = runtime.enter();
            let handlers = Handlers {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                hangup: signal(SignalKind::hangup())?,
            };
            for kind in IGNORED {
                // The handler stays installed after the stream is dropped.
                drop(signal(kind)?);
            }
            handlers
        };
        let (send_stop, stops) = watch::channel(());
        let (send_reload, reloads) = watch::channel(());
        thread::Builder::new()
            .name("prefd-signals".to_owned())
            .spawn(move || runtime.block_on(handlers.forward(&send_stop, &send_reload)))?;
        Ok(Self { stops, reloads })
    }

    /// Waits for the next request to stop or, if `may_reload` is set, to reload. If `may_reload` is
    /// not set, a request to reload stays pending.
    pub(super) async fn next(&mut self, may_reload: bool) -> SignalRequest {
        tokio::select! {
            biased;
            () = received(&mut self.stops) => SignalRequest::Stop,
            () = received(&mut self.reloads), if may_reload => SignalRequest::Reload,
        }
    }

    /// Waits for the next request to stop. A request to reload stays pending.
    pub(super) async fn stop(&mut self) {
        received(&mut self.stops).await;
    }
}

/// Waits until a signal has arrived that no earlier call has returned.
async fn received(signals: &mut watch::Receiver<()>) {
    // The sender lives as long as the process, except if its thread has panicked.
    if signals.changed().await.is_err() {
        pending::<()>().await;
    }
}

struct Handlers {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Handlers {
    async fn forward(mut self, stops: &watch::Sender<()>, reloads: &watch::Sender<()>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => stops.send_replace(()),
                _ = self.interrupt.recv() => stops.send_replace(()),
                _ = self.hangup.recv() => reloads.send_replace(()),
            }
        }
    }
}
