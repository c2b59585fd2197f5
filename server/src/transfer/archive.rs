//! A backup: the files of a data directory at one moment, in a tar archive whose last
//! member says what must be in it.
//!
//! `backup.json` lists every other member with its length and its CRC-32. An archive
//! without it was cut short; one that does not agree with it is damaged. Nothing else is
//! believed of an archive, its paths least of all.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType, Header};

use crate::store::{
    Damage, Error, Progress, Revision, Snapshot, is_file_of_a_store, private_folder,
};

/// The last member.
const CONTENTS: &str = "backup.json";
/// The version of what is described here.
const FORMAT: u32 = 1;
/// Bytes of that member, at most: some 90 for each file.
const MAX_CONTENTS_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes that are copied at once.
const COPY_BYTES: usize = 256 * 1024;
/// Nobody but the owner reads what users keep.
const MODE: u32 = 0o600;

/// What an archive says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    format: u32,
    /// The version of prefd that made it.
    pub(crate) prefd: String,
    /// Milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// The newest revision in it; 0 where there is none.
    pub(crate) revision: u64,
    pub(crate) documents: u64,
    /// Frames that were known to be damaged.
    #[serde(default)]
    pub(crate) damaged_frames: u64,
    /// Places that the disk did not return. The backup has zeros there, or lacks the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unreadable: Vec<Unreadable>,
    files: Vec<Member>,
}

/// The first place of a file that the disk did not return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unreadable {
    /// On the machine that made the backup.
    path: String,
    offset: u64,
    reason: String,
}

impl Unreadable {
    fn of(damage: &Damage) -> Self {
        Self {
            path: damage.path.display().to_string(),
            offset: damage.offset,
            reason: damage.what.clone(),
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.path, self.offset, self.reason)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    path: String,
    bytes: u64,
    crc32: u32,
}

/// Why an archive cannot be made, or not be believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ArchiveError {
    #[error("cannot read the backup: {0}")]
    Read(io::Error),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot write the backup: {0}")]
    Send(io::Error),
    #[error("cannot read the store: {0}")]
    Store(#[from] Error),
    #[error("the backup breaks off: it does not say what must be in it ({CONTENTS})")]
    CutShort,
    #[error("the backup is damaged: {what}: {path}")]
    Damaged { path: String, what: &'static str },
    #[error("the backup is damaged: {CONTENTS}: {0}")]
    Contents(#[from] serde_json::Error),
    #[error("the backup is of format {found}, and this prefd reads format {FORMAT}")]
    Format { found: u32 },
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> Self {
        Self::Send(error)
    }
}

fn damaged(path: impl Into<String>, what: &'static str) -> ArchiveError {
    ArchiveError::Damaged {
        path: path.into(),
        what,
    }
}

/// Writes a snapshot, and returns what it says about itself. Places that the disk does not
/// return are left out and named.
pub(crate) fn write(
    snapshot: &Snapshot,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<Contents, ArchiveError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let mut contents = Contents {
        format: FORMAT,
        prefd: env!("CARGO_PKG_VERSION").to_owned(),
        created_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        revision: snapshot.revision().map_or(0, Revision::get),
        documents: snapshot.documents(),
        damaged_frames: snapshot.damaged_frames(),
        unreadable: snapshot.damage().iter().map(Unreadable::of).collect(),
        files: Vec::new(),
    };
    let total_bytes = snapshot.bytes();
    let mut done_bytes = 0;
    let mut archive = Builder::new(out);
    for file in snapshot.files() {
        let mut reader = Counting::new(snapshot.open(file)?);
        append(
            &mut archive,
            file.path(),
            file.bytes(),
            now.as_secs(),
            &mut reader,
        )?;
        if reader.bytes != file.bytes() {
            return Err(ArchiveError::Send(io::ErrorKind::UnexpectedEof.into()));
        }
        let damage = reader.reader.damage().map(Unreadable::of);
        contents.unreadable.extend(damage);
        contents.files.push(Member {
            path: file.path().to_owned(),
            bytes: reader.bytes,
            crc32: reader.hasher.finalize(),
        });
        done_bytes += file.bytes();
        progress(Progress {
            done_bytes,
            total_bytes,
        });
    }
    let text = serde_json::to_vec(&contents)?;
    append(
        &mut archive,
        CONTENTS,
        text.len() as u64,
        now.as_secs(),
        &mut text.as_slice(),
    )?;
    archive.finish().map_err(ArchiveError::Send)?;
    Ok(contents)
}

fn append(
    archive: &mut Builder<&mut dyn Write>,
    path: &str,
    bytes: u64,
    now: u64,
    reader: &mut dyn Read,
) -> Result<(), ArchiveError> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(MODE);
    header.set_mtime(now);
    header.set_path(path).map_err(ArchiveError::Send)?;
    header.set_cksum();
    archive.append(&header, reader).map_err(ArchiveError::Send)
}

/// Counts and hashes what is read.
struct Counting<R> {
    reader: R,
    bytes: u64,
    hasher: Hasher,
}

impl<R> Counting<R> {
    fn new(reader: R) -> Self {
        Self {
            reader,
            bytes: 0,
            hasher: Hasher::new(),
        }
    }
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.bytes += read as u64;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Makes a file that must not be there, for the owner only.
fn private_file(path: &Path) -> io::Result<File> {
    let mut file = File::options();
    file.write(true).create_new(true).mode(MODE).open(path)
}

/// Checks an archive to its end.
pub(crate) fn check(from: &mut dyn Read) -> Result<Contents, ArchiveError> {
    each_member(from, &mut |_, reader| {
        io::copy(reader, &mut io::sink()).map_err(ArchiveError::Read)?;
        Ok(())
    })
}

/// Lays an archive's files in a folder, which is there and empty, synced, and checks them.
/// What is not right leaves files behind, which are not to be used.
pub(crate) fn unpack(from: &mut dyn Read, folder: &Path) -> Result<Contents, ArchiveError> {
    let mut folders = vec![folder.to_owned()];
    let contents = each_member(from, &mut |path, reader| {
        let path = folder.join(path);
        let fail = |source| ArchiveError::Write {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent()
            && !folders.iter().any(|folder| folder == parent)
        {
            private_folder(parent).map_err(fail)?;
            folders.push(parent.to_owned());
        }
        let mut file = private_file(&path).map_err(fail)?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let read = reader.read(&mut buffer).map_err(ArchiveError::Read)?;
            if read == 0 {
                break;
            }
            let chunk = buffer.get(..read).unwrap_or_default();
            file.write_all(chunk).map_err(fail)?;
        }
        file.sync_all().map_err(fail)
    })?;
    // An empty store has no blobs, and no folder for them.
    for folder in folders {
        let synced = File::open(&folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| ArchiveError::Write {
            path: folder,
            source,
        })?;
    }
    Ok(contents)
}

type Take<'a> = dyn FnMut(&str, &mut dyn Read) -> Result<(), ArchiveError> + 'a;

/// Hands each member to `take`, which reads it to its end, and compares them with what the
/// last one says.
fn each_member(from: &mut dyn Read, take: &mut Take<'_>) -> Result<Contents, ArchiveError> {
    let mut archive = Archive::new(from);
    let mut found: BTreeMap<String, (u64, u32)> = BTreeMap::new();
    for member in archive.entries().map_err(ArchiveError::Read)? {
        let mut member = member.map_err(ArchiveError::Read)?;
        let path = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        if member.header().entry_type() != EntryType::Regular {
            return Err(damaged(path, "a member that is no file"));
        }
        if path == CONTENTS {
            let mut text = Vec::new();
            let mut limited = member.take(MAX_CONTENTS_BYTES);
            limited.read_to_end(&mut text).map_err(ArchiveError::Read)?;
            return compare(serde_json::from_slice(&text)?, found);
        }
        if !is_file_of_a_store(&path) {
            return Err(damaged(path, "a member that is no part of a store"));
        }
        let mut reader = Counting::new(&mut member);
        take(&path, &mut reader)?;
        let Counting { bytes, hasher, .. } = reader;
        if found
            .insert(path.clone(), (bytes, hasher.finalize()))
            .is_some()
        {
            return Err(damaged(path, "a member that is there twice"));
        }
    }
    Err(ArchiveError::CutShort)
}

fn compare(
    contents: Contents,
    mut found: BTreeMap<String, (u64, u32)>,
) -> Result<Contents, ArchiveError> {
    if contents.format != FORMAT {
        return Err(ArchiveError::Format {
            found: contents.format,
        });
    }
    for member in &contents.files {
        match found.remove(&member.path) {
            None => return Err(damaged(&member.path, "a member is missing")),
            Some(found) if found != (member.bytes, member.crc32) => {
                return Err(damaged(&member.path, "a member is not as it was written"));
            }
            Some(_) => {}
        }
    }
    match found.pop_first() {
        Some((path, _)) => Err(damaged(path, "a member that is not listed")),
        None => Ok(contents),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::store::{Durability, Limits, Name, offline};

    fn archive() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let store = offline::open_to_fill(dir.path(), Limits::default()).unwrap();
        let put = |client, text: &[u8]| {
            let user = "user";
            let put = store.put(Name { user, client }, text, Durability::Sync);
            put.unwrap();
        };
        put("client", b"{\"a\":1}");
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(400_000));
        put("large", large.as_bytes());
        let mut out = Vec::new();
        write(&store.snapshot().unwrap(), &mut out, &mut |_| {}).unwrap();
        out
    }

    #[test]
    fn every_damage_to_an_archive_is_noticed() {
        let good = archive();
        let contents = check(&mut good.as_slice()).unwrap();
        assert_eq!((contents.documents, contents.revision), (2, 2));
        assert_eq!(contents.files.len(), 4, "{contents:?}");
        // Cut anywhere that loses anything of it: behind the last member only zeros follow.
        let end = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for length in (0..end).step_by(509).chain([end - 1]) {
            assert!(check(&mut &good[..length]).is_err(), "cut at {length}");
        }
        // A bit of anything but padding, owners and times.
        let mut noticed = 0;
        for at in (0..end).step_by(97) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            match check(&mut bad.as_slice()) {
                Err(_) => noticed += 1,
                Ok(found) => assert_eq!(found, contents, "at {at}"),
            }
        }
        assert!(noticed > end / 97 * 9 / 10, "{noticed}");
    }

    #[test]
    fn nothing_is_laid_anywhere_but_in_a_store() {
        for path in [
            "../log/manifest",
            "/log/manifest",
            "log/../manifest",
            "log/manifest/x",
            "manifest",
            "log/1.seg",
            "log/0000000g.seg",
            "blobs/00000001.blob",
            "catalogue/db",
            "lock",
            "",
            "log/",
            "log/00000001.seg ",
            "log\\manifest",
            "dev-signing-key",
        ] {
            assert!(!is_file_of_a_store(path), "{path}");
        }
        for path in [
            "log/manifest",
            "log/0000000a.seg",
            "log/0000000a.sum",
            "blobs/00000000000000ff.blob",
        ] {
            assert!(is_file_of_a_store(path), "{path}");
        }
        let mut out = Vec::new();
        let mut builder = Builder::new(&mut out as &mut dyn Write);
        append(&mut builder, "lock", 1, 0, &mut &b"x"[..]).unwrap();
        builder.finish().unwrap();
        drop(builder);
        let dir = tempfile::tempdir().unwrap();
        assert!(unpack(&mut out.as_slice(), dir.path()).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
