//! What documents name is there: files, targets, tests. They look at text only.

mod tidy_support;

use tidy_support::{Source, code, none_of, root, sources};

/// What is written for people. What has changed since tells of what was.
fn documents() -> Vec<Source> {
    let mut found = sources(&["."], ".md");
    found.retain(|document| document.path != "CHANGELOG.md");
    assert!(found.len() >= 6, "documents are where they are looked for: {}", found.len());
    found
}

#[test]
fn every_file_that_the_documents_name_exists() {
    const PLACES: [&str; 13] = [
        "src/",
        "crates/",
        "shards/",
        "loadgen/",
        "tests/",
        "dashboards/",
        ".ci/",
        "bench/",
        "benches/",
        "docs/",
        "examples/",
        "fuzz/",
        "packaging/",
    ];
    let mut offences = Vec::new();
    for document in documents() {
        for named in document.text.split('`').skip(1).step_by(2) {
            // A script may be named with what it is given, a file with a line of it.
            let path = named.split([' ', '\n', ':']).next().unwrap_or(named);
            let is_path = PLACES.iter().any(|place| named.starts_with(place))
                && !path.contains(['*', '{', '$']);
            if is_path && !root().join(path).exists() {
                offences.push(format!("{} names {path}", document.path));
            }
        }
        let beside = root().join(&document.path);
        for link in document.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or(link);
            let is_elsewhere =
                path.is_empty() || path.contains("://") || path.starts_with("../../");
            if !is_elsewhere && !beside.with_file_name(path).exists() {
                offences.push(format!("{} links to {path}", document.path));
            }
        }
    }
    none_of("documents name files that are there", &offences);
}

#[test]
fn every_target_that_the_documents_name_exists() {
    let packages = ["", "shards/", "loadgen/"];
    let is_there = |paths: &[String]| {
        let mut all =
            packages.iter().flat_map(|package| paths.iter().map(move |path| (package, path)));
        all.any(|(package, path)| root().join(format!("{package}{path}")).exists())
    };
    let mut offences = Vec::new();
    for document in documents() {
        let words: Vec<&str> = document
            .text
            .split_whitespace()
            .map(|word| word.trim_matches(|c: char| "`'\"(),.;".contains(c)))
            .collect();
        for pair in words.windows(2) {
            let name = pair[1];
            let paths = match pair[0] {
                "--test" => vec![format!("tests/{name}.rs"), format!("tests/{name}/main.rs")],
                "--bench" => vec![format!("benches/{name}.rs")],
                "--example" => vec![format!("examples/{name}.rs")],
                // Programs with `src/main.rs` are called as their packages are.
                "--bin" if name == "relay" || name == "loadgen" => continue,
                "--bin" => vec![format!("src/bin/{name}.rs")],
                _ => continue,
            };
            // A placeholder is in capitals.
            if name.chars().any(char::is_lowercase) && !is_there(&paths) {
                offences.push(format!("{} says {} {name}", document.path, pair[0]));
            }
        }
    }
    none_of("documents name targets that are there", &offences);
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let code = code();
    let exists =
        |name: &str| code.iter().any(|source| source.text.contains(&format!("fn {name}(")));
    let mut offences = Vec::new();
    for document in documents() {
        for named in document.text.split('`').skip(1).step_by(2) {
            // Tests are named by sentences.
            let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let is_test = named.matches('_').count() >= 5 && named.chars().all(is_word);
            if is_test && !named.starts_with("relay_") && !exists(named) {
                offences.push(format!("{} names {named}", document.path));
            }
        }
    }
    none_of("documents name tests that are there", &offences);
}
