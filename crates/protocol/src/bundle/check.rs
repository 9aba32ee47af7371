//! What makes entries a tree that a stranger may be given to write: paths that name one place below the root, each
//! below directories, and links that stay in the tree. Knows no file system.

use super::{
    entry::{Entry, Kind, MODE_BITS, OWNER_EXECUTES, Preserved},
    error::{BundleError, EntryFault, LinkFault},
    shown::shown_path,
    table::Table,
};
use crate::limits::{BUNDLE_LEVELS_MAX, BUNDLE_NAME_BYTES_MAX, BUNDLE_PATH_BYTES_MAX};

/// Nanoseconds of a second.
const SECOND_NANOS: u32 = 1_000_000_000;

/// Whether all entries are as they must be.
pub(super) fn check(table: &Table) -> Result<(), BundleError> {
    check_entries(table)?;
    // A link may lead to what stands behind it, so all paths must be known to be right.
    for entry in table.entries() {
        if let Kind::Link { target } = entry.kind {
            check_link(table, entry.path, target)
                .map_err(|fault| BundleError::link(entry.path, target, fault))?;
        }
    }
    Ok(())
}

fn check_entries(table: &Table) -> Result<(), BundleError> {
    let mut before: Option<&[u8]> = None;
    let mut known_parent: &[u8] = b"";
    for (number, entry) in table.entries().enumerate() {
        let faulty = |fault| BundleError::entry(entry.path, fault);
        check_path(entry.path).map_err(faulty)?;
        match before.map(|before| before.cmp(entry.path)) {
            Some(std::cmp::Ordering::Equal) => return Err(faulty(EntryFault::Twice)),
            Some(std::cmp::Ordering::Greater) => return Err(faulty(EntryFault::Unsorted)),
            Some(std::cmp::Ordering::Less) | None => {}
        }
        // Most entries lie beside the one before.
        let parent = parent_of(entry.path);
        if parent != known_parent {
            check_parent(table, parent, number).map_err(faulty)?;
            known_parent = parent;
        }
        check_preserved(&entry).map_err(faulty)?;
        before = Some(entry.path);
    }
    Ok(())
}

/// The directory that a path lies in; nothing stands for the root.
pub(super) fn parent_of(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    &path[..end]
}

fn check_path(path: &[u8]) -> Result<(), EntryFault> {
    if path.is_empty() {
        return Err(EntryFault::Empty);
    }
    if path.len() > BUNDLE_PATH_BYTES_MAX {
        return Err(EntryFault::PathTooLong(path.len()));
    }
    if path.starts_with(b"/") {
        return Err(EntryFault::Absolute);
    }
    if has_control(path) {
        return Err(EntryFault::Control);
    }
    let mut levels = 0;
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" => return Err(EntryFault::EmptyComponent),
            b"." => return Err(EntryFault::Dot),
            b".." => return Err(EntryFault::DotDot),
            _ if name.len() > BUNDLE_NAME_BYTES_MAX => {
                return Err(EntryFault::NameTooLong(name.len()));
            }
            _ => levels += 1,
        }
    }
    if levels > BUNDLE_LEVELS_MAX {
        return Err(EntryFault::TooDeep(levels));
    }
    Ok(())
}

/// Whether a terminal could take some of it for a command, or a system for the end. Bytes that are no text may
/// stand in it: names are bytes, and they are escaped where they are shown.
fn has_control(bytes: &[u8]) -> bool {
    if bytes.is_ascii() {
        return bytes.iter().any(u8::is_ascii_control);
    }
    bytes.utf8_chunks().any(|chunk| chunk.valid().chars().any(char::is_control))
}

/// The parent stands before what is in it: its path is a part of the other's, and shorter.
fn check_parent(table: &Table, parent: &[u8], number: usize) -> Result<(), EntryFault> {
    if parent.is_empty() {
        return Ok(());
    }
    match table.find(parent, number).map(|(_, entry)| entry.kind) {
        Some(Kind::Directory) => Ok(()),
        Some(Kind::File { .. }) => Err(EntryFault::BelowFile),
        Some(Kind::Link { .. }) => Err(EntryFault::BelowLink),
        None => Err(EntryFault::NoParent),
    }
}

fn check_preserved(entry: &Entry<'_>) -> Result<(), EntryFault> {
    let Some(Preserved { mode, modified_nanos, .. }) = entry.preserved else { return Ok(()) };
    let is_other = match entry.kind {
        Kind::Directory | Kind::File { .. } => mode & !MODE_BITS != 0,
        // Linux knows no other; another system's would make another bundle.
        Kind::Link { .. } => mode != MODE_BITS,
    };
    if is_other {
        return Err(EntryFault::Mode(mode));
    }
    if let Kind::File { is_executable, .. } = entry.kind
        && is_executable != (mode & OWNER_EXECUTES != 0)
    {
        return Err(EntryFault::Executable);
    }
    if modified_nanos >= SECOND_NANOS {
        return Err(EntryFault::Nanoseconds(modified_nanos));
    }
    Ok(())
}

/// Follows a target by its text. The text tells the truth: every step up leaves a directory of the bundle, and no
/// step down passes another link.
fn check_link(table: &Table, path: &[u8], target: &[u8]) -> Result<(), LinkFault> {
    check_target(target)?;
    let mut at: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
    at.pop();
    let mut is_listed = true;
    for name in target.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                if !is_listed {
                    check_directory(table, &at)?;
                }
                // What a directory lies in is one as well.
                is_listed = true;
                at.pop().ok_or(LinkFault::LeavesTree)?;
            }
            name => {
                at.push(name);
                is_listed = false;
            }
        }
    }
    check_way(table, &at)
}

fn check_target(target: &[u8]) -> Result<(), LinkFault> {
    if target.is_empty() {
        return Err(LinkFault::Empty);
    }
    if target.len() > BUNDLE_PATH_BYTES_MAX {
        return Err(LinkFault::TargetTooLong(target.len()));
    }
    if target.starts_with(b"/") {
        return Err(LinkFault::Absolute);
    }
    if has_control(target) {
        return Err(LinkFault::Control);
    }
    let names = || target.split(|&byte| byte == b'/').filter(|name| !name.is_empty());
    if let Some(name) = names().find(|name| name.len() > BUNDLE_NAME_BYTES_MAX) {
        return Err(LinkFault::NameTooLong(name.len()));
    }
    // Bounds the work for one link.
    let components = names().count();
    if components > BUNDLE_LEVELS_MAX {
        return Err(LinkFault::TooDeep(components));
    }
    Ok(())
}

/// Whether what lies above this place is no link. The place itself may be one: that link is judged by itself.
fn check_way(table: &Table, place: &[&[u8]]) -> Result<(), LinkFault> {
    let above = place.len().saturating_sub(1);
    let listed = |levels: usize| table.find(&place[..levels].join(&b'/'), table.len());
    // Most links lead to something that is there, and then all above it are directories.
    if above == 0 || listed(above).is_some_and(|(_, entry)| entry.kind == Kind::Directory) {
        return Ok(());
    }
    // What lies above a listed entry is listed, so the deepest one can be searched by halves. Only that one may be
    // anything else than a directory.
    let (mut deepest, mut unlisted) = (0, above + 1);
    while unlisted - deepest > 1 {
        let middle = usize::midpoint(deepest, unlisted);
        match listed(middle) {
            Some(_) => deepest = middle,
            None => unlisted = middle,
        }
    }
    match listed(deepest) {
        Some((_, Entry { path, kind: Kind::Link { .. }, .. })) => {
            Err(LinkFault::ThroughLink(shown_path(path)))
        }
        _ => Ok(()),
    }
}

/// Whether a step up may leave this place. A name that only looks like a directory's, as another case of a link's
/// does where case does not count, would lead elsewhere.
fn check_directory(table: &Table, place: &[&[u8]]) -> Result<(), LinkFault> {
    let path = place.join(&b'/');
    match table.find(&path, table.len()).map(|(_, entry)| entry.kind) {
        Some(Kind::Directory) => Ok(()),
        Some(Kind::Link { .. }) => Err(LinkFault::ThroughLink(shown_path(&path))),
        Some(Kind::File { .. }) | None => {
            check_way(table, place)?;
            Err(LinkFault::UpFromNoDirectory(shown_path(&path)))
        }
    }
}
