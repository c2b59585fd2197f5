//! Reads a backup, and checks it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tar::{Archive, EntryType};

use crate::io_error::io_error;
use crate::store::{create_private_dir, is_store_file};
use crate::transfer::archive::checksum::ChecksumReader;
use crate::transfer::archive::contents::{BackupContents, CONTENTS, FILE_MODE, FORMAT};
use crate::transfer::archive::error::{ArchiveError, damaged};
use crate::transfer::archive::source::{BLOCK_BYTES, Source};

/// Maximum length of `backup.json` in bytes. The entry of one file has about 90 bytes, so this
/// length is enough for nearly 3 million files.
const MAX_CONTENTS_BYTES: u64 = 256 * 1024 * 1024;
/// Maximum length of a member that describes another member, such as a PAX header, in bytes. `tar`
/// programs add such members when they pack the files of a backup again. prefd does not need them,
/// because the names of the files in a backup are short.
const MAX_DESCRIPTION_BYTES: u64 = 64 * 1024;
/// Length of the end marker of a tar archive: two blocks of zeros.
const END_MARKER_BYTES: usize = 2 * BLOCK_BYTES;
/// Size of the buffer for unpacking, in bytes.
const COPY_BYTES: usize = 256 * 1024;

/// Reads a backup completely, and checks it.
///
/// # Errors
/// [`ArchiveError`] if the backup cannot be read, is incomplete or is damaged.
pub(crate) fn check(from: &mut dyn Read) -> Result<BackupContents, ArchiveError> {
    for_each_file(from, &mut |_, reader| {
        io::copy(reader, &mut io::sink()).map_err(ArchiveError::Read)?;
        Ok(())
    })
}

/// Unpacks a backup into an empty folder, checks the backup, and syncs the files.
///
/// # Errors
/// [`ArchiveError`] if the backup cannot be read, is incomplete or is damaged, or if a file cannot
/// be written. After an error, the folder may contain files, which must not be used.
pub(crate) fn unpack(from: &mut dyn Read, folder: &Path) -> Result<BackupContents, ArchiveError> {
    let mut folders = vec![folder.to_owned()];
    let contents = for_each_file(from, &mut |path, reader| {
        let path = folder.join(path);
        if let Some(parent) = path.parent()
            && !folders.iter().any(|folder| folder == parent)
        {
            create_private_dir(parent).map_err(io_error("create", parent))?;
            folders.push(parent.to_owned());
        }
        let mut file = create_file(&path).map_err(io_error("create", &path))?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let read = reader.read(&mut buffer).map_err(ArchiveError::Read)?;
            if read == 0 {
                break;
            }
            let chunk = buffer.get(..read).unwrap_or_default();
            file.write_all(chunk).map_err(io_error("write", &path))?;
        }
        Ok(file.sync_all().map_err(io_error("sync", &path))?)
    })?;
    for folder in folders {
        let synced = File::open(&folder).and_then(|folder| folder.sync_all());
        synced.map_err(io_error("sync", &folder))?;
    }
    Ok(contents)
}

/// Creates a file that only its owner may read. Fails if the file exists.
fn create_file(path: &Path) -> io::Result<File> {
    let mut file = File::options();
    file.write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// A function that receives the path of a file in the backup, and a reader of the bytes of this
/// file.
type FileVisitor<'a> = dyn FnMut(&str, &mut dyn Read) -> Result<(), ArchiveError> + 'a;

/// Passes each file of the backup to `visit`, which must read the file completely. After the last
/// file, compares the lengths and checksums of all files with `backup.json`.
fn for_each_file(
    from: &mut dyn Read,
    visit: &mut FileVisitor<'_>,
) -> Result<BackupContents, ArchiveError> {
    let mut source = Source::open(from)?;
    let read = read_members(&mut source, visit).and_then(|(text, found)| {
        check_end(&mut source, text.len())?;
        compare(serde_json::from_slice(&text)?, found)
    });
    read.map_err(|error| source.explain(error))
}

/// The length and the CRC-32 of each file of a backup.
type FoundFiles = BTreeMap<String, (u64, u32)>;

/// Passes each file of the backup to `visit`. Returns the text of `backup.json`, which is the last
/// file, and the files before it.
fn read_members(
    source: &mut Source<'_>,
    visit: &mut FileVisitor<'_>,
) -> Result<(Vec<u8>, FoundFiles), ArchiveError> {
    let mut archive = Archive::new(source);
    let mut found = FoundFiles::new();
    // The crate reads members that describe other members completely into memory, except in raw
    // mode.
    let entries = archive.entries().map_err(ArchiveError::Read)?.raw(true);
    for entry in entries {
        let mut entry = entry.map_err(ArchiveError::Read)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        match entry.header().entry_type() {
            EntryType::Regular => {}
            EntryType::XHeader
            | EntryType::XGlobalHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink => {
                if entry.size() > MAX_DESCRIPTION_BYTES {
                    return Err(damaged(path, "the description of a file is too long"));
                }
                continue;
            }
            _ => return Err(damaged(path, "the entry is not a regular file")),
        }
        if path == CONTENTS {
            let mut text = Vec::new();
            let mut limited = entry.take(MAX_CONTENTS_BYTES);
            limited.read_to_end(&mut text).map_err(ArchiveError::Read)?;
            return Ok((text, found));
        }
        // The path comes from the backup, so it is not trusted and must not lead out of the target
        // folder.
        if !is_store_file(&path) {
            return Err(damaged(path, "the file does not belong to a store"));
        }
        let mut reader = ChecksumReader::new(&mut entry);
        visit(&path, &mut reader)?;
        let sum = reader.finish();
        if found.insert(path.clone(), sum).is_some() {
            return Err(damaged(path, "the file appears twice"));
        }
    }
    Err(ArchiveError::Incomplete)
}

/// Checks that the archive ends with an end marker after the last file. Without this check, a
/// backup whose last bytes are missing would be accepted. `last_bytes` is the length of the last
/// file.
fn check_end(source: &mut Source<'_>, last_bytes: usize) -> Result<(), ArchiveError> {
    let padding = last_bytes.next_multiple_of(BLOCK_BYTES) - last_bytes;
    let mut end = vec![0; padding + END_MARKER_BYTES];
    source.read_exact(&mut end).map_err(ArchiveError::Read)?;
    if end.iter().any(|byte| *byte != 0) {
        return Err(damaged(
            CONTENTS,
            "the end marker of the archive is missing",
        ));
    }
    Ok(())
}

/// Compares the lengths and checksums of the files that were found with those in `backup.json`.
fn compare(
    contents: BackupContents,
    mut found: FoundFiles,
) -> Result<BackupContents, ArchiveError> {
    if contents.format != FORMAT {
        return Err(ArchiveError::Format {
            found: contents.format,
        });
    }
    for file in &contents.files {
        match found.remove(&file.path) {
            None => return Err(damaged(&file.path, "the file is missing")),
            Some(found) if found != (file.bytes, file.crc32) => {
                return Err(damaged(
                    &file.path,
                    "the length or the checksum of the file is wrong",
                ));
            }
            Some(_) => {}
        }
    }
    match found.pop_first() {
        Some((path, _)) => Err(damaged(path, "the file is not listed in the contents")),
        None => Ok(contents),
    }
}
