//! Writes a backup.

use std::io::{self, Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use tar::{Builder, EntryType, Header};

use crate::store::{Damage, Progress, Revision, Snapshot};
use crate::transfer::archive::checksum::ChecksumReader;
use crate::transfer::archive::contents::{
    BackupContents, BackupFile, CONTENTS, FILE_MODE, FORMAT, UnreadablePlace,
};
use crate::transfer::archive::error::ArchiveError;

/// Writes a snapshot as a backup, and returns the contents of the backup. Data that cannot be read
/// from the disk is missing from the backup, and its location is listed in
/// [`BackupContents::unreadable`].
///
/// # Errors
/// [`ArchiveError::Store`] if the store was closed or the process has too few file descriptors,
/// [`ArchiveError::Send`] if `out` cannot be written.
pub(crate) fn write(
    snapshot: &Snapshot,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<BackupContents, ArchiveError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let mut contents = BackupContents {
        format: FORMAT,
        prefd: env!("CARGO_PKG_VERSION").to_owned(),
        created_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        revision: snapshot.revision().map_or(0, Revision::get),
        documents: snapshot.documents(),
        damaged_frames: snapshot.damaged_frames(),
        unreadable: snapshot.damage().iter().map(UnreadablePlace::of).collect(),
        files: Vec::new(),
    };
    let total_bytes = snapshot.bytes();
    let mut done_bytes = 0;
    let mut archive = Builder::new(out);
    for file in snapshot.files() {
        let reader = match snapshot.open(file) {
            Ok(reader) => reader,
            Err(error) => {
                let damage = Damage::from_error(&error).ok_or(error)?;
                contents.unreadable.push(UnreadablePlace::of(&damage));
                continue;
            }
        };
        let mut reader = ChecksumReader::new(reader);
        append(
            &mut archive,
            file.path(),
            file.bytes(),
            now.as_secs(),
            &mut reader,
        )?;
        let damage = reader.get_ref().damage().map(UnreadablePlace::of);
        let (bytes, crc32) = reader.finish();
        if bytes != file.bytes() {
            return Err(ArchiveError::Send(io::ErrorKind::UnexpectedEof.into()));
        }
        contents.unreadable.extend(damage);
        contents.files.push(BackupFile {
            path: file.path().to_owned(),
            bytes,
            crc32,
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

/// Appends a file of `bytes` bytes to the archive. `modified` is the modification time in seconds
/// since 1970.
pub(super) fn append(
    archive: &mut Builder<&mut dyn Write>,
    path: &str,
    bytes: u64,
    modified: u64,
    reader: &mut dyn Read,
) -> Result<(), ArchiveError> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(FILE_MODE);
    header.set_mtime(modified);
    header.set_path(path).map_err(ArchiveError::Send)?;
    header.set_cksum();
    archive.append(&header, reader).map_err(ArchiveError::Send)
}
