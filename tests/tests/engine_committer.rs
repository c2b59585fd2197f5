//! The committer thread panics, or calls a waker that uses or drops the engine.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use prefd_engine::{Engine, Error, WriteOptions};
use prefd_tests::sim_disk::DiskOperation;
use prefd_tests::sim_store::{Store, put, read};

/// Maximum time to wait for an action of another thread.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn panic_of_the_committer_makes_outcomes_unknown_and_stops_writes() {
    for is_queued in [true, false] {
        let store = Store::without_catalogue();
        let engine = store.open().unwrap();
        put(&engine, "kept", "{}").unwrap();
        // The frame is in the log when the panic occurs.
        store.disk.set_fault(Box::new(|operation, _| {
            assert!(operation != DiskOperation::Sync, "injected panic");
            None
        }));
        let write = || {
            let namespace = engine.namespace("u", "lost").unwrap();
            if is_queued {
                namespace.submit(b"{}", WriteOptions::default()).wait()
            } else {
                namespace.write(b"{}", WriteOptions::default())
            }
        };
        match std::panic::catch_unwind(AssertUnwindSafe(write)) {
            Ok(outcome) => assert!(
                matches!(outcome, Err(Error::Poisoned { .. })),
                "{outcome:?}"
            ),
            Err(_) => assert!(!is_queued, "expected the committer thread to panic"),
        }
        store.disk.clear_fault();
        assert!(matches!(engine.writable(), Err(Error::Poisoned { .. })));
        let refused = put(&engine, "later", "{}");
        assert!(
            matches!(refused, Err(Error::Poisoned { .. })),
            "{refused:?}"
        );
        assert_eq!(read(&engine, "kept").unwrap().as_deref(), Some("{}"));
        assert!(engine.close().is_err());
        let engine = store.open().unwrap();
        assert_eq!(read(&engine, "kept").unwrap().as_deref(), Some("{}"));
    }
}

/// A waker that owns the engine. The committer thread calls it, and it tells whether the engine
/// then accepts writes.
struct EngineWaker(Mutex<Option<(Engine, mpsc::Sender<bool>)>>);

impl Wake for EngineWaker {
    fn wake(self: Arc<Self>) {
        let (engine, is_writable) = self.0.lock().unwrap().take().unwrap();
        let answer = engine.writable().is_ok();
        // This may be the last reference to the engine.
        drop(engine);
        is_writable.send(answer).unwrap();
    }
}

/// Submits a write, and moves the engine into the waker of the write. The next sync of `store`
/// waits for the returned function, and then calls `sync`. Returns the receiver of the waker's
/// answer: true if the engine accepted writes when it called the waker.
fn submit_with_engine_in_waker(
    store: &Store,
    engine: Engine,
    sync: impl Fn() + Send + 'static,
) -> (impl FnOnce(), mpsc::Receiver<bool>) {
    let (release, released) = mpsc::channel();
    let mut is_first = true;
    store.disk.set_fault(Box::new(move |operation, _| {
        if operation == DiskOperation::Sync && std::mem::take(&mut is_first) {
            released.recv_timeout(WAIT_TIMEOUT).unwrap();
            sync();
        }
        None
    }));
    let namespace = engine.namespace("u", "submitted").unwrap();
    let mut commit = pin!(namespace.submit(b"{}", WriteOptions::default()));
    drop(namespace);
    let (is_writable, answer) = mpsc::channel();
    let waker = EngineWaker(Mutex::new(Some((engine, is_writable))));
    let waker = Waker::from(Arc::new(waker));
    let outcome = commit.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(matches!(outcome, Poll::Pending), "{outcome:?}");
    (move || release.send(()).unwrap(), answer)
}

#[test]
fn panic_of_the_committer_stops_writes_before_outcomes() {
    let store = Store::without_catalogue();
    let engine = store.open().unwrap();
    let (release, is_writable) =
        submit_with_engine_in_waker(&store, engine.clone(), || panic!("injected panic"));
    release();
    assert_eq!(
        is_writable.recv_timeout(WAIT_TIMEOUT),
        Ok(false),
        "the engine must refuse writes when the outcome is known"
    );
    assert!(engine.close().is_err());
}

#[test]
fn last_engine_dropped_by_a_waker_closes_the_store() {
    let store = Store::without_catalogue();
    let engine = store.open().unwrap();
    let (release, dropped) = submit_with_engine_in_waker(&store, engine, || ());
    release();
    assert_eq!(dropped.recv_timeout(WAIT_TIMEOUT), Ok(true));
    let started = Instant::now();
    let engine = loop {
        match store.open() {
            Err(Error::Locked { .. }) if started.elapsed() < WAIT_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => break opened.unwrap(),
        }
    };
    let stored = read(&engine, "submitted").unwrap();
    assert_eq!(stored.as_deref(), Some("{}"));
}
