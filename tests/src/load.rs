//! Write load: many connections that put and delete documents until the server exits or the load
//! is stopped. Each connection has its own namespaces.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::crash_model::CrashModel;
use crate::http::Client;
use crate::random::Random;
use crate::server::Server;

/// Number of connections. Each has one write in flight.
pub const CONNECTIONS: u64 = 64;
const USERS: u64 = 8;
const CLIENTS_PER_CONNECTION: u64 = 3;

/// A running write load.
#[derive(Debug)]
pub struct Load {
    model: Arc<CrashModel>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts writing to a server.
    pub fn start(server: &Server, model: &Arc<CrashModel>, seed: u64) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let writers = (0..CONNECTIONS)
            .map(|connection| {
                let (model, stop) = (Arc::clone(model), Arc::clone(&stop));
                let mut client = server.connect();
                let random = Random::new(seed.wrapping_mul(CONNECTIONS) + connection);
                std::thread::spawn(move || write(&mut client, random, connection, &model, &stop))
            })
            .collect();
        Self {
            model: Arc::clone(model),
            stop,
            writers,
        }
    }

    /// Waits until `count` writes have been attempted in total.
    ///
    /// # Panics
    /// Panics if a writer has exited.
    pub fn wait_for_attempts(&self, count: u64) {
        while self.model.attempts() < count {
            assert!(
                !self.writers.iter().any(JoinHandle::is_finished),
                "a writer exited before {count} writes were attempted"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until all writers have exited. The server must have exited before.
    pub fn join(self) {
        for writer in self.writers {
            writer.join().unwrap();
        }
    }

    /// Waits for the responses to the writes in flight, and stops all writers.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.join();
    }
}

fn write(
    client: &mut Client,
    mut random: Random,
    connection: u64,
    model: &CrashModel,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        let user = format!("user-{}", connection % USERS);
        let number = random.below(CLIENTS_PER_CONNECTION);
        let name = (user, format!("client-{connection}-{number}"));
        let is_delete = random.below(8) == 0;
        match model.write(client, &name, is_delete) {
            Ok(status) => assert_eq!(status, 204, "{name:?}"),
            Err(_) => return,
        }
    }
}
