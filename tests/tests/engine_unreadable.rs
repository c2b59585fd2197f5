//! A disk that returns EIO for a sealed segment, its summary or a blob. Only the documents in
//! the unreadable file are lost. All other documents can be read, copied, compacted and erased,
//! and the file is named.
//!
//! Regression: an error counted as damage only if its operation was the string "read". The
//! comparison missed errors from the scan of a segment whose summary was unreadable too. `stats`,
//! and every command that starts with the same scan, failed for the entire store. A backup
//! stopped at the first unreadable file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use prefd_engine::{
    CatalogueCheck, Config, Damage, Engine, Error, Impact, WriteOptions, require_store, stats,
    verify,
};
use prefd_tests::unreadable_disk::UnreadableDisk;

/// Number of users. Each user has an early and a late document. Late documents are not in the
/// first segment.
const USERS: usize = 60;
const LARGE_BYTES: usize = 600_000;

/// The files that the disk does not return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    Data,
    Summary,
    DataAndSummary,
    Blob,
}

const ALL: [Unreadable; 4] = [
    Unreadable::Data,
    Unreadable::Summary,
    Unreadable::DataAndSummary,
    Unreadable::Blob,
];

/// A closed store of several segments and one blob, and its documents.
struct Store {
    dir: tempfile::TempDir,
    documents: BTreeMap<(String, String), Vec<u8>>,
}

impl Store {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Self {
            dir,
            documents: BTreeMap::new(),
        };
        let engine = Engine::open(store.config()).unwrap();
        let mut put = |user: &str, client: &str, bytes: usize| {
            let body = format!("{{\"k\":\"{}\"}}", "v".repeat(bytes)).into_bytes();
            let namespace = engine.namespace(user, client).unwrap();
            namespace.write(&body, WriteOptions::default()).unwrap();
            let name = (user.to_owned(), client.to_owned());
            store.documents.insert(name, body);
        };
        for client in ["early", "late"] {
            for n in 0..USERS {
                put(&format!("user-{n:02}"), client, 2000);
            }
        }
        put("large", "large", LARGE_BYTES);
        engine.close().unwrap();
        store
    }

    fn config(&self) -> Config {
        let mut config = Config::new(self.dir.path());
        config.segment_bytes = Config::MIN_SEGMENT_BYTES;
        config.background_compaction = false;
        config
    }

    /// The path of the first segment, which contains only early documents.
    fn segment(&self) -> PathBuf {
        self.dir.path().join("log/00000001.seg")
    }

    fn files(&self, which: Unreadable) -> Vec<PathBuf> {
        let summary = self.segment().with_extension("sum");
        match which {
            Unreadable::Data => vec![self.segment()],
            Unreadable::Summary => vec![summary],
            Unreadable::DataAndSummary => vec![self.segment(), summary],
            Unreadable::Blob => {
                let blobs = fs::read_dir(self.dir.path().join("blobs")).unwrap();
                blobs.map(|blob| blob.unwrap().path()).collect()
            }
        }
    }

    /// The store on a disk that does not return these files.
    fn on_bad_disk(&self, which: Unreadable) -> Config {
        let mut config = self.config();
        config.fs = UnreadableDisk::new(self.files(which));
        config
    }
}

/// Returns the number of documents that can be read. Every other read must fail with damage.
fn count_readable(engine: &Engine, store: &Store, context: &str) -> usize {
    let mut readable = 0;
    for ((user, client), body) in &store.documents {
        let read = engine.get(user, client).and_then(|document| {
            let document = document.expect("the document was never deleted");
            document.read()
        });
        match read {
            Ok(found) => {
                assert!(found == *body, "{context}: {user} {client}");
                readable += 1;
            }
            Err(error) => assert!(error.is_damage(), "{context}: {user} {client}: {error}"),
        }
    }
    readable
}

/// Panics unless `damage` reports a failed read of the file.
fn assert_read_failed(damage: &Damage, path: &Path) {
    assert_eq!(damage.path, path);
    assert!(damage.what.contains("a read failed"), "{damage}");
    assert!(damage.to_string().contains("os error 5"), "{damage}");
}

#[test]
fn stats_skip_unreadable_files_and_name_them() {
    let store = Store::new();
    let whole = stats(&store.config()).unwrap();
    assert_eq!(whole.damage, []);
    for which in ALL {
        let config = store.on_bad_disk(which);
        let found = stats(&config).unwrap();
        assert_eq!(found.segments, whole.segments, "{which:?}");
        assert_eq!(found.log_bytes, whole.log_bytes, "{which:?}");
        if which == Unreadable::DataAndSummary {
            assert!(found.documents > USERS as u64 && found.documents < whole.documents);
            assert_eq!(found.damaged_frames, 1);
            assert_read_failed(&found.damage[0], &store.segment());
        } else {
            // Only the summaries are read, and an unreadable summary is rebuilt from the frames.
            assert_eq!(found, whole, "{which:?}");
        }
    }
}

#[test]
fn open_store_with_unreadable_files_serves_everything_else() {
    let store = Store::new();
    for which in ALL {
        let context = format!("{which:?}");
        let engine = Engine::open(store.on_bad_disk(which)).unwrap();
        let readable = count_readable(&engine, &store, &context);
        match which {
            Unreadable::Summary => assert_eq!(readable, store.documents.len()),
            Unreadable::Blob => assert_eq!(readable, store.documents.len() - 1),
            // A document that is newer than every lost frame is known to be current.
            Unreadable::Data | Unreadable::DataAndSummary => assert!(
                readable > USERS && readable < store.documents.len(),
                "{context}: {readable}"
            ),
        }
        let known = engine.list_known(None, None, usize::MAX).unwrap();
        assert_eq!(known.damage, None);
        let known = known.entries;
        if which == Unreadable::DataAndSummary {
            assert_read_failed(&engine.damage()[0], &store.segment());
            assert!(matches!(
                engine.list_all(None, 9),
                Err(Error::Corrupt { .. })
            ));
            assert!(known.len() > USERS && known.len() < store.documents.len());
        } else {
            assert_eq!(engine.damage(), []);
            assert_eq!(known.len(), store.documents.len(), "{context}");
        }
        let known = engine.list_known(Some("user-07"), Some(("user-07", "early")), 9);
        let known = known.unwrap().entries;
        let clients: Vec<_> = known.iter().map(|(_, entry)| &*entry.client).collect();
        assert_eq!(clients, ["late"], "{context}");
        engine.close().unwrap();
        // A catalogue that was built without the unreadable documents is not used again.
        let engine = Engine::open(store.config()).unwrap();
        let listed = engine.list_all(None, usize::MAX).unwrap();
        assert_eq!(listed.len(), store.documents.len(), "{context}");
        engine.close().unwrap();
        // The next case builds the catalogue from the files that it cannot read.
        fs::remove_dir_all(store.dir.path().join("catalogue")).unwrap();
    }
}

#[test]
fn compaction_leaves_unreadable_segments_and_rewrites_the_others() {
    for which in ALL {
        let store = Store::new();
        let engine = Engine::open(store.config()).unwrap();
        // Replace some documents of every segment, so that every segment has dead bytes.
        for n in 0..USERS {
            for client in ["early", "late"] {
                let namespace = engine.namespace(format!("user-{n:02}"), client).unwrap();
                if n % 3 == 0 {
                    namespace.write(b"{}", WriteOptions::default()).unwrap();
                }
            }
        }
        engine.close().unwrap();
        let before = stats(&store.config()).unwrap();
        let engine = Engine::open(store.on_bad_disk(which)).unwrap();
        let outcome = engine.compact_with(&mut |_| {});
        engine.close().unwrap();
        let has_bad_data = matches!(which, Unreadable::Data | Unreadable::DataAndSummary);
        if which == Unreadable::Data {
            assert!(
                matches!(&outcome, Err(Error::Unreadable { path, .. }) if *path == store.segment()),
                "{which:?}: {outcome:?}"
            );
        } else {
            outcome.unwrap();
        }
        assert_eq!(store.segment().exists(), has_bad_data, "{which:?}");
        let after = stats(&store.config()).unwrap();
        assert!(after.dead_bytes < before.dead_bytes / 2, "{which:?}");
        assert_eq!(after.documents, before.documents, "{which:?}");
    }
}

/// Writes a snapshot into a directory, as a backup does. Returns the damage of the snapshot and
/// the damage of each file.
fn copy(engine: &Engine, to: &Path) -> Vec<Damage> {
    let snapshot = engine.snapshot().unwrap();
    let mut damage = snapshot.damage().to_vec();
    for file in snapshot.files() {
        let path = to.join(file.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut reader = snapshot.open(file).unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, file.bytes());
        fs::write(path, bytes).unwrap();
        damage.extend(reader.damage().cloned());
    }
    damage
}

#[test]
fn snapshot_of_unreadable_files_saves_the_rest_and_names_them() {
    let store = Store::new();
    for which in ALL {
        let context = format!("{which:?}");
        let engine = Engine::open(store.on_bad_disk(which)).unwrap();
        let readable_in_original = count_readable(&engine, &store, &context);
        let copied = tempfile::tempdir().unwrap();
        let damage = copy(&engine, copied.path());
        engine.close().unwrap();
        let files = store.files(which);
        assert_eq!(damage.len(), files.len(), "{context}: {damage:?}");
        for (damage, path) in damage.iter().zip(&files) {
            assert_read_failed(damage, path);
        }
        let engine = Engine::open(Config::new(copied.path())).unwrap();
        assert_eq!(
            count_readable(&engine, &store, &context),
            readable_in_original
        );
        engine.close().unwrap();
    }
}

#[test]
fn snapshot_has_zeros_only_in_place_of_unreadable_blocks() {
    const GOOD_BYTES: u64 = 10_000;
    let store = Store::new();
    let mut config = store.config();
    config.fs = UnreadableDisk::from(vec![store.segment()], GOOD_BYTES);
    let engine = Engine::open(config).unwrap();
    let copied = tempfile::tempdir().unwrap();
    let damage = copy(&engine, copied.path());
    engine.close().unwrap();
    // The entire 4 KiB block in which the unreadable bytes begin is replaced by zeros.
    let lost_from = GOOD_BYTES / 4096 * 4096;
    assert_eq!(damage[0].offset, lost_from);
    let lost_from = usize::try_from(lost_from).unwrap();
    let original = fs::read(store.segment()).unwrap();
    let copy = fs::read(copied.path().join("log/00000001.seg")).unwrap();
    assert!(copy[..lost_from] == original[..lost_from]);
    assert!(copy[lost_from..].iter().all(|byte| *byte == 0));
}

#[test]
fn erasure_with_unreadable_segments_erases_the_rest_and_names_them() {
    for which in ALL {
        let store = Store::new();
        let engine = Engine::open(store.on_bad_disk(which)).unwrap();
        let erased = engine.erase("user-07", &mut |_| {}).unwrap();
        assert_eq!(engine.get("user-07", "late").unwrap().map(|_| ()), None);
        engine.close().unwrap();
        let has_bad_data = matches!(which, Unreadable::Data | Unreadable::DataAndSummary);
        assert_eq!(erased.is_complete(), !has_bad_data, "{which:?}: {erased:?}");
        if has_bad_data {
            assert_read_failed(&erased.unreadable[0], &store.segment());
        }
        // Only the first segment and its summary name the early document. If both are
        // unreadable, only the late document can be erased.
        let erased_documents = if which == Unreadable::DataAndSummary {
            1
        } else {
            2
        };
        let found = stats(&store.config()).unwrap();
        let left = store.documents.len() as u64 - erased_documents;
        assert_eq!(found.documents, left, "{which:?}");
    }
}

#[test]
fn verify_with_unreadable_files_checks_the_rest_and_names_them() {
    let store = Store::new();
    for which in ALL {
        let found = verify(&store.on_bad_disk(which), &mut |_| {}).unwrap();
        let paths: Vec<_> = found.problems.iter().map(|problem| &problem.path).collect();
        for path in store.files(which) {
            assert!(paths.contains(&&path), "{which:?}: {paths:?}");
        }
        let is_harmless = found.problems.iter().all(|p| p.impact == Impact::Derived);
        assert_eq!(is_harmless, which == Unreadable::Summary, "{which:?}");
        if which == Unreadable::Summary {
            assert_eq!(found.documents, store.documents.len() as u64);
            assert_eq!(found.catalogue, CatalogueCheck::Agrees);
        }
    }
}

#[test]
fn require_store_reads_the_manifest_and_nothing_else() {
    let store = Store::new();
    let dir = store.dir.path();
    let mut files: Vec<PathBuf> = ["log", "blobs"]
        .iter()
        .flat_map(|folder| fs::read_dir(dir.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| !path.ends_with("manifest"));
    let mut config = store.config();
    config.fs = UnreadableDisk::new(files);
    require_store(&config).unwrap();
    config.fs = UnreadableDisk::new(vec![dir.join("log/manifest")]);
    assert!(matches!(
        require_store(&config),
        Err(Error::Unreadable { .. })
    ));
    let nowhere = Config::new(dir.join("nowhere"));
    assert!(matches!(
        require_store(&nowhere),
        Err(Error::NotAStore { .. })
    ));
    assert!(!nowhere.data_dir.exists());
}
