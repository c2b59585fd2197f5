//! The contenders: storage engines and servers. prefd is both.

use std::process::{Command, Stdio};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;

/// A storage engine or a server under test.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// prefd-engine, or the server prefd.
    Prefd,
    /// A bare file. Puts append to it, and gets read at a known offset. It shows what the disk
    /// and the system calls allow.
    Bare,
    /// sled, which does not flush the disk's own cache.
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
    /// A hyper server that always returns the same response. It shows the cost of HTTP alone.
    Hyper,
    /// nginx, serving files.
    Nginx,
    /// webdis in front of Redis.
    Webdis,
}

impl Contender {
    /// All contenders of this build. This includes servers that may not be installed.
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

    /// The name in reports.
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
            Self::Hyper => "hyper, constant response",
            Self::Nginx => "nginx",
            Self::Webdis => "webdis, Redis",
        }
    }

    /// Whether the contender runs a scenario.
    pub fn supports(self, scenario: Scenario) -> bool {
        match self {
            Self::Prefd => true,
            Self::Hyper | Self::Nginx | Self::Webdis => scenario == Scenario::Http,
            // The bare file has no index to recover, and hardly any memory of its own.
            Self::Bare => !matches!(scenario, Scenario::Http | Scenario::Scale),
            _ => scenario != Scenario::Http,
        }
    }

    /// Whether the contender stores documents. hyper and nginx only return them.
    pub fn stores_documents(self) -> bool {
        !matches!(self, Self::Hyper | Self::Nginx)
    }

    /// How the contender makes a put durable, in terms of its own interface.
    pub fn durable_mode(self) -> &'static str {
        match self {
            Self::Prefd => "Durability::Sync",
            Self::Bare => "pwrite, fdatasync",
            Self::Sled => "insert, flush (no fsync: lost in a power failure)",
            Self::Redb => "Durability::Immediate",
            Self::Fjall => "insert, persist(SyncAll)",
            Self::Lmdb => "commit, default flags",
            Self::Sqlite => "WAL, synchronous=FULL",
            Self::Rocksdb => "WriteOptions sync",
            Self::Hyper | Self::Nginx => "–",
            Self::Webdis => "appendonly yes, appendfsync always",
        }
    }

    /// How the contender puts without durability, in terms of its own interface.
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

    /// The version: of the crate in the lock file, or of the installed program.
    pub fn version(self) -> String {
        match self {
            Self::Prefd => locked_version("prefd-engine"),
            Self::Bare => String::new(),
            Self::Sled => locked_version("sled"),
            Self::Redb => locked_version("redb"),
            Self::Fjall => locked_version("fjall"),
            Self::Lmdb => locked_version("lmdb-master-sys"),
            Self::Sqlite => locked_version("libsqlite3-sys"),
            Self::Rocksdb => locked_version("librocksdb-sys"),
            Self::Hyper => locked_version("hyper"),
            Self::Nginx => installed_version("nginx", "-v"),
            // webdis cannot print its version: it treats each argument as a configuration file.
            Self::Webdis => installed_version("redis-server", "--version"),
        }
    }
}

/// The version of a crate in the lock file.
fn locked_version(name: &str) -> String {
    let mut lines = include_str!("../../Cargo.lock").lines();
    let version = lines
        .by_ref()
        .find(|line| *line == format!("name = \"{name}\""))
        .and_then(|_| lines.next())
        .and_then(|line| line.split('"').nth(1))
        .unwrap_or("unknown");
    format!("{name} {version}")
}

/// The version that a program prints to its standard output or its standard error.
fn installed_version(program: &str, argument: &str) -> String {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
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
    fn servers_run_http_and_engines_run_the_other_scenarios() {
        let supporting = |scenario| {
            let all = Contender::value_variants().iter().copied();
            all.filter(|c| c.supports(scenario)).collect::<Vec<_>>()
        };
        assert_eq!(supporting(Scenario::Http), [Prefd, Hyper, Nginx, Webdis]);
        assert!(supporting(Scenario::Durable).contains(&Bare));
        assert!(!supporting(Scenario::Scale).contains(&Bare));
        assert!(!supporting(Scenario::Scale).contains(&Webdis));
    }

    #[test]
    fn version_is_read_from_the_lock_file() {
        assert_eq!(Contender::Sled.version(), "sled 0.34.7");
        assert!(Hyper.version().starts_with("hyper 1."));
        assert_eq!(installed_version("no-such-program", "-v"), "not installed");
    }
}
