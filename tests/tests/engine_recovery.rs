//! What an open makes of what it finds: crashes at any point, damage at any byte,
//! files that are gone, and a catalogue that cannot be believed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prefd_engine::{Config, Durability, Engine, Error, Precondition, WriteOptions};
use prefd_tests::random::{Random, seeds};
use prefd_tests::sim_disk::{Operation, SimDisk, Unsynced};

/// A store on a simulated disk. The catalogue and the lock are in a real directory.
struct Store {
    dir: tempfile::TempDir,
    disk: SimDisk,
}

impl Store {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            disk: SimDisk::new(),
        }
    }

    /// The same store after a crash, on a disk and in a directory of its own.
    fn crashed(&self, unsynced: Unsynced) -> Self {
        let after = Self {
            dir: tempfile::tempdir().unwrap(),
            disk: self.disk.crash(unsynced),
        };
        after.disk.rebase(self.dir.path(), after.dir.path());
        after
    }

    fn config(&self) -> Config {
        let mut config = Config::new(self.dir.path());
        config.fs = Arc::new(self.disk.clone());
        config.segment_bytes = Config::MIN_SEGMENT_BYTES;
        config.inline_bytes = 2048;
        config.cache_bytes = 0;
        config
    }

    fn open(&self) -> Result<Engine, Error> {
        Engine::open(self.config())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Where a file of `other` is in this copy of it.
    fn moved(&self, other: &Self, file: &Path) -> PathBuf {
        self.dir
            .path()
            .join(file.strip_prefix(other.dir.path()).unwrap())
    }

    fn files(&self, folder: &str, extension: &str) -> Vec<PathBuf> {
        let folder = self.dir.path().join(folder);
        let ours = |path: &PathBuf| {
            path.starts_with(&folder) && path.to_string_lossy().ends_with(extension)
        };
        self.disk.files().into_iter().filter(ours).collect()
    }
}

fn buffered() -> WriteOptions {
    WriteOptions {
        durability: Some(Durability::Buffered),
        ..WriteOptions::default()
    }
}

fn read(engine: &Engine, client: &str) -> Result<Option<String>, Error> {
    let document = engine.namespace("u", client)?.get()?;
    document
        .map(|d| d.read().map(|bytes| String::from_utf8(bytes).unwrap()))
        .transpose()
}

fn put(engine: &Engine, client: &str, body: &str) -> Result<(), Error> {
    engine
        .namespace("u", client)?
        .put(body.as_bytes(), WriteOptions::default())
        .map(drop)
}

/// A body that says which write it is in every value; large ones go to a blob.
fn body(stamp: u64, bytes: usize) -> String {
    format!(
        "{{\"a\":{stamp},\"pad\":\"{}\",\"b\":{stamp}}}",
        "p".repeat(bytes)
    )
}

#[test]
fn an_acknowledged_put_survives_a_power_cut_and_was_synced_before() {
    let store = Store::new();
    let engine = store.open().unwrap();
    for write in 0..20 {
        let syncs = store.disk.syncs(".seg");
        let size = if write % 4 == 0 { 5_000 } else { 10 };
        put(&engine, &format!("c{}", write % 7), &body(write, size)).unwrap();
        assert!(
            store.disk.syncs(".seg") > syncs,
            "acknowledged without a sync"
        );
        // Were the sync missing, this cut would lose the write.
        let after = store.crashed(Unsynced::Lost);
        let reopened = after.open().unwrap();
        assert_eq!(
            read(&reopened, &format!("c{}", write % 7)).unwrap(),
            Some(body(write, size))
        );
    }
}

#[test]
fn a_buffered_put_may_be_lost_and_a_later_sync_covers_it() {
    let store = Store::new();
    let engine = store.open().unwrap();
    let namespace = engine.namespace("u", "buffered").unwrap();
    put(&engine, "first", "{}").unwrap();
    namespace.put(b"{\"n\":1}", buffered()).unwrap();
    let lost = store.crashed(Unsynced::Lost);
    assert_eq!(read(&lost.open().unwrap(), "buffered").unwrap(), None);
    let kept = store.crashed(Unsynced::Kept);
    assert_eq!(
        read(&kept.open().unwrap(), "buffered").unwrap().as_deref(),
        Some("{\"n\":1}")
    );
    put(&engine, "later", "{}").unwrap();
    let covered = store.crashed(Unsynced::Lost);
    assert_eq!(
        read(&covered.open().unwrap(), "buffered")
            .unwrap()
            .as_deref(),
        Some("{\"n\":1}")
    );
}

#[test]
fn the_blob_of_a_document_goes_only_once_its_successor_is_synced() {
    let store = Store::new();
    let engine = store.open().unwrap();
    let namespace = engine.namespace("u", "c").unwrap();
    put(&engine, "c", &body(1, 5_000)).unwrap();
    namespace.put(b"{\"n\":2}", buffered()).unwrap();
    let after = store.crashed(Unsynced::Lost);
    assert_eq!(
        read(&after.open().unwrap(), "c").unwrap(),
        Some(body(1, 5_000))
    );
    put(&engine, "other", "{}").unwrap();
    engine.close().unwrap();
    assert_eq!(store.files("blobs", ".blob"), Vec::<PathBuf>::new());
}

#[test]
fn revisions_are_never_used_twice_even_for_lost_writes() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{}").unwrap();
    let namespace = engine.namespace("u", "c").unwrap();
    let mut highest = namespace.put(b"{}", buffered()).unwrap();
    for _ in 0..100 {
        highest = highest.max(namespace.put(b"{}", buffered()).unwrap());
    }
    let after = store.crashed(Unsynced::Lost);
    let engine = after.open().unwrap();
    let next = engine
        .namespace("u", "c")
        .unwrap()
        .put(b"{}", WriteOptions::default())
        .unwrap();
    assert!(next > highest, "{next} is not above {highest}");
    let again = after.crashed(Unsynced::Kept);
    let engine = again.open().unwrap();
    let last = engine
        .namespace("u", "c")
        .unwrap()
        .put(b"{}", WriteOptions::default())
        .unwrap();
    assert!(last > next);
}

/// What a namespace may hold: the last acknowledged write, or one attempted since.
#[derive(Default, Clone)]
struct Allowed {
    acknowledged: Option<String>,
    attempted: Vec<Option<String>>,
}

/// Writes until the disk fails, keeping the model.
fn work(
    engine: &Engine,
    random: &mut Random,
    model: &mut BTreeMap<String, Allowed>,
    stamp: &mut u64,
) -> Result<(), Error> {
    for _ in 0..25 {
        *stamp += 1;
        let client = format!("c{}", random.below(5));
        let namespace = engine.namespace("u", &client)?;
        let allowed = model.entry(client).or_default();
        let size = [10, 10, 600, 1_900, 4_000, 70_000][random.below(6) as usize];
        let value = (random.below(5) > 0).then(|| body(*stamp, size));
        let precondition = match random.below(4) {
            0 => Precondition::absent(),
            1 => namespace
                .revision()?
                .map_or(Precondition::none(), Precondition::matches),
            _ => Precondition::none(),
        };
        let options = WriteOptions {
            precondition,
            ..WriteOptions::default()
        };
        allowed.attempted.push(value.clone());
        let outcome = match &value {
            Some(body) => namespace.put(body.as_bytes(), options).map(drop),
            None => namespace.delete(options),
        };
        match outcome {
            Ok(()) => {
                *allowed = Allowed {
                    acknowledged: value,
                    attempted: Vec::new(),
                };
            }
            Err(Error::PreconditionFailed { .. }) => {
                allowed.attempted.pop();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn verify(engine: &Engine, model: &mut BTreeMap<String, Allowed>, context: &str) {
    for (client, allowed) in model.iter_mut() {
        let found = read(engine, client).unwrap_or_else(|e| panic!("{context}: {client}: {e}"));
        let fits = found == allowed.acknowledged || allowed.attempted.contains(&found);
        assert!(
            fits,
            "{context}: {client} holds {:?}",
            found.map(|f| f[..30.min(f.len())].to_owned())
        );
        // What is seen once stays.
        *allowed = Allowed {
            acknowledged: found,
            attempted: Vec::new(),
        };
    }
    let listed: Vec<(String, u64)> = engine
        .list("u", None, usize::MAX)
        .unwrap_or_else(|e| panic!("{context}: {e}"))
        .into_iter()
        .map(|entry| (entry.client, entry.stat.usage.bytes))
        .collect();
    let expected: Vec<(String, u64)> = model
        .iter()
        .filter_map(|(client, allowed)| {
            Some((client.clone(), allowed.acknowledged.as_ref()?.len() as u64))
        })
        .collect();
    assert_eq!(listed, expected, "{context}");
}

/// Fails every operation from the `n`th on, as a machine that lost its power does.
fn cut_power_at(disk: &SimDisk, n: u64) {
    let count = AtomicU64::new(0);
    disk.set_fault(Box::new(move |_, _| {
        (count.fetch_add(1, Ordering::Relaxed) >= n).then_some(io::ErrorKind::Other)
    }));
}

/// A life that has everything in it: small and large documents, a delete, a segment
/// that is sealed, a clean close.
fn short_life(
    store: &Store,
    model: &mut BTreeMap<String, Allowed>,
    life: u64,
) -> Result<(), Error> {
    let engine = store.open()?;
    for (index, size) in [10, 5_000, 1_900, 10, 1_900].into_iter().enumerate() {
        let client = format!("c{}", index % 3);
        let value = (index != 3).then(|| body(life * 10 + index as u64, size));
        let allowed = model.entry(client.clone()).or_default();
        allowed.attempted.push(value.clone());
        let namespace = engine.namespace("u", &client)?;
        match &value {
            Some(body) => drop(namespace.put(body.as_bytes(), WriteOptions::default())?),
            None => namespace.delete(WriteOptions::default())?,
        }
        *allowed = Allowed {
            acknowledged: value,
            attempted: Vec::new(),
        };
    }
    engine.close()
}

#[test]
fn a_crash_at_every_single_operation_of_a_life_loses_nothing() {
    let mut crashes = 0;
    for seed in seeds(8) {
        let unsynced = match seed {
            0 => Unsynced::Lost,
            1 => Unsynced::Kept,
            seed => Unsynced::Some { seed },
        };
        for operation in 0.. {
            let mut model = BTreeMap::new();
            let store = Store::new();
            // A life before it, ended by a crash, so that there is something to recover.
            let engine = store.open().unwrap();
            put(&engine, "c0", &body(1, 10)).unwrap();
            put(&engine, "c4", &body(2, 3_000)).unwrap();
            for (client, stamp, size) in [("c0", 1, 10), ("c4", 2, 3_000)] {
                let acknowledged = Some(body(stamp, size));
                model.insert(
                    client.to_owned(),
                    Allowed {
                        acknowledged,
                        attempted: Vec::new(),
                    },
                );
            }
            let store = store.crashed(Unsynced::Lost);
            cut_power_at(&store.disk, operation);
            let ended = short_life(&store, &mut model, 1).is_ok();
            let context = format!("seed {seed}, operation {operation}");
            let after = store.crashed(unsynced);
            let engine = after
                .open()
                .unwrap_or_else(|error| panic!("{context}: {error}"));
            verify(&engine, &mut model, &context);
            drop(engine);
            crashes += 1;
            if ended {
                break;
            }
        }
    }
    assert!(crashes > 200 || seeds(8).count() == 1, "{crashes}");
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    for seed in seeds(200) {
        let mut random = Random::new(seed);
        let mut model = BTreeMap::new();
        let mut stamp = 0;
        let mut store = Store::new();
        for life in 0..6 {
            let context = format!("seed {seed} life {life}");
            // Sometimes while it opens, mostly while it writes.
            cut_power_at(&store.disk, random.below(220));
            if let Ok(engine) = store.open() {
                let _ = work(&engine, &mut random, &mut model, &mut stamp);
                if random.below(3) == 0 {
                    let _ = engine.close();
                }
            }
            let unsynced = match random.below(3) {
                0 => Unsynced::Lost,
                1 => Unsynced::Kept,
                _ => Unsynced::Some {
                    seed: random.draw(),
                },
            };
            store = store.crashed(unsynced);
            let engine = store
                .open()
                .unwrap_or_else(|error| panic!("{context}: {error} ({error:?})"));
            verify(&engine, &mut model, &context);
            if random.below(2) == 0 {
                engine.close().unwrap();
            } else {
                drop(engine);
                store = store.crashed(Unsynced::Lost);
            }
        }
    }
}

#[test]
fn a_failed_log_sync_stops_writing_for_good_and_reads_go_on() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":1}").unwrap();
    store.disk.set_fault(Box::new(|operation, path| {
        (operation == Operation::Sync && path.to_string_lossy().ends_with(".seg"))
            .then_some(io::ErrorKind::Other)
    }));
    assert!(matches!(
        put(&engine, "c", "{\"n\":2}"),
        Err(Error::Poisoned { op: "sync", .. })
    ));
    store.disk.clear_fault();
    let syncs = store.disk.syncs(".seg");
    assert!(matches!(
        put(&engine, "c", "{\"n\":3}"),
        Err(Error::Poisoned { .. })
    ));
    assert!(matches!(
        put(&engine, "d", "{}"),
        Err(Error::Poisoned { .. })
    ));
    assert!(engine.writable().is_err());
    assert_eq!(
        store.disk.syncs(".seg"),
        syncs,
        "a failed sync was tried again"
    );
    assert_eq!(read(&engine, "c").unwrap().as_deref(), Some("{\"n\":1}"));
    assert!(engine.close().is_err());
    let after = store.crashed(Unsynced::Lost);
    assert_eq!(
        read(&after.open().unwrap(), "c").unwrap().as_deref(),
        Some("{\"n\":1}")
    );
}

#[test]
fn a_failed_blob_sync_fails_its_own_put_only() {
    let store = Store::new();
    let engine = store.open().unwrap();
    store.disk.set_fault(Box::new(|operation, path| {
        (operation == Operation::Sync && path.to_string_lossy().ends_with(".blob"))
            .then_some(io::ErrorKind::Other)
    }));
    assert!(matches!(
        put(&engine, "large", &body(1, 9_000)),
        Err(Error::Io { op: "sync", .. })
    ));
    put(&engine, "small", &body(2, 10)).unwrap();
    store.disk.clear_fault();
    put(&engine, "large", &body(3, 9_000)).unwrap();
    assert_eq!(read(&engine, "large").unwrap(), Some(body(3, 9_000)));
    engine.close().unwrap();
    assert_eq!(store.files("blobs", ".blob").len(), 1);
}

#[test]
fn a_full_disk_refuses_the_batch_changes_nothing_and_recovers() {
    for room in [0, 1, 60, 100, 700, 1_500, 3_000] {
        let store = Store::new();
        let engine = store.open().unwrap();
        put(&engine, "c", &body(1, 100)).unwrap();
        store.disk.set_capacity(store.disk.used_bytes() + room);
        let mut refused = 0;
        let mut last = body(1, 100);
        for write in 2..12 {
            let next = body(write, 400);
            match put(&engine, "c", &next) {
                Ok(()) => last = next,
                Err(Error::StorageFull { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
            }
            assert_eq!(read(&engine, "c").unwrap(), Some(last.clone()));
        }
        assert!(refused >= 4);
        assert!(matches!(
            put(&engine, "large", &body(1, 9_000)),
            Err(Error::StorageFull { .. })
        ));
        // What was refused is not there after a crash either.
        let after = store.crashed(Unsynced::Some { seed: room });
        assert_eq!(read(&after.open().unwrap(), "c").unwrap(), Some(last));
        store.disk.set_capacity(u64::MAX);
        put(&engine, "c", "{\"n\":3}").unwrap();
        put(&engine, "large", &body(1, 9_000)).unwrap();
        assert_eq!(read(&engine, "c").unwrap().as_deref(), Some("{\"n\":3}"));
    }
}

#[test]
fn a_refused_batch_is_not_there_after_a_crash_either() {
    let store = Store::new();
    let engine = store.open().unwrap();
    let before = store.disk.used_bytes();
    put(&engine, "c0", &body(0, 100)).unwrap();
    put(&engine, "c0", &body(0, 100)).unwrap();
    let frame_bytes = (store.disk.used_bytes() - before) / 2;
    // Room for one more batch of one frame, and for the half of the batch behind it.
    store
        .disk
        .set_capacity(store.disk.used_bytes() + frame_bytes * 5 / 2);
    let (entered, syncing) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel();
    let mut first = true;
    store.disk.set_fault(Box::new(move |operation, _| {
        if operation == Operation::Sync && std::mem::take(&mut first) {
            entered.send(()).unwrap();
            released.recv().unwrap();
        }
        None
    }));
    let submit = |client: &str| {
        let mut writer = engine.writer();
        writer.write(body(1, 100).as_bytes()).unwrap();
        let namespace = engine.namespace("u", client).unwrap();
        namespace.submit_put(writer.finish().unwrap(), WriteOptions::default())
    };
    let alone = submit("c1");
    syncing.recv().unwrap();
    // Queued while the committer is held in its sync: one batch.
    let together = [submit("c2"), submit("c3")];
    release.send(()).unwrap();
    alone.wait().unwrap();
    for commit in together {
        assert!(matches!(commit.wait(), Err(Error::StorageFull { .. })));
    }
    for seed in 0..20 {
        let after = store.crashed(Unsynced::Some { seed });
        let engine = after.open().unwrap();
        assert_eq!(
            read(&engine, "c1").unwrap(),
            Some(body(1, 100)),
            "seed {seed}"
        );
        for refused in ["c2", "c3"] {
            assert_eq!(
                read(&engine, refused).unwrap(),
                None,
                "seed {seed}: {refused}"
            );
        }
    }
}

/// What each namespace holds.
type Contents = BTreeMap<String, Option<String>>;

/// A store with sealed segments, an unsealed one, blobs, tombstones and overwrites,
/// and what it held after each write to the unsealed segment, the newest last.
fn furnished() -> (Store, Vec<Contents>) {
    let store = Store::new();
    let mut contents: Contents = (0..30).map(|index| (format!("c{index}"), None)).collect();
    let mut stamp = 0;
    for _ in 0..2 {
        let engine = store.open().unwrap();
        for index in 0..24 {
            furnish(&engine, index, &mut stamp, &mut contents);
        }
        engine.close().unwrap();
    }
    let engine = store.open().unwrap();
    let mut history = vec![contents.clone()];
    for index in 0..24 {
        furnish(&engine, index, &mut stamp, &mut contents);
        history.push(contents.clone());
    }
    (store.crashed(Unsynced::Lost), history)
}

fn furnish(engine: &Engine, index: u64, stamp: &mut u64, contents: &mut Contents) {
    *stamp += 1;
    let client = format!("c{}", (index * 5 + *stamp / 24) % 30);
    let value = (index % 11 != 7).then(|| body(*stamp, if index % 8 == 3 { 2_500 } else { 40 }));
    match &value {
        Some(body) => put(engine, &client, body).unwrap(),
        None => engine
            .namespace("u", &client)
            .unwrap()
            .delete(WriteOptions::default())
            .unwrap(),
    }
    contents.insert(client, value);
}

/// What reading a damaged store gave.
enum Damaged {
    /// It does not open.
    Refused,
    /// What each namespace gave; `Err` for an error that names a file of the store.
    Opened(BTreeMap<String, Result<Option<String>, ()>>),
}

impl Damaged {
    fn read(store: &Store, clients: &Contents, context: &str) -> Self {
        let expect_named = |error: &Error| match error {
            Error::Corrupt { path, .. } | Error::UnsupportedFormat { path, .. } => {
                assert!(path.starts_with(store.dir.path()), "{context}: {error:?}");
            }
            _ => panic!("{context}: {error:?}"),
        };
        let engine = match store.open() {
            Ok(engine) => engine,
            Err(error) => {
                expect_named(&error);
                return Self::Refused;
            }
        };
        match read(&engine, "never-set") {
            Ok(found) => assert_eq!(found, None, "{context}"),
            Err(error) => expect_named(&error),
        }
        let found = clients.keys().map(|client| {
            let found = read(&engine, client).map_err(|error| expect_named(&error));
            (client.clone(), found)
        });
        Self::Opened(found.collect())
    }

    fn errors(&self) -> usize {
        match self {
            Self::Refused => usize::MAX,
            Self::Opened(found) => found.values().filter(|found| found.is_err()).count(),
        }
    }

    /// Whether every namespace that could be read holds what it does in `contents`.
    fn agrees_with(&self, contents: &Contents) -> bool {
        match self {
            Self::Refused => true,
            Self::Opened(found) => found.iter().all(|(client, found)| {
                found.as_ref().is_ok_and(|f| *f == contents[client]) || found.is_err()
            }),
        }
    }
}

/// Damages copies of a store, one file at a time, and checks that every read gives
/// what was written last, or an error. Returns the copies, and how many gave errors.
///
/// Only of the unsealed segment may writes be missing as if they had never been:
/// the newest `torn`, since above its watermark damage looks like a torn tail.
fn sweep(torn: usize, damage: impl Fn(&[u8]) -> Vec<Vec<u8>>) -> (usize, usize) {
    let (store, history) = furnished();
    let newest = history.last().unwrap();
    let unsealed = store.files("log", ".seg").pop().unwrap();
    let (mut damaged, mut detected) = (0, 0);
    for file in store.disk.files() {
        let bytes = store.disk.bytes(&file);
        for (index, changed) in damage(&bytes).into_iter().enumerate() {
            let copy = store.crashed(Unsynced::Kept);
            copy.disk.overwrite(&copy.moved(&store, &file), changed);
            let context = format!("{} damaged, variant {index}", file.display());
            let outcome = Damaged::read(&copy, newest, &context);
            let allowed = if file == unsealed { torn } else { 0 };
            let agrees = history
                .iter()
                .rev()
                .take(allowed + 1)
                .any(|contents| outcome.agrees_with(contents));
            assert!(agrees, "{context}: not what was written last, and no error");
            damaged += 1;
            detected += usize::from(outcome.errors() > 0);
        }
    }
    (damaged, detected)
}

#[test]
fn a_flipped_bit_in_any_file_gives_right_bytes_or_an_error() {
    let (damaged, detected) = sweep(1, |bytes| {
        // Every byte of what is small; the long runs of document bytes by samples.
        let step = (bytes.len() / 60).max(1);
        (0..bytes.len())
            .filter(|at| *at < 64 || at % step == 0)
            .map(|at| {
                let mut changed = bytes.to_vec();
                changed[at] ^= 1 << (at % 8);
                changed
            })
            .collect()
    });
    assert!(
        damaged > 500 && detected > damaged / 3,
        "{detected} of {damaged}"
    );
}

#[test]
fn a_file_cut_at_any_length_gives_right_bytes_or_an_error() {
    // What tells that the unsealed segment was longer is in the part that is cut off.
    let (damaged, detected) = sweep(usize::MAX - 1, |bytes| {
        let step = (bytes.len() / 40).max(1);
        (0..bytes.len())
            .step_by(step)
            .map(|len| bytes[..len].to_vec())
            .collect()
    });
    assert!(
        damaged > 300 && detected > damaged / 3,
        "{detected} of {damaged}"
    );
}

#[test]
fn any_missing_file_gives_right_bytes_or_an_error() {
    let (store, history) = furnished();
    let newest = history.last().unwrap();
    for file in store.disk.files() {
        let copy = store.crashed(Unsynced::Kept);
        copy.disk.lose(&copy.moved(&store, &file));
        let outcome = Damaged::read(&copy, newest, &format!("{} missing", file.display()));
        assert!(outcome.agrees_with(newest), "{}", file.display());
        let errors = outcome.errors();
        // A summary can be made again. A blob may be one that waits to be removed.
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("sum") => assert_eq!(errors, 0, "{}", file.display()),
            Some("blob") => {}
            _ => assert!(errors > 0, "{}", file.display()),
        }
    }
}

#[test]
fn files_of_one_kind_swapped_give_right_bytes_or_an_error() {
    let (store, history) = furnished();
    let newest = history.last().unwrap();
    for kind in [".seg", ".sum", ".blob"] {
        let files: Vec<_> = store
            .disk
            .files()
            .into_iter()
            .filter(|f| f.to_string_lossy().ends_with(kind))
            .collect();
        assert!(files.len() > 1);
        let copy = store.crashed(Unsynced::Kept);
        copy.disk
            .overwrite(&copy.moved(&store, &files[0]), store.disk.bytes(&files[1]));
        copy.disk
            .overwrite(&copy.moved(&store, &files[1]), store.disk.bytes(&files[0]));
        let outcome = Damaged::read(&copy, newest, &format!("{kind} swapped"));
        assert!(outcome.agrees_with(newest), "{kind} swapped");
    }
}

#[test]
fn a_sealed_segment_that_is_gone_takes_only_its_own_documents_and_a_put_mends_them() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "old", "{\"n\":1}").unwrap();
    put(&engine, "moved", "{\"n\":1}").unwrap();
    engine.close().unwrap();
    let first = store.files("log", ".seg").pop().unwrap();
    let engine = store.open().unwrap();
    put(&engine, "moved", "{\"n\":2}").unwrap();
    engine.close().unwrap();
    store.disk.lose(&first);
    let engine = store.open().unwrap();
    assert_eq!(
        read(&engine, "moved").unwrap().as_deref(),
        Some("{\"n\":2}")
    );
    assert!(matches!(read(&engine, "old"), Err(Error::Corrupt { path, .. }) if path == first));
    let clients: Vec<_> = engine
        .list("u", None, 9)
        .unwrap()
        .into_iter()
        .map(|e| e.client)
        .collect();
    assert_eq!(clients, ["moved", "old"]);
    put(&engine, "old", "{\"n\":3}").unwrap();
    assert_eq!(read(&engine, "old").unwrap().as_deref(), Some("{\"n\":3}"));
}

#[test]
fn a_segment_lost_with_its_summary_never_makes_older_revisions_visible() {
    let store = Store::new();
    for n in 1..=3 {
        let engine = store.open().unwrap();
        put(&engine, "c", &format!("{{\"n\":{n}}}")).unwrap();
        if n == 3 {
            put(&engine, "untouched", "{}").unwrap();
        }
        engine.close().unwrap();
    }
    let engine = store.open().unwrap();
    put(&engine, "newer", "{}").unwrap();
    engine.close().unwrap();
    for file in store.files("log", "") {
        if file.to_string_lossy().contains("00000003.") {
            store.disk.lose(&file);
        }
    }
    for _ in 0..2 {
        let engine = store.open().unwrap();
        for client in ["c", "untouched", "never-set"] {
            assert!(
                matches!(read(&engine, client), Err(Error::Corrupt { .. })),
                "{client}"
            );
        }
        assert_eq!(read(&engine, "newer").unwrap().as_deref(), Some("{}"));
        assert!(matches!(
            engine.list("u", None, 9),
            Err(Error::Corrupt { .. })
        ));
        let conditional = WriteOptions {
            precondition: Precondition::absent(),
            ..WriteOptions::default()
        };
        let outcome = engine.namespace("u", "c").unwrap().put(b"{}", conditional);
        assert!(matches!(outcome, Err(Error::Corrupt { .. })));
        engine.close().unwrap();
    }
}

#[test]
fn an_out_of_date_manifest_is_refused_and_nothing_removed() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":1}").unwrap();
    engine.close().unwrap();
    let manifest = store.path("log/manifest");
    let old = store.disk.bytes(&manifest);
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":2}").unwrap();
    engine.close().unwrap();
    let files = store.disk.files();
    store.disk.overwrite(&manifest, old);
    assert!(matches!(store.open(), Err(Error::Corrupt { path, .. }) if path == manifest));
    assert_eq!(store.disk.files(), files);
}

#[test]
fn a_newer_format_is_refused_by_its_version() {
    let store = Store::new();
    store.open().unwrap().close().unwrap();
    let manifest = store.path("log/manifest");
    let mut bytes = store.disk.bytes(&manifest);
    bytes[8] = 2;
    let crc = crc32(&bytes[..20]);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    store.disk.overwrite(&manifest, bytes);
    assert!(matches!(
        store.open(),
        Err(Error::UnsupportedFormat {
            found: 2,
            supported: 1,
            ..
        })
    ));
}

/// CRC-32 (IEEE 802.3), written down again so that the format is checked from outside.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (!(crc & 1)).wrapping_add(1))
        })
    })
}
