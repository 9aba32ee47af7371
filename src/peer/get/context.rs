//! What every step of a get needs, and what several of them do: run the event loop, say what is kept.

use std::{
    cell::Cell,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::Ordering::Relaxed,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use super::{
    super::{
        args::{GetArgs, SeedFor},
        belief::Belief,
        destination::Destination,
        error::{ProgramError, no_thread, read_token},
        event_loop::{Interrupt, ignore_file_size_signal},
        way::Way,
    },
    job::{Done, Job, Manner, Place},
    part::execute_permissions,
    run,
    screen::{self, NEWS_MAX, News},
    status::Status,
    unfinished::Unfinished,
};
use crate::{
    client::{Content, FileState, Opening, Remote, resume::Hashing},
    protocol::{PinnedRelay, Roles, Ticket, TicketKind, Token, shown_name},
    units::{bytes_text, bytes_texts, count_text},
};

/// What every step needs.
pub(super) struct Context<'a> {
    pub(super) args: &'a GetArgs,
    pub(super) ticket: &'a Ticket,
    remote: Remote,
    belief: Belief,
    /// Of what is sealed: opens it, and knows what was opened.
    pub(super) opening: Option<Opening>,
    token: Option<Token>,
    /// Permissions to execute that a file gets.
    pub(super) execute: u32,
    pub(super) status: Arc<Status>,
    pub(super) hashing: Arc<Hashing>,
    news: SyncSender<News>,
    /// Whether it is known what is here.
    pub(super) is_checked: Cell<bool>,
    /// Whether it was said what is got.
    was_announced: Cell<bool>,
}

/// Does something with a relay, while a screen shows how it is doing: its result, and how it did.
///
/// # Errors
/// It could not begin.
pub(super) fn with<T: Send>(
    args: &GetArgs,
    ticket: &Ticket,
    work: impl FnOnce(&Context<'_>) -> Result<T, String>,
) -> Result<(Result<T, String>, Arc<Status>), ProgramError> {
    let destination = Destination::of(ticket, args.relay.as_ref());
    let Way { remote, note } =
        destination.way(args.common.proxy.as_ref(), args.common.transport)?;
    let belief = destination.belief(args.common.tls_ca.as_deref())?;
    let is_executable = ticket.kind == TicketKind::Executable;
    let execute = if is_executable { execute_permissions() } else { 0 };
    let token = read_token(args.common.token_file.as_deref(), Roles::GET)?;
    let interrupt = Interrupt::watch()?;
    let hashing = Arc::new(Hashing {
        stop: interrupt.flag(),
        fills_holes: args.no_sparse,
        ..Hashing::default()
    });
    ignore_file_size_signal()?;
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
        let (is_checked, was_announced) = (Cell::new(false), Cell::new(false));
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
            was_announced,
        };
        note.into_iter().for_each(|note| context.note(note));
        let result = work(&context);
        drop(context);
        // A screen that panicked takes nothing of the result away.
        screen.join().ok();
        result
    });
    Ok((result, status))
}

impl Context<'_> {
    /// Serves what is in its place, if that was asked for.
    pub(super) fn serve(&self, content: Arc<dyn Content>, state: FileState) -> Result<(), String> {
        self.book(&state);
        if matches!(self.args.seed_for, SeedFor::Auto) || state.key().size_bytes == 0 {
            return Ok(());
        }
        if let Err(error) = self.run(Place::Whole(content), state, false) {
            // It is whole, which is what was asked for.
            self.note(format!("no other peer could be served: {error}"));
        }
        Ok(())
    }

    /// Has the status say what is here, and returns the bytes: of what is wanted.
    pub(super) fn book(&self, state: &FileState) -> u64 {
        let key = state.key();
        let is_wanted = |chunk: &u32| state.goal().is_none_or(|goal| goal.contains(*chunk));
        let (mut chunks, mut bytes) = (0, 0);
        for chunk in state.have().iter().filter(is_wanted) {
            chunks += 1;
            bytes += u64::from(key.chunk_len_bytes(chunk));
        }
        self.status.set_have(chunks, bytes);
        bytes
    }

    /// Runs the event loop until what is wanted is at its place.
    pub(super) fn run(
        &self,
        place: Place,
        file: FileState,
        manifest_only: bool,
    ) -> Result<Done, String> {
        let args = self.args;
        if !manifest_only && !self.was_announced.replace(true) {
            self.announce(file.key().chunk_count());
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
            timeout: manner.patience(args.timeout, file.key().chunk_size_bytes()),
            seed_for: args.seed_for,
            status: Arc::clone(&self.status),
            news: self.news.clone(),
            interrupted: Arc::clone(&self.hashing.stop),
        };
        run::run(args.common.driver, job, file)
    }

    /// Says that only the list of files is got.
    pub(super) fn announce_list(&self) {
        self.was_announced.set(true);
        let name = shown_name(self.ticket.name());
        self.note(format!("getting the list of files of {name} through {}", self.remote));
    }

    fn announce(&self, chunk_count: u32) {
        let chunks = count_text(u64::from(chunk_count), "chunk");
        let (name, size) = (shown_name(self.ticket.name()), bytes_text(self.ticket.key.size_bytes));
        let relay = &self.remote;
        let elsewhere = match self.args.relay.as_ref() {
            Some(PinnedRelay { addr, .. }) if *addr != self.ticket.relay => {
                format!(" (--relay, PEER_RELAY; the ticket names {})", self.ticket.relay)
            }
            _ => String::new(),
        };
        self.note(format!("getting {name} ({size}, {chunks}) through {relay}{elsewhere}"));
    }

    /// Tells how much of it was here already.
    pub(super) fn tell_resumed(&self, bytes: u64) {
        self.is_checked.set(true);
        self.status.resumed_bytes.store(bytes, Relaxed);
        let (here, size) = bytes_texts(bytes, self.status.goal_bytes());
        self.note(format!("resuming: {here} of {size} are here and verified"));
    }

    /// Whether what was opened is the ticket's file, once all of it was.
    pub(super) fn check_opened(&self) -> Result<(), String> {
        let check = self.opening.as_ref().map_or(Ok(()), Opening::check);
        check.map_err(|error| error.to_string())
    }

    /// Adds what is kept, as it is now, and how to go on.
    pub(super) fn with_hint(&self, error: &str, part: &dyn Unfinished) -> String {
        let (have, size) = (self.status.have_bytes.load(Relaxed), self.status.goal_bytes());
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
        match have {
            0 if part.had_something() && !self.is_checked.get() => {
                let size = match part.bytes_before() {
                    0 => String::new(),
                    bytes => format!("{}, ", bytes_text(bytes)),
                };
                format!(
                    "{error}; what was in {path} ({size}not checked this time) is kept: run this again to go on"
                )
            }
            1.. if part.holds_nothing(self.status.have_chunks.load(Relaxed)) => {
                format!("{error}; nothing of it is kept")
            }
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

    pub(super) fn note(&self, text: String) {
        self.news.try_send(News::Note(text)).ok();
    }
}

pub(super) fn hashing_error(error: &io::Error, path: &Path) -> String {
    match error.kind() {
        io::ErrorKind::Interrupted => format!("interrupted while {} was checked", path.display()),
        _ => format!("could not read {}: {error}", path.display()),
    }
}
