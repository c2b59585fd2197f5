//! Load: many connections that put and delete, each in namespaces of its own, until
//! the server is gone or they are told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::crash_model::Model;
use crate::http::Client;
use crate::random::Random;
use crate::server::Server;

/// Connections, each with a write in flight.
pub const CONNECTIONS: u64 = 64;
const USERS: u64 = 8;
const CLIENTS_PER_CONNECTION: u64 = 3;

/// Connections that write.
#[derive(Debug)]
pub struct Load {
    model: Arc<Model>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins to write to this server.
    pub fn start(server: &Server, model: &Arc<Model>, seed: u64) -> Self {
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

    /// Waits until so many writes were attempted in all, which the load brings about.
    ///
    /// # Panics
    /// Where a writer has ended.
    pub fn wait_for_attempts(&self, count: u64) {
        while self.model.attempts() < count {
            assert!(!self.writers.iter().any(JoinHandle::is_finished));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the writers' end. The server is gone.
    pub fn join(self) {
        for writer in self.writers {
            writer.join().unwrap();
        }
    }

    /// Lets each write in flight be answered, and stops.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.join();
    }
}

fn write(
    client: &mut Client,
    mut random: Random,
    connection: u64,
    model: &Model,
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
