//! A backup: the files of a snapshot as a tar archive.
//!
//! The last file of the archive is `backup.json`. `backup.json` lists every other file with its
//! length and its CRC-32. An archive without `backup.json` is incomplete. An archive that does not
//! match `backup.json` is damaged.
//!
//! An archive is untrusted input. A file is unpacked only if its path is a path of a store file.

mod checksum;
mod contents;
mod error;
mod read;
mod source;
mod write;

pub(crate) use contents::BackupContents;
pub(crate) use error::ArchiveError;
pub(crate) use read::{check, unpack};
pub(crate) use write::write;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{self, Read, Write};

    use tar::{Builder, EntryType, Header};

    use super::*;
    use crate::store::{Durability, Limits, Namespace, is_store_file, offline};
    use crate::transfer::archive::write::append;

    /// Returns a backup of a store with a small and a large document.
    fn backup() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let store = offline::open_for_import(dir.path(), Limits::default()).unwrap();
        let put = |client, text: &[u8]| {
            let user = "user";
            let put = store.put(Namespace { user, client }, text, Durability::Sync);
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
    fn damaged_backup_is_rejected_or_has_unchanged_contents() {
        let good = backup();
        let contents = check(&mut good.as_slice()).unwrap();
        assert_eq!(contents.documents, 2);
        assert!(contents.revision > 0);
        assert_eq!(contents.files.len(), 4, "{contents:?}");
        let end = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let missing_ends = good.len() - 1_024..good.len();
        for length in (0..end)
            .step_by(509)
            .chain([end - 1, end])
            .chain(missing_ends)
        {
            assert!(
                check(&mut &good[..length]).is_err(),
                "a backup truncated to {length} bytes must be rejected"
            );
        }
        // Some bits of a tar header have no effect, such as the bits of the padding.
        let mut rejected = 0;
        for at in (0..end).step_by(97) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            match check(&mut bad.as_slice()) {
                Err(_) => rejected += 1,
                Ok(found) => assert_eq!(found, contents, "byte {at} was changed"),
            }
        }
        assert!(
            rejected > end / 97 * 9 / 10,
            "only {rejected} damaged backups were rejected"
        );
    }

    #[test]
    fn path_outside_a_store_is_never_unpacked() {
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
            assert!(!is_store_file(path), "{path:?} must not be accepted");
        }
        for path in [
            "log/manifest",
            "log/0000000a.seg",
            "log/0000000a.sum",
            "blobs/00000000000000ff.blob",
        ] {
            assert!(is_store_file(path), "{path:?} must be accepted");
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

    /// Returns a member of the given type with `bytes` bytes of data that are never in memory.
    fn member(kind: EntryType, bytes: u64) -> impl Read {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(bytes);
        header.set_path("description").unwrap();
        header.set_cksum();
        let padded = bytes.next_multiple_of(512);
        io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b' ').take(padded))
    }

    #[test]
    fn long_description_of_a_member_is_refused_and_short_ones_are_ignored() {
        let good = backup();
        let contents = check(&mut good.as_slice()).unwrap();
        for kind in [
            EntryType::XHeader,
            EntryType::XGlobalHeader,
            EntryType::GNULongName,
            EntryType::GNULongLink,
        ] {
            let mut short = member(kind, 1_000).chain(good.as_slice());
            assert_eq!(check(&mut short).unwrap(), contents, "{kind:?}");
            let mut long = member(kind, 2 << 30);
            let error = check(&mut long).unwrap_err().to_string();
            assert!(error.contains("too long"), "{kind:?}: {error}");
        }
    }

    #[test]
    fn input_that_is_not_a_backup_gets_an_error_that_says_so() {
        let good = backup();
        let error = |bytes: &[u8]| check(&mut &*bytes).unwrap_err().to_string();
        for (magic, words) in [
            (&b"\x1f\x8b\x08"[..], "compressed with gzip"),
            (b"\x28\xb5\x2f\xfd", "zstd -dc FILE | prefd restore"),
            (b"\xfd7zXZ\0", "xz"),
            (b"BZh9", "bzip2"),
            (b"{\"no\": \"archive\"}", "not a backup"),
            (&[b'x'; 2_000], "not a backup"),
            (b"", "ends after 0 bytes"),
        ] {
            assert!(error(magic).contains(words), "{}", error(magic));
        }
        let end = good.len() - 1_024;
        for (length, words) in [
            (512, "the backup is truncated: it ends after 512 bytes"),
            (end, &*format!("it ends after {end} bytes")),
        ] {
            let error = error(&good[..length]);
            assert!(error.contains(words), "{error}");
        }
    }
}
