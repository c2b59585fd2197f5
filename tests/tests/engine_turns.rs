//! Whoever writes may be the one that commits: writers of every kind at once, each of
//! which gets its answer.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use prefd_engine::{Config, Durability, Engine, Error, Precondition, WriteOptions};
use prefd_tests::random::Random;

const WRITERS: u64 = 6;
const WRITES: u64 = 400;
/// Far longer than all of it takes: whoever waits so long waits for ever.
const FOREVER: Duration = Duration::from_secs(120);

fn options(random: &mut Random) -> WriteOptions {
    WriteOptions {
        durability: match random.below(8) {
            0 => Some(Durability::Sync),
            _ => Some(Durability::Buffered),
        },
        ..WriteOptions::default()
    }
}

/// Writes numbers to a namespace of its own, and now and then adds to one that all share.
fn write(engine: &Engine, writer: u64) -> Result<u64, Error> {
    let mut random = Random::new(writer);
    let own = engine.namespace("own", writer.to_string())?;
    let shared = engine.namespace("shared", "counter")?;
    let mut added = 0;
    for n in 0..WRITES {
        let body = format!("{{\"n\":{n}}}");
        match random.below(4) {
            // Asked for and never looked at: it is committed all the same.
            0 => {
                let mut writer = engine.writer();
                writer.write(body.as_bytes())?;
                let commit = own.submit(writer.finish()?, options(&mut random));
                let mut commit = pin!(commit);
                let mut context = Context::from_waker(Waker::noop());
                if let Poll::Ready(outcome) = commit.as_mut().poll(&mut context) {
                    outcome?;
                }
            }
            1 => {
                let found = shared.get()?;
                let (count, precondition) = match &found {
                    None => (0, Precondition::absent()),
                    Some(document) => {
                        let revision = document.stat().revision;
                        (count(&document.read()?), Precondition::matches(revision))
                    }
                };
                let with = WriteOptions {
                    precondition,
                    ..options(&mut random)
                };
                let body = format!("{{\"n\":{}}}", count + 1);
                match shared.write(body.as_bytes(), with) {
                    Ok(_) => added += 1,
                    Err(Error::PreconditionFailed { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            _ => {
                own.write(body.as_bytes(), options(&mut random))?;
                let read = own.get()?.map(|document| document.read());
                assert_eq!(read.transpose()?.as_deref(), Some(body.as_bytes()));
            }
        }
    }
    own.write(b"{\"n\":-1}", options(&mut random))?;
    Ok(added)
}

fn count(body: &[u8]) -> u64 {
    let digits = body.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
}

#[test]
fn writers_of_every_kind_at_once_each_get_their_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    let engine = Engine::open(config.clone()).unwrap();
    let (done, outcomes) = mpsc::channel();
    for writer in 0..WRITERS {
        let (engine, done) = (engine.clone(), done.clone());
        thread::spawn(move || done.send(write(&engine, writer)));
    }
    drop(done);
    let mut added = 0;
    for _ in 0..WRITERS {
        let outcome = outcomes.recv_timeout(FOREVER);
        added += outcome.expect("somebody waits for ever").unwrap();
    }
    engine.close().unwrap();
    drop(engine);

    let engine = Engine::open(config).unwrap();
    let read = |user: &str, client: &str| {
        let namespace = engine.namespace(user, client).unwrap();
        namespace.get().unwrap().unwrap().read().unwrap()
    };
    // Each that was told that it had added has, and nobody else.
    assert_eq!(count(&read("shared", "counter")), added);
    for writer in 0..WRITERS {
        assert_eq!(read("own", &writer.to_string()), b"{\"n\":-1}");
    }
}

#[test]
fn what_is_queued_while_another_commits_is_not_forgotten() {
    const ROUNDS: u64 = 1500;
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(Config::new(dir.path())).unwrap();
    let barrier = Arc::new(Barrier::new(3));
    let (done, outcomes) = mpsc::channel();
    for writer in 0..3 {
        let (engine, done, barrier) = (engine.clone(), done.clone(), Arc::clone(&barrier));
        thread::spawn(move || {
            let namespace = engine.namespace("u", writer.to_string()).unwrap();
            for round in 0..ROUNDS {
                // In every mix, and nobody comes after these three to help.
                let with = WriteOptions {
                    durability: Some(if round >> writer & 1 == 0 {
                        Durability::Sync
                    } else {
                        Durability::Buffered
                    }),
                    ..WriteOptions::default()
                };
                barrier.wait();
                done.send(namespace.write(b"{}", with)).unwrap();
            }
        });
    }
    for _ in 0..3 * ROUNDS {
        let outcome = outcomes.recv_timeout(FOREVER);
        outcome.expect("somebody waits for ever").unwrap();
    }
}
