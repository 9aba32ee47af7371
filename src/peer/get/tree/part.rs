//! A directory while it is not whole: `NAME.part/`.
//!
//! Its descriptor is locked while a get writes it, and it becomes the target by one rename. Nothing of it is written
//! outside: all is opened beneath that descriptor.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, OpenOptionsExt as _},
        },
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{CWD, OFlags, RenameFlags, renameat_with, syncfs},
    io::Errno,
};

use super::{
    super::{
        beside::{self, StoredManifest, is_at, rename_to_new},
        context::{Context, hashing_error},
        target::FileTarget,
        unfinished::Unfinished,
    },
    bundle::Bundle,
    fits,
};
use crate::{
    client::{
        Content, Tree,
        tree::{layout::Completed, removal::remove_beneath, survey::TakenOver},
    },
    protocol::bundle::shown_path,
};

/// As for a file: it could be replaced between locking and looking.
const LOCK_TRIES_MAX: usize = 16;

/// A partial directory that is ours alone.
#[derive(Debug)]
pub(super) struct TreePart {
    target: FileTarget,
    directory: File,
    tree: Arc<Tree>,
    /// This get made it.
    is_new: bool,
    /// Chunks that hold the index: they are kept beside it, and are nothing of it.
    index_chunks: u32,
    /// Chunks that are wanted, with those of the index.
    goal_chunks: u32,
    /// There were files when this get began.
    had_files: bool,
    /// All that is wanted came, and is kept whatever becomes of it.
    is_completing: AtomicBool,
    /// It was renamed.
    is_finished: AtomicBool,
}

impl TreePart {
    /// Opens or makes the partial directory, locks it, finds out whether it can hold the bundle, and makes all
    /// directories in it. Also what it goes on with.
    ///
    /// # Errors
    /// A sentence for the user. What was made is removed again.
    pub(super) fn open(
        context: &Context<'_>,
        target: FileTarget,
        bundle: &Bundle,
    ) -> Result<(Self, TakenOver), String> {
        let path = target.part_path();
        let (directory, is_new) = open_locked(&path)?;
        let prepared = Self::prepare(context, &target, &directory, bundle, is_new);
        if prepared.is_err() && is_new {
            // Nothing of value is in it, and what lies beside it may be of another get.
            remove_all(&path).ok();
        }
        let (tree, taken) = prepared?;
        let index_chunks = bundle.state().have().count();
        let goal_chunks = match &bundle.selected {
            Some(selected) => bundle.chunks_of(selected).count(),
            None => bundle.manifest.key().chunk_count(),
        };
        let part = Self {
            target,
            directory,
            tree: Arc::new(tree),
            is_new,
            index_chunks,
            goal_chunks,
            had_files: taken.has_files,
            is_completing: AtomicBool::new(false),
            is_finished: AtomicBool::new(false),
        };
        Ok((part, taken))
    }

    fn prepare(
        context: &Context<'_>,
        target: &FileTarget,
        directory: &File,
        bundle: &Bundle,
        is_new: bool,
    ) -> Result<(Tree, TakenOver), String> {
        let path = target.part_path();
        let failed = |error: io::Error| format!("could not write {}: {error}", path.display());
        let root = directory.try_clone().map_err(failed)?.into();
        let tree = bundle.tree(root, !context.args.no_sparse);
        let tree = tree.with_stop(Arc::clone(&context.hashing.stop));
        // Nothing is altered before it is known that all of it may be.
        if !is_new {
            judge(context, target, &tree, bundle)?;
        }
        fits::check(directory, bundle, is_new)?;
        // Before the first file: by these the next get knows that the directory is a get's.
        let beside = beside::save_manifest(target, &bundle.manifest)
            .and_then(|()| beside::save_index(target, &bundle.chunks));
        if let Err(error) = beside {
            context.note(format!(
                "could not keep the list of files beside the directory: {error}: a get that is interrupted can't be \
                 resumed"
            ));
        }
        let taken = match is_new {
            true => TakenOver::default(),
            false => tree.take_over().map_err(|error| cannot_go_on(target, &error))?,
        };
        // Files that begin in the last chunk of the index come with it.
        let made = tree.make_directories().and_then(|()| tree.overwrite_at(&bundle.chunks, 0));
        if made.is_err() && is_new {
            beside::remove(target);
        }
        made.map_err(failed)?;
        Ok((tree, taken))
    }

    /// The open directory.
    pub(super) fn directory(&self) -> &File {
        &self.directory
    }

    fn complete(&self) -> Result<Completed, String> {
        let part = self.target.part_path();
        let failed = |error: io::Error| {
            format!("could not complete {}: {error}: run this again to go on", part.display())
        };
        let completed = self.tree.complete().map_err(failed)?;
        // One for all files: they are many.
        syncfs(&self.directory).map_err(|error| failed(error.into()))?;
        Ok(completed)
    }
}

/// Opens the directory, or makes it; whether it was made.
fn open_locked(path: &Path) -> Result<(File, bool), String> {
    let refuse = |why: &str| format!("{} {why}: choose another name with -o", path.display());
    for _ in 0..LOCK_TRIES_MAX {
        let is_new = match fs::DirBuilder::new().mode(0o777).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(refuse(&format!("can't be made: {error}"))),
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let opened = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
        let directory = match opened {
            Ok(directory) => directory,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::NOTDIR | Errno::LOOP) => return Err(refuse("is not a directory")),
                Some(Errno::NOENT) => continue,
                _ => return Err(refuse(&format!("can't be opened: {error}"))),
            },
        };
        beside::lock(&directory, path)?;
        if is_at(&directory, path) {
            return Ok((directory, is_new));
        }
    }
    Err(format!("{} is replaced again and again: choose another name with -o", path.display()))
}

/// Whether a get may go on with what lies there: alters nothing. What is not of the bundle may be removed only where a list
/// of digests shows that a get made it, and what is of it and not wanted now never.
fn judge(
    context: &Context<'_>,
    target: &FileTarget,
    tree: &Tree,
    bundle: &Bundle,
) -> Result<(), String> {
    let part = target.part_path();
    let part = part.display();
    let stored = beside::load_manifest(target, &context.ticket.key);
    let is_ours = !matches!(stored, StoredManifest::None);
    // Of what a get made, all that is wanted is gone on with.
    if !is_ours || bundle.selected.is_some() {
        let foreseen = tree.foresee().map_err(|error| cannot_go_on(target, &error))?;
        if let (false, Some(file)) = (is_ours, foreseen.file.or(foreseen.strange)) {
            return Err(format!(
                "{part} is there, and no get made it: \"{}\" lies in it: move it away, or choose another name with -o",
                shown_path(&file)
            ));
        }
        if let (true, Some(entry)) = (is_ours, foreseen.unselected) {
            return Err(format!(
                "{part} holds more than --only means, such as \"{}\": finish it without --only, or give another place \
                 with -o",
                shown_path(&entry)
            ));
        }
    }
    if matches!(stored, StoredManifest::Foreign) {
        context.note(format!(
            "{part} is of another directory: what this one has in common with it is kept"
        ));
    }
    Ok(())
}

fn cannot_go_on(target: &FileTarget, error: &io::Error) -> String {
    let part = target.part_path();
    match error.kind() {
        io::ErrorKind::Interrupted => hashing_error(error, &part),
        _ => format!(
            "can't go on in {}: {error}: remove that, or choose another name with -o",
            part.display()
        ),
    }
}

impl Unfinished for TreePart {
    fn content(&self) -> Arc<dyn Content> {
        Arc::clone(&self.tree) as _
    }

    fn target(&self) -> &FileTarget {
        &self.target
    }

    /// Not known of a tree, and not worth a walk.
    fn bytes_before(&self) -> u64 {
        0
    }

    fn is_in_place(&self) -> bool {
        let is_finished = self.is_finished.load(Ordering::Relaxed);
        is_finished || is_at(&self.directory, &self.target.part_path())
    }

    fn had_something(&self) -> bool {
        self.had_files
    }

    fn holds_nothing(&self, kept_chunks: u32) -> bool {
        let is_whole =
            kept_chunks >= self.goal_chunks || self.is_completing.load(Ordering::Relaxed);
        self.is_new && !is_whole && kept_chunks <= self.index_chunks
    }

    fn discard_if_empty(&self, kept_chunks: u32) {
        let path = self.target.part_path();
        if self.holds_nothing(kept_chunks) && is_at(&self.directory, &path) {
            // What can't be removed is taken up by the next get.
            remove_all(&path).ok();
            beside::remove(&self.target);
        }
    }

    fn finish(&self, overwrite: bool) -> Result<Option<String>, String> {
        self.is_completing.store(true, Ordering::Relaxed);
        let completed = self.complete()?;
        let (part, path) = (self.target.part_path(), self.target.path());
        if !self.is_in_place() {
            let part = part.display();
            return Err(format!(
                "{part} was moved or deleted while it was written: run this again"
            ));
        }
        let note = completed.not_preserved.map(|(count, first)| {
            format!("modes or times of {count} files could not be set, such as {first}")
        });
        let old = match rename_to_new(&part, path) {
            Err(error) if overwrite && error.kind() == io::ErrorKind::AlreadyExists => {
                exchange(&part, path)?;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(format!(
                    "{} came to be while it was got: the whole directory is kept as {}: run this again \
                     with --force to replace it, or with -o and another name",
                    path.display(),
                    part.display()
                ));
            }
            Err(error) => {
                return Err(format!(
                    "could not finish {}: {error}: the whole directory is kept as {}",
                    path.display(),
                    part.display()
                ));
            }
            Ok(()) => false,
        };
        self.is_finished.store(true, Ordering::Relaxed);
        // The name is there; a directory that can't be synced only makes it less durable.
        File::open(self.target.directory()).and_then(|directory| directory.sync_all()).ok();
        beside::remove(&self.target);
        match old.then(|| remove_replaced(&self.target)) {
            Some(Err(rest)) => Ok(Some(rest)),
            _ => Ok(note),
        }
    }
}

/// Removes the directory that was at the target, and has the name of a partial one since it was exchanged. It gets a name
/// of its own before: what is left of it if that ends early is nothing that a get may go on with.
///
/// # Errors
/// A sentence for the user: the target is whole all the same.
fn remove_replaced(target: &FileTarget) -> Result<(), String> {
    let (part, own) = (target.part_path(), target.replaced_path());
    let old = if rename_to_new(&part, &own).is_ok() { own } else { part };
    remove_all(&old).map_err(|error| {
        format!(
            "{} is new; what was there could not be removed: {error}: its rest is in {}, remove it",
            target.path().display(),
            old.display()
        )
    })
}

/// Removes a directory with all that is in it, also where its owner may not write.
fn remove_all(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = File::open(parent.unwrap_or(Path::new(".")))?;
    remove_beneath(parent.as_fd(), name.as_bytes())
}

/// Has the new directory and the old one change places, so that there is one at any time. Only a directory goes.
fn exchange(part: &Path, path: &Path) -> Result<(), String> {
    let kept = || {
        format!(
            "the whole directory is kept as {}: move {} away, and run this again",
            part.display(),
            path.display()
        )
    };
    if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return Err(format!("{} is no directory now: {}", path.display(), kept()));
    }
    match renameat_with(CWD, part, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Err(format!(
            "could not replace {}: the file system can't exchange two directories: {}",
            path.display(),
            kept()
        )),
        Err(error) => Err(format!("could not replace {}: {error}: {}", path.display(), kept())),
    }
}
