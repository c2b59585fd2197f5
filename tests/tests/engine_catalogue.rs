//! The catalogue is derived: deleted, stale, damaged or half rebuilt, it costs time
//! and never an answer.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prefd_engine::{Change, Config, Engine, UserUsage, WriteOptions};
use prefd_tests::random::Random;

/// User → client → length of the document.
type Model = BTreeMap<String, BTreeMap<String, u64>>;

fn open(dir: &Path) -> Engine {
    let mut config = Config::new(dir);
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    // Directories are copied file by file here, while they are open.
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

fn verify(engine: &Engine, model: &Model, context: &str) {
    for (user, clients) in model {
        let listed: BTreeMap<String, u64> = engine
            .list(user, None, usize::MAX)
            .unwrap()
            .into_iter()
            .map(|entry| (entry.client, entry.stat.usage.bytes))
            .collect();
        assert_eq!(listed, *clients, "{context}: {user}");
        let sum = UserUsage {
            namespaces: clients.len() as u64,
            keys: 2 * clients.len() as u64,
            bytes: clients.values().sum(),
        };
        assert_eq!(engine.usage(user).unwrap(), sum, "{context}: {user}");
    }
    assert_eq!(everything(engine, 7), *model, "{context}: the whole store");
}

/// The whole store, listed in pages.
fn everything(engine: &Engine, page: usize) -> Model {
    let mut found = Model::new();
    let mut after: Option<(String, String)> = None;
    loop {
        let names = after
            .as_ref()
            .map(|(user, client)| (user.as_str(), client.as_str()));
        let listed = engine.list_all(names, page).unwrap();
        assert!(listed.len() <= page);
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

/// A closed store whose catalogue is whole, and what its users have.
fn closed_store() -> (tempfile::TempDir, Model) {
    let dir = tempfile::tempdir().unwrap();
    let (mut random, mut model) = (Random::new(7), Model::new());
    let engine = open(dir.path());
    write(&engine, &mut random, &mut model, 400);
    verify(&engine, &model, "while it was written");
    engine.close().unwrap();
    assert!(dir.path().join("catalogue/clean").exists());
    (dir, model)
}

#[test]
fn a_deleted_catalogue_is_rebuilt() {
    let (dir, model) = closed_store();
    fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
    verify(&open(dir.path()), &model, "deleted");
}

#[test]
fn a_catalogue_that_was_not_closed_cleanly_is_rebuilt() {
    let (dir, mut model) = closed_store();
    let engine = open(dir.path());
    verify(&engine, &model, "clean");
    assert!(
        !dir.path().join("catalogue/clean").exists(),
        "trusted again after a crash"
    );
    write(&engine, &mut Random::new(8), &mut model, 100);
    let crashed = tempfile::tempdir().unwrap();
    copy(dir.path(), crashed.path());
    verify(&open(crashed.path()), &model, "crashed");
}

#[test]
fn a_stale_catalogue_is_rebuilt() {
    let (dir, mut model) = closed_store();
    let old = tempfile::tempdir().unwrap();
    copy(&dir.path().join("catalogue"), old.path());
    let engine = open(dir.path());
    write(&engine, &mut Random::new(9), &mut model, 100);
    verify(&engine, &model, "written to");
    engine.close().unwrap();
    fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
    copy(old.path(), &dir.path().join("catalogue"));
    verify(&open(dir.path()), &model, "stale");
}

#[test]
fn a_catalogue_of_another_store_is_rebuilt() {
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
    verify(&open(dir.path()), &model, "foreign");
}

#[test]
fn a_catalogue_damaged_at_any_place_is_rebuilt() {
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
            verify(
                &open(damaged.path()),
                &model,
                &format!("{} damaged", name.display()),
            );
            variants += 1;
        }
        let missing = tempfile::tempdir().unwrap();
        copy(dir.path(), missing.path());
        fs::remove_file(missing.path().join(name)).unwrap();
        verify(
            &open(missing.path()),
            &model,
            &format!("{} missing", name.display()),
        );
    }
    assert!(variants > 30);
}

#[test]
fn a_listing_asked_for_during_a_rebuild_waits_for_the_whole() {
    let (dir, mut model) = closed_store();
    for round in 0..10 {
        fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
        let engine = open(dir.path());
        // Written while it is being rebuilt, or after: seen in any case.
        write(&engine, &mut Random::new(round), &mut model, 30);
        verify(&engine, &model, "while it was rebuilt");
        engine.close().unwrap();
    }
}

#[test]
fn writes_go_on_where_the_budget_is_spent_and_listings_see_them_all() {
    // Nothing fits; some; most.
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
                // Compaction takes deletes out of the log that hide nothing any more.
                engine.compact().unwrap();
                verify(&engine, &model, &context);
            }
            write(&engine, &mut Random::new(round), &mut model, 200);
            engine.close().unwrap();
        }
        let engine = open(dir.path());
        verify(&engine, &model, "opened again");
    }
}

#[test]
fn an_unwritable_catalogue_leaves_documents_alone() {
    let dir = tempfile::tempdir().unwrap();
    // A file in the place of the folder: sled can neither open nor be rebuilt.
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
