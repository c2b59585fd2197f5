//! A disk that returns EIO for one sealed segment or one blob takes its own documents and
//! nothing else: everything that can be saved is saved, and the file is named.
//!
//! The bug: "is this damage?" was a comparison with the string "read". It missed the scan of
//! a segment whose summary could not be read either, and then `stats` and everything that
//! began with it failed for the whole store. Backups stopped at the first such file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use prefd_engine::{
    CatalogueCheck, Config, Damage, Engine, Error, Impact, WriteOptions, require_store, stats,
    verify,
};
use prefd_tests::unreadable_disk::UnreadableDisk;

/// Users with one document in the first segment each, and one in a later one.
const USERS: usize = 60;
const LARGE_BYTES: usize = 600_000;

/// Which files cannot be read.
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

    /// The first segment, which has early documents and nothing else.
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

/// How many documents are read whole. Every other one fails as damage.
fn readable(engine: &Engine, store: &Store, context: &str) -> usize {
    let mut readable = 0;
    for ((user, client), body) in &store.documents {
        let read = engine.get(user, client).and_then(|document| {
            let document = document.expect("it was never deleted");
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

fn says_that_a_read_failed(damage: &Damage, path: &Path) {
    assert_eq!(damage.path, path);
    assert!(damage.what.contains("a read failed"), "{damage}");
    assert!(damage.to_string().contains("os error 5"), "{damage}");
}

#[test]
fn stats_of_unreadable_files_count_the_rest_and_name_them() {
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
            says_that_a_read_failed(&found.damage[0], &store.segment());
        } else {
            // Nothing but the summaries is read, and a summary is made from the frames.
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
        let readable = readable(&engine, &store, &context);
        match which {
            Unreadable::Summary => assert_eq!(readable, store.documents.len()),
            Unreadable::Blob => assert_eq!(readable, store.documents.len() - 1),
            // What is newer than the lost frames is known to be current.
            Unreadable::Data | Unreadable::DataAndSummary => assert!(
                readable > USERS && readable < store.documents.len(),
                "{context}: {readable}"
            ),
        }
        let known = engine.list_known(None, None, usize::MAX).unwrap();
        if which == Unreadable::DataAndSummary {
            says_that_a_read_failed(&engine.damage()[0], &store.segment());
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
        let known = known.unwrap();
        let clients: Vec<_> = known.iter().map(|(_, entry)| &*entry.client).collect();
        assert_eq!(clients, ["late"], "{context}");
        engine.close().unwrap();
        // The catalogue that was made on the bad disk must not outlive it.
        fs::remove_dir_all(store.dir.path().join("catalogue")).unwrap();
    }
}

#[test]
fn compaction_leaves_unreadable_segments_and_rewrites_the_others() {
    for which in ALL {
        let store = Store::new();
        let engine = Engine::open(store.config()).unwrap();
        // Something stale in every segment.
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

/// Writes a snapshot into a directory, as a backup does. The first damage of each file.
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
        let readable_there = readable(&engine, &store, &context);
        let copied = tempfile::tempdir().unwrap();
        let damage = copy(&engine, copied.path());
        engine.close().unwrap();
        let files = store.files(which);
        assert_eq!(damage.len(), files.len(), "{context}: {damage:?}");
        for (damage, path) in damage.iter().zip(&files) {
            says_that_a_read_failed(damage, path);
        }
        let engine = Engine::open(Config::new(copied.path())).unwrap();
        assert_eq!(readable(&engine, &store, &context), readable_there);
        engine.close().unwrap();
    }
}

#[test]
fn snapshot_of_a_bad_sector_has_zeros_in_its_place_only() {
    const GOOD_BYTES: u64 = 10_000;
    let store = Store::new();
    let mut config = store.config();
    config.fs = UnreadableDisk::from(vec![store.segment()], GOOD_BYTES);
    let engine = Engine::open(config).unwrap();
    let copied = tempfile::tempdir().unwrap();
    let damage = copy(&engine, copied.path());
    engine.close().unwrap();
    // The block of 4 KiB in which the bad bytes begin is lost as a whole.
    let lost_from = GOOD_BYTES / 4096 * 4096;
    assert_eq!(damage[0].offset, lost_from);
    let lost_from = usize::try_from(lost_from).unwrap();
    let was = fs::read(store.segment()).unwrap();
    let is = fs::read(copied.path().join("log/00000001.seg")).unwrap();
    assert!(is[..lost_from] == was[..lost_from]);
    assert!(is[lost_from..].iter().all(|byte| *byte == 0));
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
            says_that_a_read_failed(&erased.unreadable[0], &store.segment());
        }
        // Only the lost segment and its summary name the early document.
        let known = if which == Unreadable::DataAndSummary {
            1
        } else {
            2
        };
        let found = stats(&store.config()).unwrap();
        let left = store.documents.len() as u64 - known;
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
