//! Trees of files for tests, and the bundles that are made of them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::Path,
};

use relay::protocol::{
    Ticket, TicketKind,
    bundle::{Entry, Index, Kind, Preserved},
};

use super::file::TestFile;

/// What lies under a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Node {
    /// A directory.
    Directory,
    /// A file, and whether it is executable.
    File(Vec<u8>, bool),
    /// A symbolic link.
    Link(Vec<u8>),
}

/// A tree, by the paths of what is in it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct TestTree {
    nodes: BTreeMap<Vec<u8>, Node>,
    /// Mode and time that all entries keep, if they do.
    preserved: Option<(u16, i64)>,
}

impl TestTree {
    /// Puts something there, and all directories above it.
    pub(crate) fn with(mut self, path: impl AsRef<[u8]>, node: Node) -> Self {
        let path = path.as_ref();
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            self.nodes.insert(path[..at].to_vec(), Node::Directory);
        }
        self.nodes.insert(path.to_vec(), node);
        self
    }

    /// With a file of seeded bytes.
    pub(crate) fn with_file(self, path: impl AsRef<[u8]>, len: usize) -> Self {
        let path = path.as_ref();
        let seed = u64::from(crc_of(path));
        self.with(path, Node::File(TestFile::new(seed, len, 10).bytes, false))
    }

    /// Keeps this mode of all files, and this time of all entries.
    pub(crate) fn preserving(self, mode: u16, modified_secs: i64) -> Self {
        Self { preserved: Some((mode, modified_secs)), ..self }
    }

    /// All that may be in a tree: deep, empty, large, many small ones, names of all kinds, links, executables.
    pub(crate) fn usual() -> Self {
        let deep = ["d"; 63].join("/") + "/deepest";
        let mut tree = Self::default()
            .with("empty directory", Node::Directory)
            .with_file("empty", 0)
            .with_file("one", 1)
            .with_file("large", 300_000)
            .with_file(&deep, 10)
            .with_file("Käse/日本語/ελληνικά/עברית 🧀", 777)
            .with_file(b"not text \xff\xfe/\xe9", 55)
            .with_file("-rf", 5)
            .with_file("a name with spaces and 'quotes' \"of\" $kinds; *?[]", 17)
            .with_file("x".repeat(255), 3)
            .with("bin/run", Node::File(b"#!/bin/sh\necho it runs\n".to_vec(), true))
            .with("bin/link", Node::Link(b"run".to_vec()))
            .with("link to large", Node::Link(b"large".to_vec()))
            .with("bin/up", Node::Link(b"../large".to_vec()))
            .with("bin/nowhere", Node::Link(b"gone".to_vec()))
            .with_file("z last", 40_000);
        for number in 0..200 {
            tree = tree.with_file(format!("many/{number}"), 100 + number);
        }
        tree
    }

    /// Its index.
    pub(crate) fn index(&self) -> Index {
        let preserved = |is_file: bool| {
            let (mode, modified_secs) = self.preserved?;
            let mode = if is_file { mode } else { 0o750 };
            Some(Preserved { mode, modified_secs, modified_nanos: 5 })
        };
        let entries = self.nodes.iter().map(|(path, node)| {
            let kind = match node {
                Node::Directory => Kind::Directory,
                Node::File(bytes, is_executable) => Kind::File {
                    size_bytes: bytes.len() as u64,
                    is_executable: self
                        .preserved
                        .map_or(*is_executable, |(mode, _)| mode & 0o100 != 0),
                },
                Node::Link(target) => Kind::Link { target },
            };
            Entry { path, kind, preserved: preserved(matches!(node, Node::File(..))) }
        });
        Index::new(entries.collect()).expect("test trees keep the rules")
    }

    /// The bundle.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.index().header().to_vec();
        for node in self.nodes.values() {
            if let Node::File(content, _) = node {
                bytes.extend_from_slice(content);
            }
        }
        bytes
    }

    /// The bundle as what a swarm moves.
    pub(crate) fn file(&self, chunk_size_log2: u8) -> TestFile {
        TestFile::of(self.bytes(), chunk_size_log2)
    }

    /// Those under paths that this says, with the directories that they lie in.
    pub(crate) fn only(&self, is_meant: impl Fn(&[u8]) -> bool) -> Self {
        let mut only = Self { preserved: self.preserved, ..Self::default() };
        for (path, node) in self.nodes.iter().filter(|(path, _)| is_meant(path)) {
            only = only.with(path, node.clone());
        }
        only
    }

    /// Puts it there.
    pub(crate) fn write(&self, directory: &Path) {
        fs::create_dir_all(directory).expect("it can be made");
        for (path, node) in &self.nodes {
            let path = directory.join(OsStr::from_bytes(path));
            match node {
                Node::Directory => fs::create_dir(&path),
                Node::File(bytes, _) => fs::write(&path, bytes),
                Node::Link(target) => symlink(OsStr::from_bytes(target), &path),
            }
            .expect("it can be written");
        }
    }

    /// What lies there.
    pub(crate) fn read(directory: &Path) -> Self {
        let mut tree = Self::default();
        let mut ahead = vec![directory.to_owned()];
        while let Some(at) = ahead.pop() {
            for entry in fs::read_dir(&at).expect("it can be read") {
                let path = entry.expect("it can be read").path();
                let metadata = fs::symlink_metadata(&path).expect("it is there");
                let node = if metadata.is_symlink() {
                    let target = fs::read_link(&path).expect("a link");
                    Node::Link(target.as_os_str().as_bytes().to_vec())
                } else if metadata.is_dir() {
                    ahead.push(path.clone());
                    Node::Directory
                } else {
                    let is_executable = metadata.permissions().mode() & 0o100 != 0;
                    Node::File(fs::read(&path).expect("it can be read"), is_executable)
                };
                let name = path.strip_prefix(directory).expect("it lies below");
                tree.nodes.insert(name.as_os_str().as_bytes().to_vec(), node);
            }
        }
        tree
    }

    /// Asserts that this lies there, to the byte, and nothing else.
    pub(crate) fn assert_at(&self, directory: &Path) {
        self.assert_with_nanos(directory, 5);
    }

    /// The same of what came as a tar, which knows whole seconds.
    pub(crate) fn assert_extracted_at(&self, directory: &Path) {
        self.assert_with_nanos(directory, 0);
    }

    fn assert_with_nanos(&self, directory: &Path, nanos: i64) {
        let found = Self::read(directory);
        let names = |tree: &Self| {
            tree.nodes.keys().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&found), names(self), "names in {}", directory.display());
        for (path, node) in &self.nodes {
            let node = match (node, self.preserved) {
                (Node::File(bytes, _), Some((mode, _))) => {
                    &Node::File(bytes.clone(), mode & 0o100 != 0)
                }
                _ => node,
            };
            assert!(found.nodes[path] == *node, "{} differs", path.escape_ascii());
        }
        let Some((mode, modified)) = self.preserved else { return };
        for (path, node) in &self.nodes {
            let metadata = fs::symlink_metadata(directory.join(OsStr::from_bytes(path)));
            let metadata = metadata.expect("it is there");
            let path = path.escape_ascii();
            assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (modified, nanos), "{path}");
            let expected = match node {
                Node::Link(_) => continue,
                Node::Directory => 0o750,
                Node::File(..) => u32::from(mode),
            };
            assert_eq!(metadata.permissions().mode() & 0o7777, expected, "{path}");
        }
    }
}

fn crc_of(bytes: &[u8]) -> u32 {
    bytes.iter().fold(7, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
}

/// The same ticket, of a bundle.
pub(crate) fn of_bundle(ticket: &str) -> String {
    let ticket: Ticket = ticket.parse().expect("a ticket");
    ticket.with_kind(TicketKind::Bundle).to_string()
}
