//! The catalogue is derived from the log. Listings must be correct even if the catalogue was
//! deleted, outdated, damaged, or still being rebuilt.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prefd_engine::{Change, Config, Engine, UserUsage, WriteOptions};
use prefd_tests::random::Random;

/// The expected length of each document, by user and client.
type Model = BTreeMap<String, BTreeMap<String, u64>>;

fn open(dir: &Path) -> Engine {
    let mut config = Config::new(dir);
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    // Some tests copy the directory of an open store file by file. Compaction must not remove
    // files during the copy.
    config.background_compaction = false;
    Engine::open(config).unwrap()
}

fn write(engine: &Engine, random: &mut Random, model: &mut Model, count: usize) {
    for _ in 0..count {
        let user = format!("user-{}", random.below(6));
        let client = format!("client-{}", random.below(25));
        let namespace = engine.namespace(&user, &client).unwrap();
        if random.below(4) == 0 {
            namespace
                .write(Change::Delete, WriteOptions::default())
                .unwrap();
            model.entry(user).or_default().remove(&client);
        } else {
            let pad = "p".repeat(usize::try_from(random.below(900)).unwrap());
            let body = format!("{{\"pad\":\"{pad}\",\"n\":1}}");
            namespace
                .write(body.as_bytes(), WriteOptions::default())
                .unwrap();
            model
                .entry(user)
                .or_default()
                .insert(client, body.len() as u64);
        }
    }
}

fn assert_listings(engine: &Engine, model: &Model, context: &str) {
    for (user, clients) in model {
        let listed: BTreeMap<String, u64> = engine
            .list(user, None, usize::MAX)
            .unwrap()
            .into_iter()
            .map(|entry| (entry.client, entry.stat.usage.bytes))
            .collect();
        assert_eq!(listed, *clients, "{context}: {user}");
        let total = UserUsage {
            namespaces: clients.len() as u64,
            keys: 2 * clients.len() as u64,
            bytes: clients.values().sum(),
        };
        assert_eq!(engine.usage(user).unwrap(), total, "{context}: {user}");
    }
    assert_eq!(
        list_all_pages(engine, 7),
        *model,
        "{context}: listing of all users"
    );
}

/// All documents of the store, listed in pages of `page_len` entries.
fn list_all_pages(engine: &Engine, page_len: usize) -> Model {
    let mut found = Model::new();
    let mut after: Option<(String, String)> = None;
    loop {
        let names = after
            .as_ref()
            .map(|(user, client)| (user.as_str(), client.as_str()));
        let listed = engine.list_all(names, page_len).unwrap();
        assert!(listed.len() <= page_len);
        let Some((user, last)) = listed.last() else {
            return found;
        };
        after = Some((user.clone(), last.client.clone()));
        for (user, entry) in listed {
            let clients = found.entry(user).or_default();
            assert!(
                clients
                    .insert(entry.client, entry.stat.usage.bytes)
                    .is_none()
            );
        }
    }
}

/// All files in `dir` and its subdirectories.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, &target).unwrap();
    }
}

/// A cleanly closed store, and its documents.
fn closed_store() -> (tempfile::TempDir, Model) {
    let dir = tempfile::tempdir().unwrap();
    let (mut random, mut model) = (Random::new(7), Model::new());
    let engine = open(dir.path());
    write(&engine, &mut random, &mut model, 400);
    assert_listings(&engine, &model, "before the close");
    engine.close().unwrap();
    assert!(dir.path().join("catalogue/clean").exists());
    (dir, model)
}

#[test]
fn deleted_catalogue_is_rebuilt() {
    let (dir, model) = closed_store();
    fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
    assert_listings(&open(dir.path()), &model, "deleted");
}

#[test]
fn catalogue_without_clean_close_is_rebuilt() {
    let (dir, mut model) = closed_store();
    let engine = open(dir.path());
    assert_listings(&engine, &model, "clean");
    assert!(
        !dir.path().join("catalogue/clean").exists(),
        "the marker of a clean close must be removed while the store is open"
    );
    write(&engine, &mut Random::new(8), &mut model, 100);
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    assert_listings(&open(crashed.path()), &model, "crashed");
}

#[test]
fn outdated_catalogue_is_rebuilt() {
    let (dir, mut model) = closed_store();
    let old = tempfile::tempdir().unwrap();
    copy(&dir.path().join("catalogue"), old.path());
    let engine = open(dir.path());
    write(&engine, &mut Random::new(9), &mut model, 100);
    assert_listings(&engine, &model, "after further writes");
    engine.close().unwrap();
    fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
    copy(old.path(), &dir.path().join("catalogue"));
    assert_listings(&open(dir.path()), &model, "stale");
}

#[test]
fn catalogue_of_another_store_is_rebuilt() {
    let (dir, model) = closed_store();
    let other = tempfile::tempdir().unwrap();
    let engine = open(other.path());
    engine
        .namespace("user-1", "foreign")
        .unwrap()
        .write(b"{}", WriteOptions::default())
        .unwrap();
    engine.list("user-1", None, 1).unwrap();
    engine.close().unwrap();
    fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
    copy(
        &other.path().join("catalogue"),
        &dir.path().join("catalogue"),
    );
    assert_listings(&open(dir.path()), &model, "foreign");
}

#[test]
fn catalogue_damaged_in_any_file_is_rebuilt() {
    let (dir, model) = closed_store();
    let catalogue = dir.path().join("catalogue");
    let mut variants = 0;
    for file in files(&catalogue) {
        let bytes = fs::read(&file).unwrap();
        let name = file.strip_prefix(dir.path()).unwrap();
        let step = (bytes.len() / 12).max(1);
        let flipped = (0..bytes.len()).step_by(step).map(|at| {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            changed
        });
        let cut = [0, bytes.len() / 2, bytes.len() - 1].map(|len| bytes[..len].to_vec());
        for changed in flipped.chain(cut) {
            let damaged = tempfile::tempdir().unwrap();
            copy(dir.path(), damaged.path());
            fs::write(damaged.path().join(name), changed).unwrap();
            assert_listings(
                &open(damaged.path()),
                &model,
                &format!("{} damaged", name.display()),
            );
            variants += 1;
        }
        let missing = tempfile::tempdir().unwrap();
        copy(dir.path(), missing.path());
        fs::remove_file(missing.path().join(name)).unwrap();
        assert_listings(
            &open(missing.path()),
            &model,
            &format!("{} missing", name.display()),
        );
    }
    assert!(variants > 30);
}

#[test]
fn listing_during_a_rebuild_is_complete() {
    let (dir, mut model) = closed_store();
    for round in 0..10 {
        fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
        let engine = open(dir.path());
        // The rebuild may still be running. A listing must show these writes in any case.
        write(&engine, &mut Random::new(round), &mut model, 30);
        assert_listings(&engine, &model, "during or after the rebuild");
        engine.close().unwrap();
    }
}

#[test]
fn listing_is_complete_when_pending_changes_exceed_memory() {
    // Room for none, for some, and for most of the pending changes.
    for pending_bytes in [1, 1000, 20_000] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path());
        config.segment_bytes = Config::MIN_SEGMENT_BYTES;
        config.catalogue_pending_bytes = pending_bytes;
        let mut model = Model::new();
        for round in 0..6 {
            let context = format!("budget {pending_bytes}, round {round}");
            let engine = Engine::open(config.clone()).unwrap();
            for step in 0..3 {
                let mut random = Random::new(10 * round + step);
                write(&engine, &mut random, &mut model, 200);
                // Compaction drops deletes that hide no older frame, so the catalogue can no
                // longer read them from the log.
                engine.compact().unwrap();
                assert_listings(&engine, &model, &context);
            }
            write(&engine, &mut Random::new(round), &mut model, 200);
            engine.close().unwrap();
        }
        let engine = open(dir.path());
        assert_listings(&engine, &model, "reopened");
    }
}

#[test]
fn unusable_catalogue_does_not_affect_documents() {
    let dir = tempfile::tempdir().unwrap();
    // With a file in place of the folder, the catalogue can be neither opened nor rebuilt.
    fs::write(dir.path().join("catalogue"), "not a folder").unwrap();
    let engine = open(dir.path());
    let namespace = engine.namespace("u", "c").unwrap();
    namespace
        .write(b"{\"a\":1}", WriteOptions::default())
        .unwrap();
    assert_eq!(
        namespace.get().unwrap().unwrap().read().unwrap(),
        b"{\"a\":1}"
    );
    assert!(matches!(
        engine.list("u", None, 1),
        Err(prefd_engine::Error::CatalogueUnavailable { .. })
    ));
    engine.close().unwrap();
}
