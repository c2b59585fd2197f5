//! The engine's public API on documents: put, get, delete, list, preconditions, durability, open
//! and close.

use std::sync::{Arc, Barrier};
use std::time::SystemTime;

use prefd_engine::{
    Change, Config, Durability, Engine, Error, Precondition, Revision, Revisions, UserUsage,
    WriteOptions,
};
use prefd_tests::put_ext::PutExt;

fn open(dir: &tempfile::TempDir) -> Engine {
    Engine::open(Config::new(dir.path())).unwrap()
}

fn options(precondition: Precondition) -> WriteOptions {
    WriteOptions {
        precondition,
        ..WriteOptions::default()
    }
}

fn text(engine: &Engine, user: &str, client: &str) -> Option<String> {
    let document = engine.namespace(user, client).unwrap().get().unwrap();
    document.map(|d| String::from_utf8(d.read().unwrap()).unwrap())
}

#[test]
fn document_is_returned_with_the_text_it_was_sent_with() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let namespace = engine.namespace("u", "c").unwrap();
    let before = SystemTime::now() - std::time::Duration::from_millis(1);
    let sent = " {\"z\" : 1.0e+2 ,\n \"a\\u00e9\":\"\\ud83d\\ude00 \\/\",\"n\": [ 1 , {\"x\":  null} ] , \"big\":123456789012345678901234567890}\n";
    namespace
        .put(sent.as_bytes(), WriteOptions::default())
        .unwrap();
    let kept = "{\"z\":1.0e+2,\"a\\u00e9\":\"\\ud83d\\ude00 \\/\",\"n\":[ 1 , {\"x\":  null} ],\"big\":123456789012345678901234567890}";
    for _ in 0..2 {
        let document = namespace.get().unwrap().unwrap();
        assert_eq!(document.read().unwrap(), kept.as_bytes());
        assert_eq!(document.in_memory().unwrap(), kept.as_bytes());
        assert_eq!(document.keys().collect::<Vec<_>>(), ["z", "aé", "n", "big"]);
        let value: Vec<u8> = document
            .value("aé")
            .unwrap()
            .flat_map(|chunk| chunk.unwrap().to_vec())
            .collect();
        assert_eq!(value, "\"\\ud83d\\ude00 \\/\"".as_bytes());
        assert!(document.value("missing").is_none());
        let stat = *document.stat();
        assert_eq!((stat.usage.keys, stat.usage.bytes), (4, kept.len() as u64));
        assert!(stat.modified >= before && stat.modified <= SystemTime::now());
        assert_eq!(namespace.stat().unwrap(), Some(stat));
        assert_eq!(namespace.usage().unwrap(), stat.usage);
        assert_eq!(namespace.revision().unwrap(), Some(stat.revision));
    }
}

#[test]
fn empty_document_exists_but_absent_and_deleted_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let namespace = engine.namespace("u", "c").unwrap();
    assert!(namespace.get().unwrap().is_none());
    assert_eq!(namespace.revision().unwrap(), None);
    namespace
        .write(Change::Delete, WriteOptions::default())
        .unwrap();
    let revision = namespace.put(b"{ }", WriteOptions::default()).unwrap();
    assert_eq!(text(&engine, "u", "c").as_deref(), Some("{}"));
    assert_eq!(namespace.revision().unwrap(), Some(revision));
    assert_eq!(namespace.usage().unwrap().keys, 0);
    namespace
        .write(Change::Delete, WriteOptions::default())
        .unwrap();
    assert!(namespace.get().unwrap().is_none() && namespace.stat().unwrap().is_none());
    engine.close().unwrap();
    let engine = open(&dir);
    assert!(engine.namespace("u", "c").unwrap().get().unwrap().is_none());
    let next = engine.namespace("u", "c").unwrap();
    assert!(next.put(b"{}", WriteOptions::default()).unwrap() > revision);
}

#[test]
fn invalid_names_are_refused_and_namespaces_are_separate() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    for name in ["", "a\0b", "a\nb", "\u{7f}", &"é".repeat(128)] {
        assert!(matches!(
            engine.namespace(name, "c"),
            Err(Error::InvalidName { which: "user", .. })
        ));
        assert!(matches!(
            engine.namespace("u", name),
            Err(Error::InvalidName {
                which: "client",
                ..
            })
        ));
        assert!(engine.list(name, None, 1).is_err());
    }
    let names = ["a", "ab", "b", "aé", &"x".repeat(255), "..", "/", "a b"];
    for user in names {
        for client in names {
            let body = format!("{{\"u\":{user:?},\"c\":{client:?}}}");
            let namespace = engine.namespace(user, client).unwrap();
            namespace
                .put(body.as_bytes(), WriteOptions::default())
                .unwrap();
        }
    }
    for user in names {
        for client in names {
            let body = format!("{{\"u\":{user:?},\"c\":{client:?}}}");
            assert_eq!(text(&engine, user, client), Some(body));
        }
    }
}

#[test]
fn preconditions_are_checked_against_the_current_revision() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let namespace = engine.namespace("u", "c").unwrap();
    let exists = Precondition {
        must_match: Some(Revisions::Any),
        must_not_match: None,
    };
    let fails_with = |outcome, current| matches!(outcome, Err(Error::PreconditionFailed { current: c }) if c == current);
    assert!(fails_with(
        namespace.put(b"{}", options(exists.clone())),
        None
    ));
    let first = namespace
        .put(b"{}", options(Precondition::absent()))
        .unwrap();
    assert!(fails_with(
        namespace.put(b"{}", options(Precondition::absent())),
        Some(first)
    ));
    let second = namespace
        .put(b"{}", options(Precondition::matches(first)))
        .unwrap();
    assert!(fails_with(
        namespace.put(b"{}", options(Precondition::matches(first))),
        Some(second)
    ));
    let gone = namespace.write(Change::Delete, options(Precondition::matches(first)));
    assert!(matches!(gone, Err(Error::PreconditionFailed { current }) if current == Some(second)));
    namespace
        .write(Change::Delete, options(Precondition::matches(second)))
        .unwrap();
    assert!(fails_with(namespace.put(b"{}", options(exists)), None));
    assert!(fails_with(
        namespace.put(b"{}", options(Precondition::matches(second))),
        None
    ));
}

#[test]
fn exactly_one_of_64_writers_with_one_revision_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let namespace = engine.namespace("u", "c").unwrap();
    let mut revision = namespace.put(b"{}", WriteOptions::default()).unwrap();
    for _ in 0..10 {
        let barrier = Arc::new(Barrier::new(64));
        let threads: Vec<_> = (0..64)
            .map(|writer| {
                let (namespace, barrier) = (namespace.clone(), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    barrier.wait();
                    let body = format!("{{\"writer\":{writer}}}");
                    namespace.put(body.as_bytes(), options(Precondition::matches(revision)))
                })
            })
            .collect();
        let outcomes: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        let won: Vec<Revision> = outcomes
            .iter()
            .filter_map(|o| o.as_ref().ok().copied())
            .collect();
        assert_eq!(won.len(), 1);
        for outcome in &outcomes {
            if let Err(error) = outcome {
                assert!(
                    matches!(error, Error::PreconditionFailed { current } if *current == Some(won[0])),
                    "{error}"
                );
            }
        }
        revision = won[0];
    }
}

#[test]
fn listing_is_sorted_and_paged_and_shows_every_write() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    assert_eq!(engine.list("u", None, 10).unwrap(), []);
    let clients: Vec<String> = (0..50).map(|i| format!("c{:02}", (i * 37) % 50)).collect();
    for (index, client) in clients.iter().enumerate() {
        let namespace = engine.namespace("u", client).unwrap();
        let body = format!("{{\"i\":{index}}}");
        let revision = namespace
            .put(body.as_bytes(), WriteOptions::default())
            .unwrap();
        let listed = engine.list("u", None, usize::MAX).unwrap();
        assert_eq!(listed.len(), index + 1);
        assert!(
            listed
                .iter()
                .any(|e| e.client == *client && e.stat.revision == revision)
        );
        assert!(
            listed
                .windows(2)
                .all(|pair| pair[0].client < pair[1].client)
        );
    }
    for neighbour in ["t", "u0", "v", "uü"] {
        let namespace = engine.namespace(neighbour, "c00").unwrap();
        namespace
            .put(b"{\"other\":1}", WriteOptions::default())
            .unwrap();
    }
    engine
        .namespace("u", "c10")
        .unwrap()
        .write(Change::Delete, WriteOptions::default())
        .unwrap();
    let mut pages = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = engine.list("u", after.as_deref(), 7).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.client.clone());
        pages.extend(page);
    }
    let all = engine.list("u", None, usize::MAX).unwrap();
    assert_eq!(pages, all);
    assert_eq!(all.len(), 49);
    for entry in &all {
        let stat = engine
            .namespace("u", &entry.client)
            .unwrap()
            .stat()
            .unwrap();
        assert_eq!(stat, Some(entry.stat));
    }
    let total = UserUsage {
        namespaces: 49,
        keys: 49,
        bytes: all.iter().map(|e| e.stat.usage.bytes).sum(),
    };
    assert_eq!(engine.usage("u").unwrap(), total);
    engine.close().unwrap();
    let engine = open(&dir);
    assert_eq!(engine.list("u", None, usize::MAX).unwrap(), all);
    assert_eq!(engine.usage("u").unwrap(), total);
    assert_eq!(engine.documents(), 53);
}

#[test]
fn commit_can_be_polled_by_any_executor() {
    struct ChannelWaker(std::sync::mpsc::Sender<()>);
    impl std::task::Wake for ChannelWaker {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let namespace = engine.namespace("u", "c").unwrap();
    let mut writer = engine.writer();
    writer.write(b"{\"a\":1}").unwrap();
    let mut commit = namespace.submit(writer.finish().unwrap(), WriteOptions::default());
    let (sender, woken) = std::sync::mpsc::channel();
    let waker = std::task::Waker::from(Arc::new(ChannelWaker(sender)));
    let mut context = std::task::Context::from_waker(&waker);
    let revision = loop {
        match std::pin::Pin::new(&mut commit).poll(&mut context) {
            std::task::Poll::Ready(outcome) => break outcome.unwrap().unwrap(),
            std::task::Poll::Pending => woken.recv().unwrap(),
        }
    };
    assert_eq!(namespace.revision().unwrap(), Some(revision));
    assert_eq!(
        namespace
            .submit(Change::Delete, WriteOptions::default())
            .wait()
            .unwrap(),
        None
    );
}

#[test]
fn second_open_fails_and_names_the_lock_holder() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    match Engine::open(Config::new(dir.path())) {
        Err(Error::Locked { path, holder }) => {
            assert_eq!(path, dir.path().join("lock"));
            assert!(
                holder.contains(&format!("pid {}", std::process::id())),
                "{holder}"
            );
        }
        other => panic!("expected Locked: {other:?}"),
    }
    engine.close().unwrap();
    open(&dir);
    // Dropping the last handle of an engine releases the lock too.
    open(&dir);
}

#[test]
fn operations_on_a_closed_engine_return_closed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir);
    let namespace = engine.namespace("u", "c").unwrap();
    namespace.put(b"{}", WriteOptions::default()).unwrap();
    engine.close().unwrap();
    engine.close().unwrap();
    assert!(matches!(namespace.get(), Err(Error::Closed)));
    assert!(matches!(
        namespace.put(b"{}", WriteOptions::default()),
        Err(Error::Closed)
    ));
    assert!(matches!(
        namespace.write(Change::Delete, WriteOptions::default()),
        Err(Error::Closed)
    ));
    assert!(matches!(engine.list("u", None, 1), Err(Error::Closed)));
}

#[test]
fn many_writers_and_many_small_segments_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.background_compaction = false;
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.open_segments = 2;
    config.cache_bytes = 0;
    for life in 0..3 {
        let engine = Engine::open(config.clone()).unwrap();
        let threads: Vec<_> = (0..8)
            .map(|writer| {
                let engine = engine.clone();
                std::thread::spawn(move || {
                    for round in 0..100 {
                        let namespace = engine
                            .namespace("u", format!("{writer}-{}", round % 20))
                            .unwrap();
                        let body = format!(
                            "{{\"life\":{life},\"round\":{round},\"pad\":\"{}\"}}",
                            "p".repeat(500)
                        );
                        let durability = Some(if round % 3 == 0 {
                            Durability::Buffered
                        } else {
                            Durability::Sync
                        });
                        namespace
                            .put(
                                body.as_bytes(),
                                WriteOptions {
                                    durability,
                                    ..WriteOptions::default()
                                },
                            )
                            .unwrap();
                        assert_eq!(
                            namespace.get().unwrap().unwrap().read().unwrap(),
                            body.as_bytes()
                        );
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        engine.close().unwrap();
    }
    let engine = Engine::open(config).unwrap();
    assert_eq!(engine.documents(), 160);
    for writer in 0..8 {
        for slot in 0..20 {
            let kept = text(&engine, "u", &format!("{writer}-{slot}")).unwrap();
            assert!(
                kept.starts_with(&format!("{{\"life\":2,\"round\":{},", 80 + slot)),
                "{kept}"
            );
        }
    }
    assert!(std::fs::read_dir(dir.path().join("log")).unwrap().count() > 20);
}

#[test]
fn invalid_setting_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = 1;
    assert!(matches!(
        Engine::open(config),
        Err(Error::InvalidConfig {
            setting: "segment_bytes",
            ..
        })
    ));
}

/// Regression test. Between fork and exec, a child process has copies of all file descriptors.
/// The copy of the lock file's descriptor used to keep a closed directory locked.
#[test]
fn closed_directory_opens_while_a_child_process_starts() {
    let dir = tempfile::tempdir().unwrap();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                std::process::Command::new("true").status().unwrap();
            }
        });
        let opened: Vec<_> = (0..100)
            .map(|_| Engine::open(Config::new(dir.path())).and_then(|engine| engine.close()))
            .collect();
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(opened.iter().all(Result::is_ok), "{opened:?}");
    });
}
