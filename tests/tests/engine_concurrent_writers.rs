//! Concurrent writers of every kind. Any writer can become the commit leader, and each writer
//! must get the outcome of its own writes.

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
/// Timeout for one outcome. It is far longer than a whole test lasts, so a writer that exceeds
/// it would wait forever.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(120);

fn options(random: &mut Random) -> WriteOptions {
    WriteOptions {
        durability: match random.below(8) {
            0 => Some(Durability::Sync),
            _ => Some(Durability::Buffered),
        },
        ..WriteOptions::default()
    }
}

/// Writes numbers to the writer's own namespace, and sometimes increments a shared counter.
/// Returns the number of acknowledged increments.
fn run_writer(engine: &Engine, writer: u64) -> Result<u64, Error> {
    let mut random = Random::new(writer);
    let own = engine.namespace("own", writer.to_string())?;
    let shared = engine.namespace("shared", "counter")?;
    let mut increments = 0;
    for n in 0..WRITES {
        let body = format!("{{\"n\":{n}}}");
        match random.below(4) {
            // The commit is polled once and then dropped. The write is committed anyway.
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
                let options = WriteOptions {
                    precondition,
                    ..options(&mut random)
                };
                let body = format!("{{\"n\":{}}}", count + 1);
                match shared.write(body.as_bytes(), options) {
                    Ok(_) => increments += 1,
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
    Ok(increments)
}

fn count(body: &[u8]) -> u64 {
    let digits = body.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
}

#[test]
fn concurrent_writers_of_every_kind_get_their_own_outcomes() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    let engine = Engine::open(config.clone()).unwrap();
    let (done, outcomes) = mpsc::channel();
    for writer in 0..WRITERS {
        let (engine, done) = (engine.clone(), done.clone());
        thread::spawn(move || done.send(run_writer(&engine, writer)));
    }
    drop(done);
    let mut increments = 0;
    for _ in 0..WRITERS {
        let outcome = outcomes.recv_timeout(OUTCOME_TIMEOUT);
        increments += outcome.expect("a writer never got its outcome").unwrap();
    }
    engine.close().unwrap();
    drop(engine);

    let engine = Engine::open(config).unwrap();
    let read = |user: &str, client: &str| {
        let namespace = engine.namespace(user, client).unwrap();
        namespace.get().unwrap().unwrap().read().unwrap()
    };
    // The counter includes every acknowledged increment and no other.
    assert_eq!(count(&read("shared", "counter")), increments);
    for writer in 0..WRITERS {
        assert_eq!(read("own", &writer.to_string()), b"{\"n\":-1}");
    }
}

#[test]
fn write_queued_during_another_commit_gets_its_outcome() {
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
                // The rounds cover every mix of synced and buffered writes. A round begins only
                // when all three writes of the previous round are done, so no later write can
                // complete a forgotten one.
                let options = WriteOptions {
                    durability: Some(if round >> writer & 1 == 0 {
                        Durability::Sync
                    } else {
                        Durability::Buffered
                    }),
                    ..WriteOptions::default()
                };
                barrier.wait();
                done.send(namespace.write(b"{}", options)).unwrap();
            }
        });
    }
    for _ in 0..3 * ROUNDS {
        let outcome = outcomes.recv_timeout(OUTCOME_TIMEOUT);
        outcome.expect("a write never got its outcome").unwrap();
    }
}
