//! Which files of a crate import which, and the circles that they form.
//!
//! It reads text, like the rest of the tidy tests: `use` trees, and paths that begin with `crate`, `self`,
//! `super` or a child module. Modules for tests are left out. A module that is written inside another
//! file counts as part of that file.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, expand, is_of_tests, is_word, plain_paths, use_trees};

/// Where a file stands in its crate: the names of the modules that lead to it. The root's is empty.
type Module = Vec<String>;

/// The files of one crate, and what each imports from the others.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    /// Path of each module's file.
    files: BTreeMap<Module, String>,
    /// For each pair of files, the paths by which the first names what the second has.
    edges: BTreeMap<(Module, Module), BTreeSet<String>>,
}

/// Files of which each can be reached from each other one by imports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Circle {
    /// Paths of its files.
    pub(crate) files: Vec<String>,
    /// The import without which the fewest files are left in circles.
    pub(crate) to_cut: String,
}

impl Imports {
    /// Of the crate whose sources lie below this directory, which ends with a slash.
    pub(crate) fn of(directory: &str, sources: &[Source]) -> Self {
        let mut imports = Self::default();
        let code: Vec<&Source> = sources
            .iter()
            .filter(|source| source.path.starts_with(directory) && !is_of_tests(&source.path))
            .collect();
        let has_library = code.iter().any(|source| source.path == format!("{directory}lib.rs"));
        for source in &code {
            let module = module_of(&source.path[directory.len()..], has_library);
            imports.files.insert(module, source.path.clone());
        }
        for source in &code {
            let module = module_of(&source.path[directory.len()..], has_library);
            imports.add_edges(&module, &without_tests(&source.code()));
        }
        imports
    }

    /// How many files the crate has.
    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    fn add_edges(&mut self, from: &Module, code: &str) {
        let (mut paths, mut rest) = (Vec::new(), code.to_owned());
        for tree in use_trees(code) {
            expand("", &tree, &mut paths);
        }
        // The names within a `use` are whole only as part of its tree.
        while let Some((start, end)) = use_declaration(&rest) {
            rest.replace_range(start..end, ";");
        }
        paths.extend(plain_paths(&rest));
        for path in paths {
            if let Some(to) = self.resolve(from, &path).filter(|to| to != from) {
                self.edges.entry((from.clone(), to)).or_default().insert(path);
            }
        }
    }

    /// The file that has what the path names; none if that is of another crate.
    fn resolve(&self, from: &Module, path: &str) -> Option<Module> {
        let mut segments = path.split("::").map(str::trim).peekable();
        let mut module = match *segments.peek()? {
            "crate" => {
                segments.next();
                Vec::new()
            }
            "self" => {
                segments.next();
                from.clone()
            }
            "super" => {
                let mut module = from.clone();
                while segments.next_if_eq(&"super").is_some() {
                    module.pop();
                }
                module
            }
            name => {
                let child = below(from, name);
                self.files.contains_key(&child).then_some(())?;
                from.clone()
            }
        };
        for name in segments {
            let child = below(&module, name);
            if !self.files.contains_key(&child) {
                break;
            }
            module = child;
        }
        self.files.contains_key(&module).then_some(module)
    }

    /// All circles, the largest first.
    pub(crate) fn circles(&self) -> Vec<Circle> {
        let mut circles: Vec<Circle> =
            self.components(None).iter().map(|members| self.describe(members)).collect();
        circles.sort_by_key(|circle| std::cmp::Reverse(circle.files.len()));
        circles
    }

    fn describe(&self, members: &BTreeSet<&Module>) -> Circle {
        let inner = self
            .edges
            .iter()
            .filter(|((from, to), _)| members.contains(from) && members.contains(to));
        let left = |cut: &(Module, Module)| -> usize {
            let components = self.components(Some(cut));
            components.iter().flatten().filter(|module| members.contains(**module)).count()
        };
        // Of those that cut equally much, a child's import from its parent is the first to go, then the one
        // that names least.
        let cut = inner.min_by_key(|(edge, paths)| {
            let is_from_parent = edge.0.starts_with(&edge.1);
            (left(edge), !is_from_parent, paths.len())
        });
        let ((from, to), paths) = cut.expect("a circle has imports");
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let to_cut =
            format!("{} imports {}: {}", self.files[from], self.files[to], paths.join(", "));
        Circle { files: members.iter().map(|module| self.files[*module].clone()).collect(), to_cut }
    }

    /// The sets of more than one file that reach each other, perhaps without one of the imports.
    fn components(&self, without: Option<&(Module, Module)>) -> Vec<BTreeSet<&Module>> {
        let modules: Vec<&Module> = self.files.keys().collect();
        let index = |module: &Module| modules.binary_search(&module).expect("both are files");
        let mut imported = vec![Vec::new(); modules.len()];
        for edge in self.edges.keys().filter(|edge| Some(*edge) != without) {
            imported[index(&edge.0)].push(index(&edge.1));
        }
        let reached: Vec<BTreeSet<usize>> =
            (0..modules.len()).map(|from| reached_from(from, &imported)).collect();
        let mut components: Vec<BTreeSet<&Module>> = Vec::new();
        for (at, seen) in reached.iter().enumerate().filter(|(at, seen)| seen.contains(at)) {
            if !components.iter().any(|known| known.contains(modules[at])) {
                let back = seen.iter().filter(|other| reached[**other].contains(&at));
                components.push(back.map(|other| modules[*other]).collect());
            }
        }
        components
    }
}

/// All that this one leads to, by one step or several.
fn reached_from(from: usize, steps: &[Vec<usize>]) -> BTreeSet<usize> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(at) = next.pop() {
        next.extend(steps[at].iter().filter(|to| seen.insert(**to)));
    }
    seen
}

fn below(module: &Module, name: &str) -> Module {
    module.iter().map(String::as_str).chain([name]).map(str::to_owned).collect()
}

/// The module of a file below a crate's `src/`. Beside a library, `main.rs` is another crate.
fn module_of(path: &str, has_library: bool) -> Module {
    let mut names: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let is_root = match names.last().map(String::as_str) {
        Some("mod") => true,
        Some("lib") => names.len() == 1,
        Some("main") => names.len() == 1 && !has_library,
        _ => false,
    };
    if is_root {
        names.pop();
    }
    names
}

/// Where the next `use` declaration begins and ends.
fn use_declaration(code: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    loop {
        let start = from + code[from..].find("use ")?;
        let before = code[..start].chars().next_back();
        let end = start + code[start..].find(';')? + 1;
        if before.is_none_or(|char| !is_word(char)) {
            return Some((start, end));
        }
        from = start + 1;
    }
}

/// The code without items that only tests have.
pub(crate) fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        kept.push_str(&rest[..at]);
        rest = &rest[at + MARK.len()..];
        rest = &rest[item_len(rest)..];
    }
    kept + rest
}

/// Bytes of the item that comes next: up to the end of its block, or its semicolon.
fn item_len(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, char) in code.char_indices() {
        match char {
            '{' | '[' | '(' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' | ']' | ')' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}
