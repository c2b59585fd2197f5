//! The tables of bugs in `docs/testing.md`: every test that they name must exist.

use std::fs;
use std::path::Path;

/// The tables had this many rows when they were written. A parser that finds fewer rows is broken,
/// or a row was lost.
const MIN_ROWS: usize = 90;
const FIRST_LINE: &str = "## Bugs found so far";

/// A row of a table.
struct Bug<'a> {
    description: &'a str,
    found_by: &'a str,
    /// The file and the name of each test.
    guards: Vec<(&'a str, &'a str)>,
}

impl<'a> Bug<'a> {
    /// Parses a row. Panics if the row does not have three cells.
    fn parse(row: &'a str) -> Self {
        let cells = row.trim_matches('|').split(" | ").map(str::trim);
        let cells: Vec<&str> = cells.collect();
        let &[description, found_by, guards] = &cells[..] else {
            panic!("expected three cells: {row}");
        };
        // The words between backticks are files and, after each file, the tests in it.
        let mut file = "";
        let mut tests = Vec::new();
        for word in guards.split('`').skip(1).step_by(2) {
            if word.contains('.') {
                file = word;
            } else {
                tests.push((file, word));
            }
        }
        Self {
            description,
            found_by,
            guards: tests,
        }
    }
}

/// Returns the rows of all tables in the section.
fn bugs(document: &str) -> Vec<Bug<'_>> {
    let (_, section) = document
        .split_once(FIRST_LINE)
        .expect("docs/testing.md has the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| {
        let is_head = line.starts_with("| bug |") || line.starts_with("| --- |");
        line.starts_with('|') && !is_head
    });
    rows.map(Bug::parse).collect()
}

/// Whether the source declares a test function with this name.
fn declares_test(source: &str, test: &str) -> bool {
    let declaration = format!("fn {test}(");
    let mut lines = source.lines().map(str::trim);
    let mut is_test = false;
    lines.any(|line| {
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            is_test = true;
            return false;
        }
        let function = line.strip_prefix("async ").unwrap_or(line);
        let is_found = is_test && function.starts_with(&declaration);
        // Comments and other attributes can stand between `#[test]` and the function.
        is_test &= line.starts_with("#[") || line.starts_with("//");
        is_found
    })
}

#[test]
fn every_test_in_the_tables_of_bugs_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let bugs = bugs(&document);
    assert!(bugs.len() >= MIN_ROWS, "found only {} rows", bugs.len());
    let mut missing = Vec::new();
    for bug in &bugs {
        let description = bug.description;
        assert!(!description.is_empty() && !bug.found_by.is_empty());
        assert!(!bug.guards.is_empty(), "no test guards: {description}");
        for (file, test) in &bug.guards {
            let folder = if file.contains('/') {
                ""
            } else {
                "tests/tests"
            };
            let path = root.join(folder).join(file);
            let source = fs::read_to_string(&path).unwrap_or_default();
            if !declares_test(&source, test) {
                missing.push(format!("{file}: {test}"));
            }
        }
    }
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}

#[test]
fn only_a_function_with_the_attribute_counts_as_a_test() {
    let source = "#[test]\n/// Text.\n#[ignore]\nfn good() {}\nfn helper() {}\n// fn talk()\n\
                  #[tokio::test]\nasync fn waiting() {}\n";
    for test in ["good", "waiting"] {
        assert!(declares_test(source, test), "{test}");
    }
    for other in ["helper", "talk", "goo", "missing"] {
        assert!(!declares_test(source, other), "{other}");
    }
    let row = Bug::parse("| a bug | fuzzing | `a.rs`: `one`, `two`, `engine/src/b.rs`: `three` |");
    let guards = [
        ("a.rs", "one"),
        ("a.rs", "two"),
        ("engine/src/b.rs", "three"),
    ];
    assert_eq!(row.guards, guards);
}
