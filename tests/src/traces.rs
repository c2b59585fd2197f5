//! Users of whom every word that was ever written is known, and where a trace of one is
//! left.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use prefd_engine::{Change, Engine, Error, Revision, WriteOptions};

use crate::random::Random;
use crate::sim_store::Store;

/// A word that nothing else contains.
pub fn needle(random: &mut Random) -> String {
    let letter = |_| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[random.below(32) as usize]);
    (0..32).map(letter).collect()
}

/// A user, and every word that was ever written for the user.
pub struct User {
    /// Their name.
    pub name: String,
    /// Their clients.
    pub clients: Vec<String>,
    /// All of these words.
    pub needles: Vec<String>,
}

impl User {
    /// One with a name and clients, who has nothing yet.
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

    /// Puts small, inline and large documents over each other, and deletes some.
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

/// Documents and their revisions, by client.
pub type Contents = BTreeMap<String, (String, Revision)>;

/// What a user has, as it is read.
pub fn contents(engine: &Engine, user: &User) -> Contents {
    let stored = user.clients.iter().filter_map(|client| {
        let document = engine.get(&user.name, client).unwrap()?;
        let text = String::from_utf8(document.read().unwrap()).unwrap();
        Some((client.clone(), (text, document.stat().revision)))
    });
    stored.collect()
}

/// Some users of a store, of whom one is to be erased.
pub struct Lived {
    /// What their words are drawn from.
    pub random: Random,
    /// The second is the one.
    pub users: Vec<User>,
}

impl Lived {
    /// Those of a seed, who have nothing yet.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let users = (0..3).map(|_| User::new(&mut random)).collect();
        Self { random, users }
    }

    /// Has all of them write.
    pub fn write(&mut self, engine: &Engine) -> Result<(), Error> {
        for user in &mut self.users {
            user.write(engine, &mut self.random)?;
        }
        Ok(())
    }

    /// The one who is erased.
    pub fn gone(&self) -> &User {
        &self.users[1]
    }

    /// What the others have.
    pub fn others(&self, engine: &Engine) -> Vec<Contents> {
        let others = [&self.users[0], &self.users[2]];
        others.map(|user| contents(engine, user)).into()
    }

    /// The one has nothing, and the others have what they had.
    pub fn assert_erased(&self, engine: &Engine, others: &[Contents], context: &str) {
        assert_eq!(contents(engine, self.gone()), Contents::new(), "{context}");
        assert_eq!(self.others(engine), others, "{context}");
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

/// The files, by what is in them: those of the directory, and of the simulated disk.
pub fn all_files(dir: &Path, store: Option<&Store>) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths = Vec::new();
    files_in(dir, &mut paths);
    let real = paths.into_iter().filter_map(|path| {
        // sled removes files while they are read.
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

/// Where anything of a user is: sled leaves out what a word has in common with the one
/// before, so that the middle of one will do.
pub fn traces(files: &[(PathBuf, Vec<u8>)], user: &User) -> Vec<PathBuf> {
    let first: HashSet<&[u8]> = user.needles.iter().map(|n| &n.as_bytes()[10..22]).collect();
    let has_any = |bytes: &[u8]| bytes.windows(12).any(|window| first.contains(window));
    let found = files.iter().filter(|(_, bytes)| has_any(bytes));
    found.map(|(path, _)| path.clone()).collect()
}
