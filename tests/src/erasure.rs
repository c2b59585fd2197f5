//! Users with unique words in their data, and a search for these words in files after an erasure.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use prefd_engine::{Change, Engine, Error, Revision, WriteOptions};

use crate::random::Random;
use crate::sim_store::Store;

/// Creates a random word that occurs nowhere else.
pub fn needle(random: &mut Random) -> String {
    let letter = |_| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[random.below(32) as usize]);
    (0..32).map(letter).collect()
}

/// A user, and every unique word that was written for this user.
pub struct TracedUser {
    /// Name of the user.
    pub name: String,
    /// Clients of the user.
    pub clients: Vec<String>,
    /// All unique words: the name, the clients, and every key and value that was written.
    pub needles: Vec<String>,
}

impl TracedUser {
    /// Creates a user with random names and without documents.
    pub fn new(random: &mut Random) -> Self {
        let name = needle(random);
        let clients: Vec<_> = (0..6).map(|_| needle(random)).collect();
        let needles = [name.clone()].into_iter().chain(clients.clone()).collect();
        Self {
            name,
            clients,
            needles,
        }
    }

    /// Writes and overwrites documents of different sizes, and deletes some.
    pub fn write(&mut self, engine: &Engine, random: &mut Random) -> Result<(), Error> {
        for round in 0..18 {
            let client = &self.clients[round % 6];
            let namespace = engine.namespace(&self.name, client)?;
            if random.below(5) == 0 {
                namespace.write(Change::Delete, WriteOptions::default())?;
                continue;
            }
            let (key, value) = (needle(random), needle(random));
            let pad = "p".repeat([10, 300, 1_500, 5_000][random.below(4) as usize]);
            let text = format!("{{\"{key}\":\"{value}\",\"pad\":\"{pad}\",\"end\":\"{value}\"}}");
            self.needles.extend([key, value]);
            namespace.write(text.as_bytes(), WriteOptions::default())?;
        }
        Ok(())
    }
}

/// Documents of a user with their revisions, by client.
pub type Contents = BTreeMap<String, (String, Revision)>;

/// Reads all documents of a user.
pub fn contents(engine: &Engine, user: &TracedUser) -> Contents {
    let stored = user.clients.iter().filter_map(|client| {
        let document = engine.get(&user.name, client).unwrap()?;
        let text = String::from_utf8(document.read().unwrap()).unwrap();
        Some((client.clone(), (text, document.stat().revision)))
    });
    stored.collect()
}

/// A store with three users, one of which is to be erased.
pub struct ErasureScenario {
    /// Generates the unique words.
    pub random: Random,
    /// The users. The second one is to be erased.
    pub users: Vec<TracedUser>,
}

impl ErasureScenario {
    /// Creates the users from a seed. They have no documents yet.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let users = (0..3).map(|_| TracedUser::new(&mut random)).collect();
        Self { random, users }
    }

    /// Writes documents for each user.
    pub fn write(&mut self, engine: &Engine) -> Result<(), Error> {
        for user in &mut self.users {
            user.write(engine, &mut self.random)?;
        }
        Ok(())
    }

    /// The user that is to be erased.
    pub fn erased_user(&self) -> &TracedUser {
        &self.users[1]
    }

    /// The documents of the users that are not erased.
    pub fn other_contents(&self, engine: &Engine) -> Vec<Contents> {
        let others = [&self.users[0], &self.users[2]];
        others.map(|user| contents(engine, user)).into()
    }

    /// Expects no documents of the erased user, and unchanged documents of the others.
    pub fn assert_erased(&self, engine: &Engine, others: &[Contents], context: &str) {
        assert_eq!(
            contents(engine, self.erased_user()),
            Contents::new(),
            "{context}"
        );
        assert_eq!(self.other_contents(engine), others, "{context}");
    }
}

fn files_in(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_in(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Reads all files of the directory and of the simulated disk.
pub fn all_files(dir: &Path, store: Option<&Store>) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths = Vec::new();
    files_in(dir, &mut paths);
    let real = paths.into_iter().filter_map(|path| {
        // sled can remove a file while this function runs.
        let bytes = std::fs::read(&path).ok()?;
        Some((path, bytes))
    });
    let disk = store.map(|store| &store.disk);
    let simulated = disk.iter().flat_map(|disk| {
        let files = disk.files().into_iter();
        files.map(|path| (path.clone(), disk.bytes(&path)))
    });
    real.chain(simulated).collect()
}

/// Returns the files that contain a unique word of the user.
///
/// sled omits the prefix that a key shares with the previous key, so 12 bytes from the middle of a
/// word count as a match.
pub fn files_with_traces(files: &[(PathBuf, Vec<u8>)], user: &TracedUser) -> Vec<PathBuf> {
    let fragments: HashSet<&[u8]> = user.needles.iter().map(|n| &n.as_bytes()[10..22]).collect();
    let has_any = |bytes: &[u8]| bytes.windows(12).any(|window| fragments.contains(window));
    let found = files.iter().filter(|(_, bytes)| has_any(bytes));
    found.map(|(path, _)| path.clone()).collect()
}
