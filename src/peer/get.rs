//! `peer get`: gets the file of a ticket, verified, and goes on where it was interrupted.
//!
//! ```text
//!  target   where it goes         part     NAME.part, its lock and its manifest
//!  run, job the event loop's side status   how it is doing
//!  screen   shows that            report   what is said at the end
//! ```

mod job;
mod part;
mod report;
mod run;
mod screen;
mod status;
mod target;

use std::{
    cell::Cell,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
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
    job::{Done, Job, Manner, Place},
    part::{Part, StoredManifest},
    report::Report,
    screen::{NEWS_MAX, News},
    status::{Phase, Status},
    target::{FileTarget, Target},
};
use super::{
    args::{GetArgs, SeedFor},
    belief::Belief,
    destination::Destination,
    error::{ProgramError, no_thread, output_error, read_token},
    event_loop::Interrupt,
    way::Way,
};
use crate::{
    client::{
        FileState, Opening, Remote,
        resume::{self, Hashing},
    },
    protocol::{Manifest, PinnedRelay, Roles, Ticket, Token, digest_file, shown_name},
    units::{bytes_text, bytes_texts, count_text},
};

/// What every step needs.
struct Context<'a> {
    args: &'a GetArgs,
    ticket: &'a Ticket,
    remote: Remote,
    belief: Belief,
    /// Of a sealed file: opens it, and knows what was opened.
    opening: Option<Opening>,
    token: Option<Token>,
    /// Permissions to execute that the file gets.
    execute: u32,
    status: Arc<Status>,
    hashing: Arc<Hashing>,
    news: SyncSender<News>,
    /// Whether it is known what is here of the file.
    is_checked: Cell<bool>,
}

/// Runs the command.
///
/// # Errors
/// What the user should know; the exit code follows from it.
pub(super) fn run(args: &GetArgs) -> Result<(), ProgramError> {
    let ticket = &args.ticket.read()?;
    let target = target::resolve(args.output.as_deref(), ticket.name());
    let target = target.map_err(ProgramError::Usage)?;
    if target == Target::Stdout && args.common.json {
        let text = "-o - and --json both want stdout: give a file name, or leave --json out";
        return Err(ProgramError::Usage(text.into()));
    }
    if target == Target::Stdout || args.common.json {
        crate::stdout::check().map_err(|error| output_error(&error))?;
    }
    let destination = Destination::of(ticket, args.relay.as_ref());
    let Way { remote, note } =
        destination.way(args.common.proxy.as_ref(), args.common.transport)?;
    let belief = destination.belief(args.common.tls_ca.as_deref())?;
    let execute = if ticket.is_executable { part::execute_permissions() } else { 0 };
    let began = clock::now();
    let token = read_token(args.common.token_file.as_deref(), Roles::GET)?;
    let interrupt = Interrupt::watch()?;
    let hashing = Arc::new(Hashing { stop: interrupt.flag(), ..Hashing::default() });
    // A file that may not grow so large is an error of a write, not a reason to be killed.
    signal_hook::flag::register(SIGXFSZ, Arc::default())
        .map_err(|error| ProgramError::Job(format!("failed to watch for signals: {error}")))?;
    let status = Arc::new(Status::new(ticket.key));
    let result = thread::scope(|scope| {
        let (news, inbox) = sync_channel(NEWS_MAX);
        let (status, hashing) = (&status, &hashing);
        let screen = thread::Builder::new().name("peer-screen".into());
        let screen = screen.spawn_scoped(scope, move || {
            screen::show(status, hashing, &inbox, &args.common);
        });
        let screen = screen.map_err(|error| no_thread("for the screen", &error))?;
        let (status, hashing) = (Arc::clone(status), Arc::clone(hashing));
        let is_checked = Cell::new(false);
        let opening = ticket.sealed.as_ref().map(|sealed| Opening::new(sealed, &ticket.key));
        let context = Context {
            args,
            ticket,
            remote,
            belief,
            opening,
            token,
            execute,
            status,
            hashing,
            news,
            is_checked,
        };
        note.into_iter().for_each(|note| context.note(note));
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
    let printed = report.print(&args.common);
    result.map_err(ProgramError::Job).and(printed)
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
        let stdout = crate::stdout::open();
        let stdout = stdout.map_err(|error| format!("failed to write to stdout: {error}"))?;
        let file = FileState::lacking(self.ticket.key);
        if self.is_empty()? {
            return Ok(());
        }
        self.run(Place::Stream(Arc::new(stdout)), file, false).map(drop)
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

    /// Serves a file that is in its place, if that was asked for.
    fn serve(&self, file: Arc<File>, state: FileState) -> Result<(), String> {
        let key = state.key();
        self.status.set_have(key.chunk_count(), key.size_bytes);
        if matches!(self.args.seed_for, SeedFor::Auto) || key.size_bytes == 0 {
            return Ok(());
        }
        if let Err(error) = self.run(Place::Whole(file), state, false) {
            // The file is whole, which is what was asked for.
            self.note(format!("no other peer could be served: {error}"));
        }
        Ok(())
    }

    fn get_file(&self, target: &FileTarget) -> Result<(), String> {
        let part = Part::open(target.clone())?.with_permissions(self.execute);
        let got = self.fill(&part);
        match got {
            Ok(()) => self.tell_of_permissions(target),
            Err(_) => {
                let kept_chunks = self.status.have_chunks.load(Relaxed);
                part.discard_if_empty(&self.ticket.key, kept_chunks);
            }
        }
        got
    }

    fn fill(&self, part: &Part) -> Result<(), String> {
        let key = self.ticket.key;
        part.prepare(&key).map_err(|error| self.with_hint(&error, part))?;
        if self.is_empty()? {
            return part.finish(&key, self.args.force);
        }
        let state = self.resume(part)?;
        if state.is_whole() {
            self.check_opened()?;
            part.finish(&key, self.args.force)?;
            return self.serve(Arc::clone(part.file()), state);
        }
        let place = Place::Part { part: part.clone(), overwrite: self.args.force };
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

    /// What is here of the file, found out by hashing it.
    fn resume(&self, part: &Part) -> Result<FileState, String> {
        let key = self.ticket.key;
        let path = part.target().part_path();
        let has_data = part
            .had_data()
            .map_err(|error| format!("could not read {}: {error}", path.display()))?;
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
                    Err(error) => return Err(self.with_hint(&error, part)),
                }
            }
        };
        if let Err(error) = part.save_manifest(&manifest) {
            self.note(format!("could not keep the list of digests beside the file: {error}"));
        }
        let mut state = FileState::lacking(key);
        state.set_manifest(Arc::clone(&manifest));
        self.status.has_manifest.store(true, Relaxed);
        if !has_data {
            return Ok(state);
        }
        self.status.enter(Phase::Hashing);
        let have =
            resume::chunks_present(part.file(), &manifest, self.opening.as_ref(), &self.hashing);
        let have = have.map_err(|error| {
            self.with_hint(&hashing_error(&error, &part.target().part_path()), part)
        })?;
        let mut bytes = 0;
        for chunk in have.iter() {
            state.add(chunk);
            bytes += u64::from(key.chunk_len_bytes(chunk));
        }
        self.is_checked.set(true);
        self.status.set_have(have.count(), bytes);
        self.status.resumed_bytes.store(bytes, Relaxed);
        let (here, size) = bytes_texts(bytes, key.size_bytes);
        self.note(format!("resuming: {here} of {size} are here and verified"));
        Ok(state)
    }

    fn run(&self, place: Place, file: FileState, manifest_only: bool) -> Result<Done, String> {
        let args = self.args;
        let key = *file.key();
        if !manifest_only {
            let chunks = count_text(u64::from(key.chunk_count()), "chunk");
            let (name, size) = (shown_name(self.ticket.name()), bytes_text(key.size_bytes));
            let relay = &self.remote;
            let elsewhere = match args.relay.as_ref() {
                Some(PinnedRelay { addr, .. }) if *addr != self.ticket.relay => {
                    format!(" (--relay, PEER_RELAY; the ticket names {})", self.ticket.relay)
                }
                _ => String::new(),
            };
            self.note(format!("getting {name} ({size}, {chunks}) through {relay}{elsewhere}"));
        }
        let manner = Manner { transport: args.common.transport, rate: args.common.rate() };
        let job = Job {
            remote: self.remote.clone(),
            belief: self.belief.clone(),
            token: self.token.clone(),
            manner,
            place,
            opening: self.opening.clone(),
            manifest_only,
            timeout: manner.patience(args.timeout, key.chunk_size_bytes()),
            seed_for: args.seed_for,
            status: Arc::clone(&self.status),
            news: self.news.clone(),
            interrupted: Arc::clone(&self.hashing.stop),
        };
        run::run(args.common.driver, job, file)
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

    /// Whether what was opened is the ticket's file, once all of it was.
    fn check_opened(&self) -> Result<(), String> {
        let check = self.opening.as_ref().map_or(Ok(()), Opening::check);
        check.map_err(|error| error.to_string())
    }

    /// Adds what is kept, as it is now, and how to go on.
    fn with_hint(&self, error: &str, part: &Part) -> String {
        let (have, size) = (self.status.have_bytes.load(Relaxed), self.ticket.key.size_bytes);
        if have == size {
            // What went wrong is its finish, which says what became of it.
            return error.to_owned();
        }
        let path = part.target().part_path();
        let path = path.display();
        if self.check_opened().is_err() {
            return format!("{error}; what came of it stays in {path}");
        }
        if !part.is_in_place() {
            return format!(
                "{error}; {path} was moved or deleted meanwhile: nothing is kept there"
            );
        }
        let unchecked = part.bytes_before();
        match have {
            0 if unchecked > 0 && !self.is_checked.get() => format!(
                "{error}; what was in {path} ({}, not checked this time) is kept: run this again to go on",
                bytes_text(unchecked)
            ),
            0 => format!("{error}; nothing of it has come yet"),
            _ => {
                let (have, size) = bytes_texts(have, size);
                if self.status.is_given_up.load(Relaxed) {
                    return format!(
                        "{error}; {have} of {size} are kept in {path}: a get with the new ticket takes what \
                         both have in common from there"
                    );
                }
                format!("{error}; {have} of {size} are kept in {path}: run this again to go on")
            }
        }
    }

    fn note(&self, text: String) {
        self.news.try_send(News::Note(text)).ok();
    }
}

fn hashing_error(error: &io::Error, path: &Path) -> String {
    match error.kind() {
        io::ErrorKind::Interrupted => format!("interrupted while {} was checked", path.display()),
        _ => format!("could not read {}: {error}", path.display()),
    }
}
