//! Reads the tree's sources for the tidy tests: files, code without comments, paths that it names.
//!
//! It is a reader for rules, not a parser: it knows comments, strings, `use` trees and paths, and
//! that is all it needs to know.

#![allow(dead_code, reason = "each test crate uses its own part of this")]

pub(crate) mod imports;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Names of what is not ours: outputs, and what git keeps (a file, in a linked work tree).
const SKIPPED: [&str; 4] = ["target", "out", ".git", "node_modules"];

/// Where Rust code of ours lies.
const CODE: [&str; 7] = ["src", "crates", "shards", "loadgen", "tests", "examples", "benches"];

/// One file of the tree.
pub(crate) struct Source {
    /// From the root of the repository, with forward slashes.
    pub(crate) path: String,
    /// As it is on disk.
    pub(crate) text: String,
}

/// All Rust code of ours.
pub(crate) fn code() -> Vec<Source> {
    let found = sources(&CODE, ".rs");
    assert!(found.len() > 20, "the sources are where they are looked for: {}", found.len());
    found
}

/// Fails with all of them, so that one run shows everything.
pub(crate) fn none_of(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

/// The root of the repository; cargo says which, also to a test that was built in another tree.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// Every file below these directories (or these files) whose name ends so; missing ones are none.
pub(crate) fn sources(places: &[&str], suffix: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for place in places {
        collect(&root().join(place), suffix, &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(place: &Path, suffix: &str, found: &mut Vec<Source>) {
    let name = place.file_name().map(|name| name.to_string_lossy().into_owned());
    if name.as_ref().is_some_and(|name| SKIPPED.contains(&name.as_str())) {
        return;
    }
    if place.is_dir() {
        let entries = fs::read_dir(place).expect("a directory of the tree can be read");
        for entry in entries {
            collect(&entry.expect("an entry can be read").path(), suffix, found);
        }
    } else if name.is_some_and(|name| name.ends_with(suffix)) {
        // What is not text holds no rule to check.
        let Ok(text) = fs::read_to_string(place) else { return };
        let path = place.strip_prefix(root()).expect("below the root");
        let path = path.to_string_lossy().replace('\\', "/");
        found.push(Source { path, text });
    }
}

/// What a piece of source is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    LineComment,
    BlockComment(u32),
    Text { hashes: Option<usize> },
}

impl Source {
    /// The code: comments and the insides of string literals are blanked, lines stay.
    pub(crate) fn code(&self) -> String {
        self.keep(|kind| kind == Kind::Code)
    }

    /// The string literals, one a line, in order.
    pub(crate) fn strings(&self) -> Vec<String> {
        let kept = self.keep(|kind| matches!(kind, Kind::Text { .. }));
        kept.split('\u{1}').map(str::to_owned).filter(|text| !text.is_empty()).collect()
    }

    fn keep(&self, wanted: impl Fn(Kind) -> bool) -> String {
        let chars: Vec<char> = self.text.chars().collect();
        let mut out = String::with_capacity(self.text.len());
        let (mut kind, mut at) = (Kind::Code, 0);
        while at < chars.len() {
            let (next, length) = step(kind, &chars, at);
            for (index, &char) in chars[at..at + length].iter().enumerate() {
                let is_edge = next != kind && index == 0;
                let text_ends = is_edge && matches!(kind, Kind::Text { .. });
                if text_ends && wanted(kind) {
                    out.push('\u{1}');
                } else if char == '\n' && !matches!(kind, Kind::Text { .. }) {
                    out.push('\n');
                } else if next == kind && wanted(kind) {
                    out.push(char);
                } else {
                    out.push(if matches!(kind, Kind::Text { .. }) { '\u{1}' } else { ' ' });
                }
            }
            (kind, at) = (next, at + length);
        }
        if wanted(Kind::Code) {
            return out.replace('\u{1}', " ");
        }
        out.split('\u{1}').map(str::trim).collect::<Vec<_>>().join("\u{1}")
    }

    /// Every path that the code names, in full: `use` trees are expanded.
    pub(crate) fn paths(&self) -> Vec<String> {
        let code = self.code();
        let mut paths = plain_paths(&code);
        for tree in use_trees(&code) {
            expand("", &tree, &mut paths);
        }
        paths
    }

    /// The words of the code.
    pub(crate) fn words(&self) -> Vec<String> {
        let code = self.code();
        code.split(|char: char| !is_word(char)).map(str::to_owned).collect()
    }
}

/// What follows after `at`, and how many characters belong to the step.
fn step(kind: Kind, chars: &[char], at: usize) -> (Kind, usize) {
    let here = chars[at];
    let next = chars.get(at + 1).copied().unwrap_or('\0');
    match kind {
        Kind::LineComment if here == '\n' => (Kind::Code, 1),
        Kind::LineComment => (kind, 1),
        Kind::BlockComment(depth) => match (here, next) {
            ('*', '/') if depth == 1 => (Kind::Code, 2),
            ('*', '/') => (Kind::BlockComment(depth - 1), 2),
            ('/', '*') => (Kind::BlockComment(depth + 1), 2),
            _ => (kind, 1),
        },
        Kind::Text { hashes: None } => match here {
            '\\' => (kind, 2.min(chars.len() - at)),
            '"' => (Kind::Code, 1),
            _ => (kind, 1),
        },
        Kind::Text { hashes: Some(hashes) } => {
            let ends =
                here == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
            if ends { (Kind::Code, 1 + hashes) } else { (kind, 1) }
        }
        Kind::Code => match (here, next) {
            ('/', '/') => (Kind::LineComment, 2),
            ('/', '*') => (Kind::BlockComment(1), 2),
            ('"', _) => (Kind::Text { hashes: None }, 1),
            ('r', '"' | '#') if at == 0 || !is_word(chars[at - 1]) || chars[at - 1] == 'b' => {
                let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
                if chars.get(at + 1 + hashes) == Some(&'"') {
                    (Kind::Text { hashes: Some(hashes) }, 2 + hashes)
                } else {
                    (kind, 1)
                }
            }
            // A character literal, which may be a quote; a lifetime has no closing mark.
            ('\'', '\\') => (kind, 4.min(chars.len() - at)),
            ('\'', _) if chars.get(at + 2) == Some(&'\'') => (kind, 3),
            _ => (kind, 1),
        },
    }
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Paths of at least two segments, and macros by their name.
fn plain_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let is_part = |char: char| is_word(char) || char == ':';
    for piece in code.split(|char: char| !is_part(char)) {
        let path = piece.trim_matches(':');
        if path.contains("::") {
            paths.push(path.to_owned());
        }
    }
    paths
}

/// The trees of all `use` declarations.
fn use_trees(code: &str) -> Vec<String> {
    let mut trees = Vec::new();
    for declaration in code.split(';') {
        let words: Vec<&str> = declaration.split_whitespace().collect();
        let Some(at) = words.iter().rposition(|word| *word == "use") else { continue };
        trees.push(words[at + 1..].join(" "));
    }
    trees
}

/// Expands `a::{b, c::{d, e}}` to full paths.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        let name = tree.split_whitespace().next().unwrap_or("");
        paths.push(format!("{prefix}{name}"));
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let group = group.strip_suffix('}').unwrap_or(group);
    let (mut depth, mut from) = (0, 0);
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &group[from..at], paths);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !group[from..].trim().is_empty() {
        expand(&prefix, &group[from..], paths);
    }
}

/// Whether the path is this one or below it.
pub(crate) fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// A file that is compiled for tests only, by its name.
pub(crate) fn is_of_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}
