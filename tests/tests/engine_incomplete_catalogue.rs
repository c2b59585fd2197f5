//! A catalogue that was built while a part of the log could not be read. A missing entry must not
//! be mistaken for a missing document: listings report the damage, and list the documents as soon
//! as they can be read.
//!
//! Regression: the build skipped a segment whose read failed, and nothing recorded this. Listings
//! returned only some of the documents, without an error. After a clean close, the next open
//! trusted the incomplete catalogue.

use std::io::ErrorKind;

use prefd_engine::{CatalogueCheck, Engine, Error, Impact, stats, verify};
use prefd_tests::layout::frames;
use prefd_tests::sim_disk::DiskOperation;
use prefd_tests::sim_store::{Store, put};

const CLIENTS: [&str; 3] = ["a", "b", "c"];

/// A store with one sealed segment for each of [`CLIENTS`], and without a catalogue.
fn store_without_catalogue_files() -> Store {
    let store = Store::new();
    for client in CLIENTS {
        let engine = store.open().unwrap();
        put(&engine, client, "{}").unwrap();
        engine.close().unwrap();
    }
    remove_catalogue(&store);
    store
}

fn remove_catalogue(store: &Store) {
    std::fs::remove_dir_all(store.path("catalogue")).unwrap();
}

/// Makes reads by the catalogue's thread fail if the name of the file begins with `prefix`. Reads
/// by other threads succeed.
fn fail_reads_of_the_catalogue(store: &Store, prefix: &'static str) {
    store.disk.set_fault(Box::new(move |operation, path| {
        let is_catalogue = std::thread::current().name() == Some("prefd-catalogue");
        let name = path.file_name().and_then(|name| name.to_str());
        let is_failing = is_catalogue && name.is_some_and(|name| name.starts_with(prefix));
        (operation == DiskOperation::Read && is_failing).then_some(ErrorKind::Other)
    }));
}

fn list(engine: &Engine) -> Result<Vec<String>, Error> {
    let listed = engine.list("u", None, 9)?;
    Ok(listed.into_iter().map(|entry| entry.client).collect())
}

/// Returns the clients that the store knows, and the path of the reported damage.
fn list_known(engine: &Engine) -> (Vec<String>, Option<std::path::PathBuf>) {
    let known = engine.list_known(None, None, 9).unwrap();
    let clients = known.entries.into_iter().map(|(_, entry)| entry.client);
    (clients.collect(), known.damage.map(|damage| damage.path))
}

#[test]
fn failed_read_during_the_build_is_repeated_by_the_first_listing() {
    let store = store_without_catalogue_files();
    let last = store.files("log", ".seg").remove(2);
    // Every read fails, until the build has tried to read the last segment.
    let mut is_failing = true;
    store.disk.set_fault(Box::new(move |operation, path| {
        let is_catalogue = std::thread::current().name() == Some("prefd-catalogue");
        let fails = is_failing && is_catalogue && operation == DiskOperation::Read;
        is_failing &= !(fails && path == last);
        fails.then_some(ErrorKind::Other)
    }));
    let engine = store.open().unwrap();
    let complete = (CLIENTS.map(String::from).into(), None);
    assert_eq!(list_known(&engine), complete);
    assert_eq!(list(&engine).unwrap(), CLIENTS);
    assert_eq!(engine.usage("u").unwrap().namespaces, 3);
    engine.close().unwrap();
    assert!(store.path("catalogue/clean").exists());
    assert_eq!(list(&store.open().unwrap()).unwrap(), CLIENTS);
}

#[test]
fn incomplete_catalogue_is_not_used_after_the_next_open() {
    let store = store_without_catalogue_files();
    let first = store.files("log", ".seg").remove(0);
    fail_reads_of_the_catalogue(&store, "");
    let engine = store.open().unwrap();
    assert_eq!(list_known(&engine), (vec![], Some(first)));
    for _ in 0..2 {
        let listed = list(&engine);
        assert!(
            matches!(listed, Err(Error::Unreadable { .. })),
            "{listed:?}"
        );
        let usage = engine.usage("u");
        assert!(matches!(usage, Err(Error::Unreadable { .. })), "{usage:?}");
    }
    // Documents that are written later are listed, but do not make the listing complete.
    put(&engine, "d", "{}").unwrap();
    assert_eq!(list_known(&engine).0, ["d"]);
    store.disk.clear_fault();
    // The first listing has read the log again. Another listing does not do so at once.
    assert!(list(&engine).is_err());
    engine.close().unwrap();
    assert!(!store.path("catalogue/clean").exists());
    assert_eq!(list(&store.open().unwrap()).unwrap(), ["a", "b", "c", "d"]);
}

#[test]
fn failed_read_in_a_store_for_reading_only_is_reported_and_read_again() {
    let store = store_without_catalogue_files();
    let first = store.files("log", ".seg").remove(0);
    let open = || {
        let mut config = store.config();
        config.read_only = true;
        let engine = Engine::open(config).unwrap();
        store.disk.set_fault(Box::new(|operation, _| {
            (operation == DiskOperation::Read).then_some(ErrorKind::Other)
        }));
        assert_eq!(list_known(&engine), (vec![], Some(first.clone())));
        engine
    };
    let engine = open();
    store.disk.clear_fault();
    assert_eq!(list(&engine).unwrap(), CLIENTS);
    let engine = open();
    let listed = list(&engine);
    assert!(
        matches!(listed, Err(Error::Unreadable { .. })),
        "{listed:?}"
    );
    store.disk.clear_fault();
    // The failed listing has read the log again. The next listing does not do so at once.
    assert!(list(&engine).is_err());
}

#[test]
fn unreadable_segment_without_current_documents_hides_nothing() {
    let store = store_without_catalogue_files();
    let engine = store.open().unwrap();
    put(&engine, "a", "{\"new\":1}").unwrap();
    engine.close().unwrap();
    remove_catalogue(&store);
    fail_reads_of_the_catalogue(&store, "00000001");
    let engine = store.open().unwrap();
    assert_eq!(
        list_known(&engine),
        (CLIENTS.map(String::from).into(), None)
    );
    assert_eq!(list(&engine).unwrap(), CLIENTS);
}

/// The segment cannot be read while the store is opened, and can be read while the catalogue is
/// built. Its documents are then not known to the store.
#[test]
fn catalogue_of_a_store_with_unknown_documents_is_not_used_after_the_next_open() {
    let store = store_without_catalogue_files();
    store.disk.set_fault(Box::new(|operation, path| {
        let is_catalogue = std::thread::current().name() == Some("prefd-catalogue");
        let is_first = path.file_stem().is_some_and(|stem| stem == "00000001");
        let is_failing = operation == DiskOperation::Read && is_first && !is_catalogue;
        is_failing.then_some(ErrorKind::Other)
    }));
    let engine = store.open().unwrap();
    store.disk.clear_fault();
    let known = vec!["b".to_owned(), "c".to_owned()];
    assert_eq!(list_known(&engine), (known, None));
    assert_eq!(engine.damage().len(), 1);
    let listed = list(&engine);
    assert!(matches!(listed, Err(Error::Corrupt { .. })), "{listed:?}");
    engine.close().unwrap();
    assert!(!store.path("catalogue/clean").exists());
    assert_eq!(list(&store.open().unwrap()).unwrap(), CLIENTS);
}

/// The names of the document are in its damaged frame, so the listing cannot contain them.
#[test]
fn document_without_names_is_not_taken_for_a_missing_document() {
    let store = store_without_catalogue_files();
    let segment = store.files("log", ".seg").remove(1);
    store.disk.lose(&segment.with_extension("sum"));
    let mut bytes = store.disk.bytes(&segment);
    let last = frames(&bytes)[0].bytes.end - 1;
    bytes[last] ^= 1;
    store.disk.overwrite(&segment, bytes);
    let damage = stats(&store.config()).unwrap().damage;
    assert_eq!(damage.len(), 1, "{damage:?}");
    for _ in 0..2 {
        let engine = store.open().unwrap();
        let known = vec!["a".to_owned(), "c".to_owned()];
        assert_eq!(list_known(&engine), (known, None));
        assert_eq!(engine.damage().len(), 1);
        let listed = list(&engine);
        assert!(matches!(listed, Err(Error::Corrupt { .. })), "{listed:?}");
        engine.close().unwrap();
    }
    let engine = store.open().unwrap();
    put(&engine, "b", "{}").unwrap();
    assert_eq!(list(&engine).unwrap(), CLIENTS);
    engine.close().unwrap();
    assert_eq!(list(&store.open().unwrap()).unwrap(), CLIENTS);
}

/// `stats` and `verify` read the log twice. The second time, reads can fail that succeeded before.
#[test]
fn stats_and_verify_report_reads_that_fail_later() {
    let store = store_without_catalogue_files();
    let engine = store.open().unwrap();
    assert_eq!(list(&engine).unwrap(), CLIENTS);
    engine.close().unwrap();
    let summary = store.files("log", ".sum").remove(0);
    let segment = summary.with_extension("seg");
    let fail_after = |successful: usize| {
        let (summary, segment) = (summary.clone(), segment.clone());
        let mut reads = 0;
        store.disk.set_fault(Box::new(move |operation, path| {
            let is_read = operation == DiskOperation::Read;
            reads += usize::from(is_read && path == summary);
            let is_failing = reads > successful && (path == summary || path == segment);
            (is_read && is_failing).then_some(ErrorKind::Other)
        }));
    };
    let mut outcomes = Vec::new();
    for successful in 0..20 {
        fail_after(successful);
        let stats = stats(&store.config()).unwrap();
        assert_eq!(
            stats.damage.is_empty(),
            stats.documents == 3,
            "{successful}: {stats:?}"
        );
        outcomes.push(stats.documents);
        let report = verify(&store.config(), &mut |_| {}).unwrap();
        let is_complete = report.catalogue == CatalogueCheck::Agrees;
        let mut problems = report.problems.iter();
        let is_reported = problems.any(|problem| problem.impact == Impact::Document);
        assert_ne!(is_complete, is_reported, "{successful}: {report:?}");
    }
    outcomes.dedup();
    assert_eq!(outcomes, [2, 3]);
}

/// Regression test. Zeros at the end of a segment counted as preallocated bytes, and a file that was
/// too short as the complete segment.
#[test]
fn missing_end_of_a_segment_is_not_taken_for_its_end() {
    for is_cut in [false, true] {
        let store = Store::new();
        let mut config = store.config();
        // The puts are not recorded, so the listing finds them in the active segment.
        config.catalogue_pending_bytes = 1;
        let engine = Engine::open(config).unwrap();
        assert_eq!(list(&engine).unwrap(), [""; 0]);
        for client in CLIENTS {
            put(&engine, client, "{}").unwrap();
        }
        let segment = store.files("log", ".seg").pop().unwrap();
        let mut bytes = store.disk.bytes(&segment);
        let last = frames(&bytes).pop().unwrap().bytes;
        if is_cut {
            bytes.truncate(last.start);
        } else {
            bytes[last].fill(0);
        }
        store.disk.overwrite(&segment, bytes);
        let listed = list(&engine);
        assert!(matches!(listed, Err(Error::Corrupt { .. })), "{listed:?}");
        let known = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(list_known(&engine), (known, Some(segment)));
        let _ = engine.close();
        assert!(!store.path("catalogue/clean").exists());
    }
}
