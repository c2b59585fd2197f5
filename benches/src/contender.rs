//! Who is measured: storage engines, and servers. prefd is both.

use std::process::{Command, Stdio};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;

/// An engine or a server under test.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// prefd-engine, and prefd.
    Prefd,
    /// A file that is appended to, and read at a known place: what the disk and the
    /// system calls allow. It finds, checks and recovers nothing.
    Bare,
    /// sled, which does not sync: see `syncs.rs`.
    Sled,
    /// redb.
    Redb,
    /// fjall.
    Fjall,
    /// LMDB, through heed.
    Lmdb,
    /// SQLite, through rusqlite.
    Sqlite,
    /// RocksDB, through rust-rocksdb.
    Rocksdb,
    /// A hyper server that answers everything alike: what HTTP itself takes.
    Hyper,
    /// nginx, which serves files.
    Nginx,
    /// webdis in front of Redis.
    Webdis,
}

impl Contender {
    /// Those that this build has. Whether a server's program is installed shows when it
    /// is started.
    pub const ALL: &[Self] = &[
        Self::Prefd,
        Self::Bare,
        #[cfg(feature = "peers")]
        Self::Sled,
        #[cfg(feature = "peers")]
        Self::Redb,
        #[cfg(feature = "peers")]
        Self::Fjall,
        #[cfg(feature = "peers")]
        Self::Lmdb,
        #[cfg(feature = "peers")]
        Self::Sqlite,
        #[cfg(feature = "rocksdb")]
        Self::Rocksdb,
        Self::Hyper,
        Self::Nginx,
        Self::Webdis,
    ];

    /// Its name, as reports have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefd => "prefd",
            Self::Bare => "bare file",
            Self::Sled => "sled",
            Self::Redb => "redb",
            Self::Fjall => "fjall",
            Self::Lmdb => "LMDB",
            Self::Sqlite => "SQLite",
            Self::Rocksdb => "RocksDB",
            Self::Hyper => "hyper, a constant answer",
            Self::Nginx => "nginx",
            Self::Webdis => "webdis, Redis",
        }
    }

    /// Whether it takes part in a scenario.
    pub fn supports(self, scenario: Scenario) -> bool {
        match self {
            Self::Prefd => true,
            Self::Hyper | Self::Nginx | Self::Webdis => scenario == Scenario::Http,
            // It has nothing to open again, and no memory of its own to speak of.
            Self::Bare => !matches!(scenario, Scenario::Http | Scenario::Scale),
            _ => scenario != Scenario::Http,
        }
    }

    /// Whether it keeps what it is sent, so that it can be asked to do so durably.
    pub fn keeps_documents(self) -> bool {
        !matches!(self, Self::Hyper | Self::Nginx)
    }

    /// What it does for a durable put, in its own words.
    pub fn durable_mode(self) -> &'static str {
        match self {
            Self::Prefd => "Durability::Sync",
            Self::Bare => "pwrite, fdatasync",
            Self::Sled => "insert, flush (no fsync: survives no power cut)",
            Self::Redb => "Durability::Immediate",
            Self::Fjall => "insert, persist(SyncAll)",
            Self::Lmdb => "commit, default flags",
            Self::Sqlite => "WAL, synchronous=FULL",
            Self::Rocksdb => "WriteOptions sync",
            Self::Hyper | Self::Nginx => "–",
            Self::Webdis => "appendonly yes, appendfsync always",
        }
    }

    /// What it does for a put that need not be durable.
    pub fn plain_mode(self) -> &'static str {
        match self {
            Self::Prefd => "Durability::Buffered",
            Self::Bare => "pwrite",
            Self::Sled | Self::Fjall => "insert",
            Self::Redb => "Durability::None, Immediate every 1,000",
            Self::Lmdb => "commit, NO_SYNC",
            Self::Sqlite => "WAL, synchronous=OFF",
            Self::Rocksdb => "WriteOptions without sync",
            Self::Hyper | Self::Nginx | Self::Webdis => "–",
        }
    }

    /// The version that was built, from the lock file, or that is installed.
    pub fn version(self) -> String {
        match self {
            Self::Prefd => locked("prefd-engine"),
            Self::Bare => String::new(),
            Self::Sled => locked("sled"),
            Self::Redb => locked("redb"),
            Self::Fjall => locked("fjall"),
            Self::Lmdb => locked("lmdb-master-sys"),
            Self::Sqlite => locked("libsqlite3-sys"),
            Self::Rocksdb => locked("librocksdb-sys"),
            Self::Hyper => locked("hyper"),
            Self::Nginx => installed("nginx", "-v"),
            // webdis takes every argument for the name of its configuration.
            Self::Webdis => installed("redis-server", "--version"),
        }
    }
}

fn locked(name: &str) -> String {
    let mut lines = include_str!("../../Cargo.lock").lines();
    let version = lines
        .by_ref()
        .find(|line| *line == format!("name = \"{name}\""))
        .and_then(|_| lines.next())
        .and_then(|line| line.split('"').nth(1))
        .unwrap_or("unknown");
    format!("{name} {version}")
}

/// What a program says of its version, on either output.
fn installed(program: &str, argument: &str) -> String {
    let said = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = said else {
        return "not installed".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    let number = String::from_utf8_lossy(&text)
        .split_ascii_whitespace()
        .find_map(|word| {
            let number = word.trim_start_matches(|c: char| !c.is_ascii_digit());
            number.contains('.').then(|| number.to_owned())
        });
    format!("{program} {}", number.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::Contender::{Bare, Hyper, Nginx, Prefd, Webdis};
    use super::*;

    #[test]
    fn servers_play_http_and_engines_play_the_rest() {
        let who = |scenario| {
            let all = Contender::value_variants().iter().copied();
            all.filter(|c| c.supports(scenario)).collect::<Vec<_>>()
        };
        assert_eq!(who(Scenario::Http), [Prefd, Hyper, Nginx, Webdis]);
        assert!(who(Scenario::Durable).contains(&Bare));
        assert!(!who(Scenario::Scale).contains(&Bare));
        assert!(!who(Scenario::Scale).contains(&Webdis));
    }

    #[test]
    fn versions_are_found_in_the_lock_file() {
        assert_eq!(Contender::Sled.version(), "sled 0.34.7");
        assert!(Hyper.version().starts_with("hyper 1."));
        assert_eq!(installed("no-such-program", "-v"), "not installed");
    }
}
