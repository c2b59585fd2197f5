//! Unit tests. Each rule is checked on small source trees that break it.

use super::{CrateRules, SourceFile, StructureError, check};

/// Four layers in three ranks. `left` and `right` have the same rank.
const LAYERS: &[&[&str]] = &[&["ground"], &["left", "right"], &["roof"]];

/// Checks a crate with the given layers and files.
fn errors_of(layers: &[&[&str]], files: &[(&str, &str)]) -> Vec<StructureError> {
    let file = |(path, text): &(&str, &str)| SourceFile {
        path: (*path).to_owned(),
        text: (*text).to_owned(),
    };
    let files: Vec<_> = files.iter().map(file).collect();
    let folder = "src";
    check(&CrateRules { folder, layers }, &files)
}

/// Checks a crate with [`LAYERS`] and returns the messages. Adds an empty file for each missing
/// layer.
fn layered(files: &[(&str, &str)]) -> Vec<String> {
    let mut files = files.to_vec();
    for path in ["ground.rs", "left.rs", "right.rs", "roof.rs"] {
        if !files.iter().any(|file| file.0 == path) {
            files.push((path, ""));
        }
    }
    let errors = errors_of(LAYERS, &files);
    errors.iter().map(ToString::to_string).collect()
}

/// Returns the imports of layer `roof` that are found in `left.rs`, as `line: path`.
fn imported(left: &str) -> Vec<String> {
    let error = |text: &String| {
        let place = text.strip_prefix("src/left.rs:").unwrap();
        let (place, rest) = place.split_once("` (").unwrap();
        assert!(rest.starts_with("roof"), "{text}");
        place.replace('`', "")
    };
    let files = [
        ("left.rs", left),
        ("roof/a.rs", ""),
        ("roof/b.rs", ""),
        ("roof/b/c.rs", ""),
    ];
    layered(&files).iter().map(error).collect()
}

/// Returns the imports of each circle in a crate without layers.
fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let imports = |error| match error {
        StructureError::Circle { imports } => imports,
        other => panic!("expected a circle: {other}"),
    };
    errors_of(&[], files).into_iter().map(imports).collect()
}

#[test]
fn imports_of_lower_layers_and_the_same_layer_are_accepted() {
    let files = [
        ("roof.rs", "mod a; mod b; pub use a::A;"),
        (
            "roof/a.rs",
            "use super::b::B; use crate::left::Left; pub struct A;",
        ),
        (
            "roof/b.rs",
            "use crate::{ground, right::Right}; pub struct B;",
        ),
        ("left.rs", "use crate::ground::Ground; pub struct Left;"),
        (
            "lib.rs",
            "mod ground; mod left; mod right; mod roof; pub use roof::A;",
        ),
    ];
    assert_eq!(layered(&files), [""; 0]);
}

#[test]
fn upward_import_is_reported_with_its_file_and_line() {
    let files = [
        ("ground/deep.rs", "\nuse crate::roof::Roof;\n"),
        ("left.rs", "fn f() { crate::roof::open() }"),
    ];
    assert_eq!(
        layered(&files),
        [
            "src/ground/deep.rs:2: `crate::roof::Roof` (roof.rs): upward import: \
             layer `roof` is above layer `ground`",
            "src/left.rs:1: `crate::roof::open` (roof.rs): upward import: \
             layer `roof` is above layer `left`",
        ]
    );
}

#[test]
fn import_between_layers_of_one_rank_is_reported() {
    assert_eq!(
        layered(&[("left.rs", "use crate::right::Right;")]),
        [
            "src/left.rs:1: `crate::right::Right` (right.rs): sideways import: \
             layers `left` and `right` have the same rank"
        ]
    );
}

#[test]
fn circle_of_two_files_is_reported_once_with_every_import() {
    let files = [
        ("a.rs", "use crate::b::B;\nuse crate::c;"),
        ("b.rs", "fn f() { crate::a::f() }\nfn g() { crate::a::g() }"),
        ("c.rs", ""),
    ];
    assert_eq!(
        circles(&files),
        [[
            "src/a.rs:1: `crate::b::B` (b.rs)",
            "src/b.rs:1: `crate::a::f` (a.rs)",
            "src/b.rs:2: `crate::a::g` (a.rs)",
        ]]
    );
}

#[test]
fn circle_of_three_files_is_reported() {
    let files = [
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "use crate::c::C;"),
        ("c.rs", "use crate::a::A;"),
        ("d.rs", "use crate::a::A;"),
    ];
    assert_eq!(
        circles(&files),
        [[
            "src/a.rs:1: `crate::b::B` (b.rs)",
            "src/b.rs:1: `crate::c::C` (c.rs)",
            "src/c.rs:1: `crate::a::A` (a.rs)",
        ]]
    );
}

#[test]
fn two_circles_are_reported_separately() {
    let files = [
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "use crate::a::A; use crate::c::C;"),
        ("c.rs", "use crate::d::D;"),
        ("d.rs", "use crate::c::C;"),
    ];
    assert_eq!(circles(&files).len(), 2);
}

#[test]
fn upward_import_that_closes_a_circle_is_reported_only_as_upward() {
    let files = [
        ("ground.rs", "use crate::roof::Roof;"),
        ("roof.rs", "use crate::ground::Ground;"),
    ];
    let errors = layered(&files);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].contains("upward import"), "{errors:#?}");
}

#[test]
fn circle_within_a_layer_is_reported() {
    let files = [
        ("left/a.rs", "use super::b::B;"),
        ("left/b.rs", "use super::a::A;"),
    ];
    let errors = layered(&files);
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].contains("circle"), "{errors:#?}");
}

#[test]
fn sibling_item_imported_through_parent_makes_a_circle() {
    let front = ("room.rs", "mod a; mod b; pub use a::A;");
    let files = [front, ("room/a.rs", ""), ("room/b.rs", "use super::a::A;")];
    assert_eq!(circles(&files), [[""; 0]; 0]);
    let files = [front, ("room/a.rs", "use super::B;"), ("room/b.rs", "")];
    assert_eq!(
        circles(&files),
        [[
            "src/room.rs:1: `a::A` (room/a.rs)",
            "src/room/a.rs:1: `super::B` (room.rs)"
        ]]
    );
}

#[test]
fn type_name_declared_twice_is_reported_with_its_places() {
    let files = [
        ("a.rs", "pub struct Kind;\nstruct Other;"),
        ("b.rs", "pub(crate) enum Kind {}\ntrait Trait {}"),
        (
            "c.rs",
            "fn f() { union Kind { a: u8 } }\nunsafe trait Trait<T> {}",
        ),
    ];
    let errors = errors_of(&[], &files);
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "type name `Kind` is declared 3 times in one crate:\n    \
             src/a.rs:1\n    src/b.rs:1\n    src/c.rs:1",
            "type name `Trait` is declared 2 times in one crate:\n    src/b.rs:2\n    src/c.rs:2",
        ]
    );
}

#[test]
fn unlisted_layer_and_layer_without_files_are_reported() {
    let files = [
        ("ground/a.rs", ""),
        ("attic.rs", ""),
        ("cellar/wine.rs", ""),
    ];
    let errors = errors_of(&[&["ground"], &["roof"]], &files);
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "src/attic.rs: new layer `attic`: add it to the order",
            "src/cellar/wine.rs: new layer `cellar`: add it to the order",
            "layer `roof` has no file: remove it from the order",
        ]
    );
}

#[test]
fn item_imported_from_the_crate_root_is_reported() {
    let files = [
        (
            "lib.rs",
            "mod ground; mod left; mod right; mod roof; pub use roof::Roof;",
        ),
        ("ground.rs", "use crate::Roof;"),
        ("left.rs", "fn f(_: super::Roof) {}"),
        ("right.rs", "use super::*;"),
    ];
    let errors = layered(&files);
    let places = [
        "src/ground.rs:1: `crate::Roof`",
        "src/left.rs:1: `super::Roof`",
        "src/right.rs:1: `super`",
    ];
    assert_eq!(errors.len(), places.len(), "{errors:#?}");
    for (error, place) in errors.iter().zip(places) {
        assert!(error.starts_with(place), "{error}");
        assert!(error.contains("import from the crate root"), "{error}");
    }
}

#[test]
fn unit_tests_may_import_and_declare_anything() {
    let tests = "#[cfg(test)]\nmod tests { use crate::roof::X; struct Twice; fn f() {} }";
    let files = [
        ("ground.rs", tests),
        ("left.rs", tests),
        ("right.rs", "#[cfg(test)] mod tests;"),
        ("right/tests.rs", "use crate::roof::X; struct Twice;"),
    ];
    assert_eq!(layered(&files), [""; 0]);
}

#[test]
fn code_after_unit_tests_is_still_checked() {
    let left = "#[cfg(test)] mod tests { fn f() { {} } }\nuse crate::roof::a::X;";
    assert_eq!(imported(left), ["2: crate::roof::a::X"]);
}

#[test]
fn nested_use_tree_yields_an_import_for_each_leaf() {
    let left = "use crate::{ground, roof::{a, b::{self, c::{D, E as F}}}};\nuse crate::roof::b::*;";
    assert_eq!(
        imported(left),
        [
            "1: crate::roof::a",
            "1: crate::roof::b",
            "1: crate::roof::b::c::D",
            "1: crate::roof::b::c::E",
            "2: crate::roof::b",
        ]
    );
}

#[test]
fn use_tree_over_several_lines_names_the_line_of_each_leaf() {
    let left = "use crate::{\n    ground,\n    roof::{\n        a::A,\n        b::B,\n    },\n};";
    assert_eq!(
        imported(left),
        ["4: crate::roof::a::A", "5: crate::roof::b::B"]
    );
}

#[test]
fn repeated_super_and_self_are_resolved() {
    let files = [
        ("left/deep/er.rs", "use super::super::super::roof::X;"),
        ("right.rs", "use self::super::roof::X;"),
        ("ground.rs", "mod inner { use super::super::roof::X; }"),
    ];
    let errors = layered(&files);
    assert_eq!(errors.len(), 3, "{errors:#?}");
}

#[test]
fn inline_paths_are_imports() {
    let left = "fn f(x: crate::roof::X) -> Vec<super::roof::Y> {\n\
                <crate::roof::X as T>::f();\n\
                crate::roof::g::<u8>(Vec::<crate::roof::Z>::new())\n}";
    assert_eq!(
        imported(left),
        [
            "1: crate::roof::X",
            "1: super::roof::Y",
            "2: crate::roof::X",
            "3: crate::roof::Z",
            "3: crate::roof::g",
        ]
    );
}

#[test]
fn path_through_an_imported_module_leads_to_its_child() {
    let left = "use crate::roof;\nuse roof::b as other;\nfn f() { other::c::g() }";
    assert_eq!(
        imported(left),
        ["1: crate::roof", "2: roof::b", "3: other::c::g"]
    );
}

#[test]
fn path_through_a_declared_child_is_an_import() {
    let files = [
        ("room.rs", "mod child;\nfn f() { child::g() }"),
        ("room/child.rs", "use super::Room;"),
    ];
    let listed = [
        "src/room.rs:2: `child::g` (room/child.rs)",
        "src/room/child.rs:1: `super::Room` (room.rs)",
    ];
    assert_eq!(circles(&files), [listed]);
}

#[test]
fn paths_into_other_crates_are_ignored() {
    let left = "use std::roof::X; use ::roof::Y; fn f() { other::roof::g(); ::roof::h() }\n\
                pub(in crate::roof) fn g() -> impl Sized + use<> {}";
    assert_eq!(imported(left), [""; 0]);
}

#[test]
fn comments_strings_and_characters_are_ignored() {
    let left = "// use crate::roof::A;\n/* use crate::roof::A; /* use crate::roof::A; */ */\n\
                /// [`crate::roof::A`]\n\
                const A: &str = \"\\\"; use crate::roof::A;\";\n\
                const B: &str = r#\"\"; use crate::roof::A;\"#;\n\
                const C: &[u8] = b\"use crate::roof::A;\";\n\
                const D: (char, char, u8) = ('\"', '\\'', b'\"');\n\
                fn f<'a>(x: &'a str, y: &'static str) -> &'a str { crate::roof::last() }";
    assert_eq!(imported(left), ["8: crate::roof::last"]);
}

#[test]
fn mod_rs_file_and_raw_identifier_are_resolved() {
    let files = [("left/mod.rs", "use crate::r#roof::X;")];
    assert_eq!(layered(&files).len(), 1);
}
