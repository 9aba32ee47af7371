//! `peer get`: gets the file of a ticket, verified, and goes on where it was interrupted.
//!
//! ```text
//!  target   where it goes         part     NAME.part, its lock and its manifest
//!  run      the event loop's side status   how it is doing
//!  screen   shows that            report   what is said at the end
//! ```

mod part;
mod report;
mod run;
mod screen;
mod status;
mod target;

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use shards::clock;
use signal_hook::consts::SIGXFSZ;

use self::{
    part::{Part, StoredManifest},
    report::Report,
    run::{Done, Job, Place},
    screen::{NEWS_MAX, News},
    status::Status,
    target::{FileTarget, Target},
};
use super::{
    args::{GetArgs, SeedFor},
    error::{ProgramError, read_token},
    event_loop::Interrupt,
};
use crate::{
    peer::{
        FileState, Remote,
        resume::{self, Hashing},
    },
    protocol::{Manifest, Token, digest_file},
    units::{bytes_text, count_text},
};

/// What every step needs.
struct Context<'a> {
    args: &'a GetArgs,
    token: Option<Token>,
    status: Arc<Status>,
    hashing: Arc<Hashing>,
    news: SyncSender<News>,
}

/// Runs the command.
///
/// # Errors
/// What the user should know; the exit code follows from it.
pub(super) fn run(args: &GetArgs) -> Result<(), ProgramError> {
    let ticket = &args.ticket;
    let target = target::resolve(args.output.as_deref(), ticket.name());
    let target = target.map_err(ProgramError::Usage)?;
    if target == Target::Stdout && args.common.json {
        let text = "-o - and --json both want stdout: give a file name, or leave --json out";
        return Err(ProgramError::Usage(text.into()));
    }
    let began = clock::now();
    let token = read_token(args.common.token_file.as_deref())?;
    let interrupt = Interrupt::watch()?;
    let hashing = Arc::new(Hashing { stop: interrupt.flag(), ..Hashing::default() });
    // A file that may not grow so large is an error of a write, not a reason to be killed.
    signal_hook::flag::register(SIGXFSZ, Arc::default())
        .map_err(|error| ProgramError::Job(format!("failed to watch for signals: {error}")))?;
    let status = Arc::new(Status::new(ticket.key));
    let result = thread::scope(|scope| {
        let (news, inbox) = sync_channel(NEWS_MAX);
        let (status, hashing) = (&status, &hashing);
        let screen = scope.spawn(move || {
            screen::show(status, hashing, &inbox, &args.common);
        });
        let (status, hashing) = (Arc::clone(status), Arc::clone(hashing));
        let context = Context { args, token, status, hashing, news };
        let result = context.get(&target);
        drop(context);
        // A screen that panicked takes nothing of the result away.
        screen.join().ok();
        result
    });
    let report = Report {
        ticket,
        target: &target,
        status: &status,
        time: clock::now() - began,
        error: result.as_ref().err().map(String::as_str),
    };
    report.print(&args.common);
    result.map_err(ProgramError::Job)
}

impl Context<'_> {
    fn get(&self, target: &Target) -> Result<(), String> {
        match target {
            Target::Stdout => self.stream(),
            Target::File(target) => match self.existing(target)? {
                Some(whole) => self.serve_existing(target, whole),
                None => self.get_file(target),
            },
        }
    }

    /// In order to stdout: nothing of it is kept, and nothing is resumed.
    fn stream(&self) -> Result<(), String> {
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let stdout = stdout.map_err(|error| format!("could not use stdout: {error}"))?;
        let file = FileState::lacking(self.args.ticket.key);
        if self.is_empty()? {
            return Ok(());
        }
        self.run(Place::Stream(Arc::new(File::from(stdout))), file, false).map(drop)
    }

    /// What is at the target already, if it is the very file.
    fn existing(&self, target: &FileTarget) -> Result<Option<(File, Manifest)>, String> {
        let (path, key) = (target.path(), &self.args.ticket.key);
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("could not look at {}: {error}", path.display())),
        };
        let path = path.display();
        if metadata.is_dir() {
            return Err(format!("{path} is a directory: give another name with -o"));
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
        let manifest =
            resume::manifest_of(&file, key.size_bytes, key.chunk_size_log2, &self.hashing);
        match manifest.map_err(|error| self.hashing_error(&error, target))? {
            Some(manifest) if manifest.key() == key => Ok(Some((file, manifest))),
            _ => Err(other()),
        }
    }

    fn serve_existing(
        &self,
        target: &FileTarget,
        (file, manifest): (File, Manifest),
    ) -> Result<(), String> {
        self.note(format!("{} is here already, whole and verified", target.path().display()));
        let size = manifest.key().size_bytes;
        self.status.resumed_bytes.store(size, Relaxed);
        self.serve(Arc::new(file), FileState::whole(Arc::new(manifest)))
    }

    /// Serves a file that is in its place, if that was asked for.
    fn serve(&self, file: Arc<File>, state: FileState) -> Result<(), String> {
        let key = state.key();
        self.status.set_have(key.chunk_count(), key.size_bytes);
        if matches!(self.args.seed_for, SeedFor::Auto) || key.size_bytes == 0 {
            return Ok(());
        }
        if let Err(error) = self.run(Place::Whole(file), state, false) {
            // The file is whole, which is what was asked for.
            self.note(format!("nobody could be served: {error}"));
        }
        Ok(())
    }

    fn get_file(&self, target: &FileTarget) -> Result<(), String> {
        let part = Part::open(target.clone())?;
        let got = self.fill(target, part.clone());
        if got.is_err() {
            part.discard_if_empty(&self.args.ticket.key);
        }
        got
    }

    fn fill(&self, target: &FileTarget, part: Part) -> Result<(), String> {
        let key = self.args.ticket.key;
        part.prepare(&key).map_err(|error| self.with_hint(&error, target))?;
        if self.is_empty()? {
            return part.finish(&key, self.args.force);
        }
        let state = self.resume(&part)?;
        if state.is_whole() {
            part.finish(&key, self.args.force)?;
            return self.serve(Arc::clone(part.file()), state);
        }
        let place = Place::Part { part, overwrite: self.args.force };
        match self.run(place, state, false) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.with_hint(&error, target)),
        }
    }

    /// What is here of the file, found out by hashing it.
    fn resume(&self, part: &Part) -> Result<FileState, String> {
        let key = self.args.ticket.key;
        let path = part.target().part_path();
        let has_data = resume::has_data(part.file());
        let has_data =
            has_data.map_err(|error| format!("could not read {}: {error}", path.display()))?;
        let stored = part.load_manifest(&key);
        if has_data && matches!(stored, StoredManifest::Foreign) {
            self.note(format!(
                "{} is of another file: what this one has in common with it is kept",
                path.display()
            ));
        }
        let manifest = match stored {
            StoredManifest::Right(manifest) => Arc::new(manifest),
            _ if !has_data => return Ok(FileState::lacking(key)),
            // What is here can't be judged without the list of digests: it is got first.
            _ => {
                let place = Place::Part { part: part.clone(), overwrite: false };
                match self.run(place, FileState::lacking(key), true) {
                    Ok(Done::Manifest(manifest)) => manifest,
                    Ok(Done::Whole) => return Err("the list of digests was not got".into()),
                    Err(error) => return Err(self.with_hint(&error, part.target())),
                }
            }
        };
        if let Err(error) = part.save_manifest(&manifest) {
            self.note(format!("could not keep the list of digests beside the file: {error}"));
        }
        let have = resume::chunks_present(part.file(), &manifest, &self.hashing);
        let have = have.map_err(|error| self.hashing_error(&error, part.target()))?;
        let mut state = FileState::lacking(key);
        state.set_manifest(manifest);
        let mut bytes = 0;
        for chunk in have.iter() {
            state.add(chunk);
            bytes += u64::from(key.chunk_len_bytes(chunk));
        }
        self.status.has_manifest.store(true, Relaxed);
        self.status.set_have(have.count(), bytes);
        self.status.resumed_bytes.store(bytes, Relaxed);
        if has_data {
            self.note(format!(
                "resuming: {} of {} are here and verified",
                bytes_text(bytes),
                bytes_text(key.size_bytes)
            ));
        }
        Ok(state)
    }

    fn run(&self, place: Place, file: FileState, manifest_only: bool) -> Result<Done, String> {
        let args = self.args;
        let key = *file.key();
        if !manifest_only {
            let chunks = count_text(u64::from(key.chunk_count()), "chunk");
            let (name, size) = (args.ticket.name().escape_debug(), bytes_text(key.size_bytes));
            let relay = &args.ticket.relay;
            self.note(format!("getting {name} ({size}, {chunks}) through {relay}"));
        }
        let job = Job {
            remote: Remote::from(args.ticket.relay.clone()),
            token: self.token.clone(),
            transport: args.common.transport,
            place,
            manifest_only,
            timeout: args.timeout,
            seed_for: args.seed_for,
            status: Arc::clone(&self.status),
            news: self.news.clone(),
            interrupted: Arc::clone(&self.hashing.stop),
        };
        run::run(args.common.driver, job, file)
    }

    /// Whether the ticket's file is the empty one: then there is nothing to get.
    fn is_empty(&self) -> Result<bool, String> {
        let key = &self.args.ticket.key;
        if key.size_bytes > 0 {
            return Ok(false);
        }
        if key.id != digest_file(&[]) {
            return Err(
                "the ticket contradicts itself: a file of 0 bytes has another id: ask for \
                        the ticket again"
                    .into(),
            );
        }
        Ok(true)
    }

    fn hashing_error(&self, error: &io::Error, target: &FileTarget) -> String {
        match error.kind() {
            io::ErrorKind::Interrupted => self.with_hint("interrupted", target),
            _ => format!("could not read what is here of {}: {error}", target.path().display()),
        }
    }

    /// Adds what is kept, and how to go on.
    fn with_hint(&self, error: &str, target: &FileTarget) -> String {
        let have = self.status.have_bytes.load(Relaxed);
        if have == 0 {
            return format!("{error}; nothing of it has come yet");
        }
        let have = bytes_text(have);
        let size = bytes_text(self.args.ticket.key.size_bytes);
        let part = target.part_path();
        if self.status.is_given_up.load(Relaxed) {
            let part = part.display();
            return format!(
                "{error}; {have} of {size} are kept in {part}: a get with the new ticket takes what \
                 both have in common from there"
            );
        }
        format!("{error}; {have} of {size} are kept in {}: run this again to go on", part.display())
    }

    fn note(&self, text: String) {
        self.news.try_send(News::Note(text)).ok();
    }
}
