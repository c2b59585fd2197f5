//! Reads the small files that settings name: keys, secrets, certificates and the configuration
//! file.
//!
//! **Architecture Invariant:** this is the lowest layer. This layer imports nothing from the rest
//! of the crate.

use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Maximum length of a file in bytes. The longest of these files, a key set or a certificate chain,
/// has some ten thousand bytes. Without a limit, a device such as `/dev/zero` would be read until
/// the memory is full.
const MAX_BYTES: u64 = 1024 * 1024;
/// The permission that lets every user of the machine read a file.
const READABLE_BY_OTHERS: u32 = 0o004;

/// Reads a file of up to 1 MiB. Blocks.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::new(
            ErrorKind::FileTooLarge,
            format!("the file is longer than {MAX_BYTES} bytes, so it is probably the wrong file"),
        ));
    }
    Ok(bytes)
}

/// Reads a text file of up to 1 MiB without its byte order mark, which some editors add. Blocks.
pub(crate) fn read_text(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = read(path)?;
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "the file is text in UTF-16: save it as UTF-8",
        ));
    }
    if bytes.starts_with("\u{feff}".as_bytes()) {
        bytes.drain(.."\u{feff}".len());
    }
    Ok(bytes)
}

/// Whether every user of the machine may read the file. False if this cannot be found out. Blocks.
pub(crate) fn is_readable_by_others(path: &Path) -> bool {
    let metadata = std::fs::metadata(path);
    metadata.is_ok_and(|metadata| {
        metadata.is_file() && metadata.permissions().mode() & READABLE_BY_OTHERS != 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_file_loses_its_byte_order_mark() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (bytes, expected) in [
            (&b"\xef\xbb\xbfab"[..], Some(&b"ab"[..])),
            (b"ab\xef\xbb\xbf", Some(b"ab\xef\xbb\xbf")),
            (b"", Some(b"")),
            (b"\xff\xfea\0b\0", None),
            (b"\xfe\xff\0a\0b", None),
        ] {
            std::fs::write(file.path(), bytes).unwrap();
            assert_eq!(read_text(file.path()).ok().as_deref(), expected);
            assert_eq!(read(file.path()).unwrap(), bytes);
        }
    }

    #[test]
    fn endless_file_is_refused_and_a_file_of_1_mib_is_read() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 1024 * 1024]).unwrap();
        assert_eq!(read(file.path()).unwrap().len(), 1024 * 1024);
    }
}
