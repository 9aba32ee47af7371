//! `peer get` of a single file.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    beside::{self, StoredManifest},
    context::{Context, hashing_error},
    job::{Done, Place},
    part::Part,
    room::{self, Room},
    status::Phase,
    target::FileTarget,
    unfinished::Unfinished as _,
};
use crate::{
    client::{FileState, resume},
    protocol::{Manifest, digest_file},
};

impl Context<'_> {
    /// In order to stdout: nothing of it is kept, and nothing is resumed.
    pub(super) fn stream_file(&self) -> Result<(), String> {
        let stdout = crate::stdout::open();
        let stdout = stdout.map_err(|error| format!("failed to write to stdout: {error}"))?;
        let file = FileState::lacking(self.ticket.key);
        if self.is_empty()? {
            return Ok(());
        }
        self.run(Place::Stream(Arc::new(stdout)), file, false).map(drop)
    }

    /// Into a file.
    pub(super) fn get_file(&self, target: &FileTarget) -> Result<(), String> {
        if let Some(whole) = self.existing(target)? {
            return self.serve_existing(target, whole);
        }
        let part = Part::open(target.clone(), self.ticket.key)?;
        let part = part.with_permissions(self.execute).with_holes(!self.args.no_sparse);
        let got = self.fill(&part);
        match got {
            Ok(()) => self.tell_of_permissions(target),
            Err(_) => part.discard_if_empty(self.status.have_chunks.load(Relaxed)),
        }
        got
    }

    /// What is at the target already, if it is the very file.
    fn existing(&self, target: &FileTarget) -> Result<Option<(File, Manifest)>, String> {
        let (path, key) = (target.path(), &self.ticket.key);
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("could not look at {}: {error}", path.display())),
        };
        let path = path.display();
        if metadata.is_dir() {
            return Err(format!(
                "{path} is a directory, and the ticket is of a file: give another name with -o"
            ));
        }
        if !metadata.is_file() {
            return Err(format!(
                "{path} is there and is not a regular file: give another name with -o, or - for \
                 stdout"
            ));
        }
        if self.args.force {
            return Ok(None);
        }
        let other = || {
            format!(
                "{path} is there already, and is another file: give another name with -o, or \
                 --force to replace it"
            )
        };
        if metadata.len() != key.size_bytes {
            return Err(other());
        }
        let unreadable = |error: io::Error| format!("could not read {path}: {error}");
        let file = File::open(target.path()).map_err(unreadable)?;
        let manifest = resume::manifest_of(
            &file,
            key.size_bytes,
            key.chunk_size_log2,
            self.opening.as_ref(),
            &self.hashing,
        );
        match manifest.map_err(|error| hashing_error(&error, target.path()))? {
            Some(manifest) if manifest.key() == key => {
                self.check_opened()?;
                Ok(Some((file, manifest)))
            }
            _ => Err(other()),
        }
    }

    fn serve_existing(
        &self,
        target: &FileTarget,
        (file, manifest): (File, Manifest),
    ) -> Result<(), String> {
        let path = target.path().display();
        self.note(format!("{path} is here already, whole and verified"));
        if self.lacks_permissions(target) {
            self.note(format!(
                "{path} is not executable, and the ticket's file is: chmod +x makes it so"
            ));
        }
        let size = manifest.key().size_bytes;
        self.status.resumed_bytes.store(size, Relaxed);
        self.serve(Arc::new(file), FileState::whole(Arc::new(manifest)))
    }

    fn fill(&self, part: &Part) -> Result<(), String> {
        let room = Room::of(&**part.file(), part.prepare()?);
        let path = part.target().part_path();
        if room.is_short() && self.args.no_sparse {
            return Err(self.with_hint(&room.refusal(&path), part));
        }
        if self.is_empty()? {
            return part.finish(self.args.force).map(drop);
        }
        let state = self.resume(part, room.is_short())?;
        room::check(self, room, &state, &path).map_err(|error| self.with_hint(&error, part))?;
        if state.is_whole() {
            self.check_opened()?;
            part.finish(self.args.force)?;
            return self.serve(Arc::clone(part.file()) as _, state);
        }
        let place = Place::Part { part: Arc::new(part.clone()), overwrite: self.args.force };
        match self.run(place, state, false) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.with_hint(&error, part)),
        }
    }

    /// Whether a finished file may not be executed and should be.
    fn lacks_permissions(&self, target: &FileTarget) -> bool {
        let lacks = |mode: u32| mode & self.execute != self.execute;
        fs::metadata(target.path()).is_ok_and(|metadata| lacks(metadata.mode()))
    }

    /// A file system need not have them.
    fn tell_of_permissions(&self, target: &FileTarget) {
        if self.lacks_permissions(target) {
            self.note(format!(
                "{} could not be made executable: its file system does not allow it",
                target.path().display()
            ));
        }
    }

    /// What is here of the file, found out by hashing it. The list of digests comes with it if something is here, or
    /// if it is needed for another reason.
    fn resume(&self, part: &Part, needs_manifest: bool) -> Result<FileState, String> {
        let key = self.ticket.key;
        let path = part.target().part_path();
        let has_data = part
            .had_data()
            .map_err(|error| format!("could not read {}: {error}", path.display()))?;
        let stored = beside::load_manifest(part.target(), &key);
        if has_data && matches!(stored, StoredManifest::Foreign) {
            self.note(format!(
                "{} is of another file: what this one has in common with it is kept",
                path.display()
            ));
        }
        let manifest = match stored {
            StoredManifest::Right(manifest) => Arc::new(manifest),
            _ if !has_data && !needs_manifest => return Ok(FileState::lacking(key)),
            // What is here can't be judged without the list of digests: it is got first.
            _ => {
                let place = Place::Part { part: Arc::new(part.clone()), overwrite: false };
                match self.run(place, FileState::lacking(key), true) {
                    Ok(Done::Manifest(manifest)) => manifest,
                    Ok(Done::Whole) => return Err("the list of digests was not got".into()),
                    Err(error) => return Err(self.with_hint(&error, part)),
                }
            }
        };
        if let Err(error) = beside::save_manifest(part.target(), &manifest) {
            self.note(format!("could not keep the list of digests beside the file: {error}"));
        }
        let mut state = FileState::lacking(key);
        state.set_manifest(Arc::clone(&manifest));
        if !has_data {
            return Ok(state);
        }
        self.status.enter(Phase::Hashing);
        let content = part.content();
        let have =
            resume::chunks_present(&*content, &manifest, self.opening.as_ref(), &self.hashing);
        let have = have.map_err(|error| self.with_hint(&hashing_error(&error, &path), part))?;
        for chunk in have.iter() {
            state.add(chunk);
        }
        self.tell_resumed(self.book(&state));
        Ok(state)
    }

    /// Whether the ticket's file is the empty one: then there is nothing to get.
    fn is_empty(&self) -> Result<bool, String> {
        let key = &self.ticket.key;
        if key.size_bytes > 0 {
            return Ok(false);
        }
        let is_empty = |digest| digest == digest_file(&[]);
        if !is_empty(key.id) || !is_empty(self.ticket.plain()) {
            return Err(
                "the ticket contradicts itself: a file of 0 bytes has another id: ask for \
                        the ticket again"
                    .into(),
            );
        }
        Ok(true)
    }
}
