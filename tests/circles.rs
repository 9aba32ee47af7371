//! No file of a crate imports one that imports it, directly or over others: a reader can begin with the file
//! that imports nothing. Knows nothing about what the files do.

mod tidy_support;

use tidy_support::{
    Source,
    imports::{Circle, Imports},
    sources,
};

/// The crates, by the directory of their sources.
const CRATES: [&str; 10] = [
    "crates/client/src/",
    "crates/program/src/",
    "crates/protocol/src/",
    "crates/server/src/",
    "crates/swarm/src/",
    "crates/transport/src/",
    "crates/units/src/",
    "loadgen/src/",
    "shards/src/",
    "src/",
];

/// Crates that still have circles, with the number of files in them. A number may only fall: lower it with
/// the circle that you untie, and take the crate out at 0.
const FILES_IN_CIRCLES_MAX: [(&str, usize); 0] = [];

fn circles_of(directory: &str) -> (usize, Vec<Circle>) {
    let imports = Imports::of(directory, &sources(&[directory], ".rs"));
    (imports.len(), imports.circles())
}

#[test]
fn no_file_of_a_crate_imports_one_that_imports_it() {
    let mut offences = Vec::new();
    for directory in CRATES {
        let (files, circles) = circles_of(directory);
        let allowed = FILES_IN_CIRCLES_MAX.iter().find(|(known, _)| *known == directory);
        let allowed = allowed.map_or(0, |(_, files)| *files);
        let found: usize = circles.iter().map(|circle| circle.files.len()).sum();
        println!("{directory}: {found} of {files} files in circles, at most {allowed} may be");
        for Circle { files, to_cut } in circles {
            let text = format!("{}\n    look at: {to_cut}", files.join("\n    "));
            println!("  a circle of\n    {text}");
            if found > allowed {
                offences.push(format!("a circle of\n    {text}"));
            }
        }
    }
    assert!(offences.is_empty(), "files import each other:\n  {}", offences.join("\n  "));
}

#[test]
fn every_crate_is_looked_at() {
    for directory in CRATES {
        assert!(circles_of(directory).0 > 0, "{directory} has no sources");
    }
    let known = CRATES.iter().filter(|directory| directory.starts_with("crates/")).count();
    let crates = std::fs::read_dir(tidy_support::root().join("crates")).expect("they are there");
    assert_eq!(crates.count(), known, "every crate is in the table");
}

/// A crate in `x/`, of these files.
fn made_up(files: &[(&str, &str)]) -> Imports {
    let source = |(path, text): &(&str, &str)| Source {
        path: format!("x/{path}"),
        text: (*text).to_owned(),
    };
    Imports::of("x/", &files.iter().map(source).collect::<Vec<_>>())
}

fn files_in_circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    made_up(files).circles().into_iter().map(|circle| circle.files).collect()
}

#[test]
fn a_made_up_circle_is_found_with_the_import_that_closes_it() {
    let circles = made_up(&[
        ("lib.rs", "mod a; mod b; mod c; pub use a::A;"),
        ("a.rs", "use super::b::{B, C as D}; pub struct A;"),
        ("b.rs", "use std::fmt;\nfn f() { crate::c::g::<u8>(); }"),
        ("c.rs", "use crate::A;"),
        ("d.rs", "use crate::{a::A, b::B};"),
    ])
    .circles();
    let [circle] = &circles[..] else { panic!("one circle: {circles:?}") };
    assert_eq!(circle.files, ["x/lib.rs", "x/a.rs", "x/b.rs", "x/c.rs"]);
    assert_eq!(circle.to_cut, "x/c.rs imports x/lib.rs: crate::A");
}

#[test]
fn a_child_that_imports_from_the_parent_that_uses_it_is_a_circle() {
    for parent in
        ["mod b; use self::b::B;", "mod b; fn f() -> b::B { todo() }", "mod b; use b::{B};"]
    {
        let found = files_in_circles(&[
            ("lib.rs", "mod a;"),
            ("a/mod.rs", parent),
            ("a/b.rs", "use super::{\n    A,\n};"),
        ]);
        assert_eq!(found, [["x/a/mod.rs", "x/a/b.rs"]], "{parent}");
        let only_declared = files_in_circles(&[
            ("lib.rs", "mod a;"),
            ("a.rs", "mod b; struct A;"),
            ("a/b.rs", "use super::A;"),
        ]);
        assert!(only_declared.is_empty(), "{only_declared:?}");
    }
}

#[test]
fn what_is_of_tests_comments_strings_or_other_crates_imports_nothing() {
    let found = files_in_circles(&[
        ("lib.rs", "mod a; mod b; use a::A;"),
        (
            "a.rs",
            "/// See [`crate::b::B`].\nuse other::{b::B, super_thing::C}; const T: &str = \"crate::b::B\";\n\
             #[cfg(test)]\nmod tests { use crate::b::B; fn f() { super::super::b::g([1; 2]); } }\n\
             #[cfg(test)]\nuse crate::b;\nfn user(a: reuse) {}",
        ),
        ("b.rs", "use super::a::A;"),
        ("a/tests.rs", "use crate::b::B; use super::super::A;"),
    ]);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_program_beside_a_library_is_another_crate() {
    let files =
        [("lib.rs", "pub mod a;"), ("main.rs", "use a::A; mod b;"), ("a.rs", "use crate::x;")];
    assert!(files_in_circles(&files).is_empty());
    let alone = [("main.rs", "mod a; use a::A;"), ("a.rs", "use crate::x;")];
    assert_eq!(files_in_circles(&alone), [["x/main.rs", "x/a.rs"]]);
}
