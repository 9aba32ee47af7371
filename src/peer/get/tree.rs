//! `peer get` of a directory.
//!
//! ```text
//!  bundle   what is in it: the index, from beside the target or from the relay
//!  fits     whether this file system can hold that
//!  part     NAME.part/, until it is whole       present   whether it is here already
//!  tar      the same in order to another program
//! ```

pub(super) mod bundle;
mod fits;
mod part;
mod present;
mod tar;

use std::{
    fs, io,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use self::{bundle::Bundle, part::TreePart, tar::TarSink};
use super::{
    context::{Context, hashing_error},
    count::FileCount,
    job::Place,
    room::{self, Room},
    status::Phase,
    target::FileTarget,
    unfinished::Unfinished as _,
};
use crate::{
    client::{FileState, resume, tree::survey::TakenOver},
    protocol::bundle::shown_path,
    units::count_text,
};

impl Context<'_> {
    /// In order to stdout, as a tar: nothing of it is kept, and nothing is resumed.
    pub(super) fn stream_tree(&self) -> Result<(), String> {
        let stdout = crate::stdout::open();
        let stdout = stdout.map_err(|error| format!("failed to write to stdout: {error}"))?;
        let bundle = bundle::get(self, None)?;
        let state = self.state_of(&bundle);
        let sink = TarSink::new(stdout, self.ticket.key, &bundle);
        // What came with the index is written first.
        sink.begin(&bundle.chunks)
            .map_err(|error| format!("failed to write to stdout: {error}"))?;
        self.book(&state);
        self.count(&bundle, &state);
        if state.is_complete() {
            self.check_whole(&state)?;
            let ended = crate::client::store::Sink::finish(&sink);
            return ended.map_err(|error| format!("failed to write to stdout: {error}"));
        }
        self.run(Place::Stream(Arc::new(sink)), state, false).map(drop)
    }

    /// Into a directory.
    pub(super) fn get_tree(&self, target: &FileTarget) -> Result<(), String> {
        let is_there = self.is_directory_there(target)?;
        let bundle = bundle::get(self, Some(target))?;
        if is_there && !self.args.force {
            return self.serve_present(target, &bundle);
        }
        let (part, taken) = TreePart::open(self, target.clone(), &bundle)?;
        let part = Arc::new(part);
        let got = self.fill_tree(&part, &bundle, taken);
        if got.is_err() {
            part.discard_if_empty(self.status.have_chunks.load(Relaxed));
        }
        got
    }

    /// Whether there is a directory. Something else is an error.
    fn is_directory_there(&self, target: &FileTarget) -> Result<bool, String> {
        let path = target.path().display();
        match fs::symlink_metadata(target.path()) {
            Ok(metadata) if metadata.is_dir() => Ok(true),
            Ok(_) => Err(format!(
                "{path} is not a directory, and the ticket is of one: give another name with -o"
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(format!("could not look at {path}: {error}")),
        }
    }

    /// Serves a directory that is there, if it is the very one.
    fn serve_present(&self, target: &FileTarget, bundle: &Bundle) -> Result<(), String> {
        let path = target.path().display();
        let Some(tree) = present::find(self, target, bundle)? else {
            return Err(format!(
                "{path} is there already, and is another directory: give another name with -o, or \
                 --force to replace it"
            ));
        };
        self.note(format!("{path} is here already, whole and verified"));
        if let Ok((count @ 1.., Some(first))) = tree.other_marks() {
            let files = count_text(count as u64, "file");
            self.note(format!(
                "whether a file may be executed differs from the ticket's for {files}, such as {}: chmod makes it so, or \
                 --force gets all of it again",
                shown_path(&first)
            ));
        }
        let state = FileState::whole(Arc::clone(&bundle.manifest));
        self.count(bundle, &state);
        self.status.resumed_bytes.store(state.key().size_bytes, Relaxed);
        self.serve(Arc::new(tree), state)
    }

    fn fill_tree(
        &self,
        part: &Arc<TreePart>,
        bundle: &Bundle,
        taken: TakenOver,
    ) -> Result<(), String> {
        let state = self.resume_tree(part, bundle, taken.has_files);
        let state = state.map_err(|error| self.with_hint(&error, &**part))?;
        self.count(bundle, &state);
        let key = *state.key();
        let lacking = state.lacking_chunks().map(|chunk| u64::from(key.chunk_len_bytes(chunk)));
        // What files that are there already have is not needed once more.
        let needed = self.status.goal_bytes().saturating_sub(taken.allocated_bytes);
        let room = Room::of(part.directory(), needed.min(lacking.sum()));
        room::check(self, room, &state, &part.target().part_path())
            .map_err(|error| self.with_hint(&error, &**part))?;
        if state.is_complete() {
            self.check_whole(&state)?;
            self.status.enter(Phase::Finishing);
            let note = part.finish(self.args.force)?;
            note.into_iter().for_each(|note| self.note(note));
            return match state.is_whole() {
                true => self.serve(part.content(), state),
                false => Ok(()),
            };
        }
        let place = Place::Part { part: Arc::clone(part) as _, overwrite: self.args.force };
        match self.run(place, state, false) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.with_hint(&error, &**part)),
        }
    }

    /// What is here of it: the chunks of the index, and what is found by hashing, if there was any file.
    fn resume_tree(
        &self,
        part: &TreePart,
        bundle: &Bundle,
        has_files: bool,
    ) -> Result<FileState, String> {
        let mut state = self.state_of(bundle);
        if !has_files {
            self.book(&state);
            return Ok(state);
        }
        self.status.enter(Phase::Hashing);
        let (manifest, opening) = (&bundle.manifest, self.opening.as_ref());
        let have = resume::chunks_present(&*part.content(), manifest, opening, &self.hashing);
        let have = have.map_err(|error| hashing_error(&error, &part.target().part_path()))?;
        for chunk in have.iter() {
            state.add(chunk);
        }
        self.tell_resumed(self.book(&state));
        Ok(state)
    }

    /// With the chunks of the index, and nothing else.
    fn state_of(&self, bundle: &Bundle) -> FileState {
        let mut state = bundle.state();
        if let Some(selected) = &bundle.selected {
            state = state.with_goal(bundle.chunks_of(selected));
            let chunks: Vec<u32> = state.goal().into_iter().flat_map(|goal| goal.iter()).collect();
            let key = state.key();
            let bytes = chunks.iter().map(|&chunk| u64::from(key.chunk_len_bytes(chunk))).sum();
            self.status.set_goal(u32::try_from(chunks.len()).unwrap_or(u32::MAX), bytes);
        }
        state
    }

    fn count(&self, bundle: &Bundle, state: &FileState) {
        let selected = bundle.selected.as_deref();
        let count = FileCount::new(*state.key(), &bundle.index, selected, state.have());
        self.status.set_files(count);
    }

    /// Whether what was opened is the ticket's, if all of it was got. Of a selection only chunks can be judged, by the
    /// list of digests, which the ticket names: the digest of what lies on disk is that of all of it.
    fn check_whole(&self, state: &FileState) -> Result<(), String> {
        if state.is_whole() { self.check_opened() } else { Ok(()) }
    }
}
