//! What is to be shared, and how: from what the user says, the relay and the file to a ticket.
//!
//! Connects to nothing and hashes nothing itself.

use super::super::{
    args::ShareArgs,
    belief::{Belief, PinSource},
    error::ProgramError,
    ticket_source::TicketSource,
};
use crate::{
    client::{
        Origin,
        origin::{Looking, Sealing, Source},
        tree::walk::Keeping,
    },
    protocol::{
        Digest, Pin, PinnedRelay, RelayAddr, SwarmKey, Ticket, TicketKind, UserSecret,
        limits::{CHUNK_COUNT_MAX, CHUNK_SIZE_LOG2_SLACK},
    },
    units::{bytes_text, bytes_texts},
    user_secret,
};

/// A checked command line.
pub(super) struct Wish<'a> {
    args: &'a ShareArgs,
    relay: PinnedRelay,
    /// As which it is to be shared.
    wanted: Option<Ticket>,
    /// Seals it, unless a ticket does, or nothing.
    secret: Option<UserSecret>,
}

impl<'a> Wish<'a> {
    /// What the user wants.
    pub(super) fn of(args: &'a ShareArgs) -> Result<Self, ProgramError> {
        if args.is_of_stdin() && args.ticket.as_ref().is_some_and(TicketSource::is_stdin) {
            let text =
                "stdin can't be both the file and the ticket: give the ticket as --ticket @FILE";
            return Err(ProgramError::Usage(text.into()));
        }
        let wanted = args.ticket.as_ref().map(TicketSource::read).transpose()?;
        let missing = || ProgramError::Usage("--relay or --ticket must say which relay".into());
        let relay = args.relay.clone();
        let relay = relay.or_else(|| wanted.as_ref().map(|ticket| ticket.relay.clone().into()));
        let relay = relay.ok_or_else(missing)?;
        let secret = match (&wanted, args.plain) {
            (None, false) => {
                let secret = user_secret::open(args.secret_file.as_deref());
                Some(secret.map_err(ProgramError::Usage)?)
            }
            _ => None,
        };
        Ok(Self { args, relay, wanted, secret })
    }

    /// How it is sealed: as the ticket says, with the user's secret, or not at all.
    pub(super) fn sealing(&self) -> Sealing<'_> {
        let of_ticket = self.wanted.as_ref().and_then(|ticket| ticket.sealed.as_ref());
        match (of_ticket, &self.secret) {
            (Some(sealed), _) => Sealing::As(sealed),
            (None, Some(secret)) => Sealing::By(secret),
            (None, None) => Sealing::Plain,
        }
    }

    /// What is looked for, and kept of a directory. Whether a ticket's bundle keeps modes and times is seen by its size.
    pub(super) fn looking(&self) -> Looking {
        let keeping = match &self.wanted {
            _ if self.args.reading.preserve => Keeping::Preserved,
            Some(ticket) => Keeping::WhicheverHas(ticket.key.size_bytes),
            None => Keeping::Nothing,
        };
        Looking { skips_special: self.args.reading.skip_special, keeping }
    }

    /// Through which relay.
    pub(super) fn relay(&self) -> &RelayAddr {
        &self.relay.addr
    }

    /// Which relay is believed to be that one: with the pin that the user gave, or else that of the ticket that names
    /// it.
    pub(super) fn belief(&self) -> Result<Belief, ProgramError> {
        let of_option = self.relay.pin.map(|pin| (pin, PinSource::Option));
        let of_ticket = self
            .wanted
            .as_ref()
            .filter(|ticket| ticket.relays().any(|relay| relay == self.relay()));
        let of_ticket = of_ticket.and_then(|ticket| ticket.pin).map(|pin| (pin, PinSource::Ticket));
        Belief::of(self.relay(), of_option.or(of_ticket), self.args.common.tls_ca.as_deref())
    }

    /// What is of another kind or length need not be hashed to be another one than the ticket's.
    pub(super) fn check(&self, source: &Source) -> Result<(), ProgramError> {
        let Some(ticket) = &self.wanted else { return Ok(()) };
        match (ticket.kind == TicketKind::Bundle, source.index().is_some()) {
            (true, false) => {
                return Err(
                    self.another(&source.shown(), "it is a file, the ticket's is a directory")
                );
            }
            (false, true) => {
                return Err(
                    self.another(&source.shown(), "it is a directory, the ticket's is a file")
                );
            }
            _ if ticket.key.size_bytes == source.size_bytes() => return Ok(()),
            _ => {}
        }
        let (has, wanted) = bytes_texts(source.size_bytes(), ticket.key.size_bytes);
        Err(self.another(&source.shown(), &format!("it has {has}, the ticket's has {wanted}")))
    }

    /// Its chunks: as the ticket or the user says, if the relay takes them, or as the relay recommends.
    pub(super) fn chunk_size_log2(
        &self,
        source: &Source,
        most_log2: u8,
    ) -> Result<u8, ProgramError> {
        let of_ticket = self.wanted.as_ref().map(|ticket| ticket.key.chunk_size_log2);
        let Some(log2) = of_ticket.or(self.args.chunk) else {
            return source.chunk_size_log2(most_log2).map_err(ProgramError::job);
        };
        let (asked, whose) = match of_ticket {
            Some(_) => ("the ticket asks for", "share without --ticket and hand out the new one"),
            None => ("--chunk asks for", "give a smaller --chunk"),
        };
        let (wanted, taken_log2) = (bytes_text(1 << log2), most_log2 + CHUNK_SIZE_LOG2_SLACK);
        if log2 > taken_log2 {
            return Err(ProgramError::Job(format!(
                "{asked} chunks of {wanted}, and this relay's cache takes chunks of at most {}: give the \
                 relay more --cache, or {whose}",
                bytes_text(1 << taken_log2)
            )));
        }
        let size_bytes = source.size_bytes();
        let key = SwarmKey { id: Digest([0; 32]), size_bytes, chunk_size_log2: log2 };
        if key.validate().is_err() {
            return Err(ProgramError::Job(format!(
                "{} has {}: in chunks of {wanted} that are more than the {CHUNK_COUNT_MAX} that a file may \
                 have: give a larger --chunk",
                source.shown(),
                bytes_text(size_bytes)
            )));
        }
        Ok(log2)
    }

    /// The ticket to hand out, and what the user should know of it.
    pub(super) fn ticket(
        &self,
        origin: &Origin,
        pin: Pin,
    ) -> Result<(Ticket, Vec<String>), ProgramError> {
        let ticket = origin.ticket(self.relay().clone(), pin, self.args.naming.name.as_deref());
        let (mut ticket, fault) = ticket.map_err(ProgramError::job)?;
        let mut notes = Vec::new();
        match &self.wanted {
            Some(wanted) if wanted.key != ticket.key => {
                return Err(
                    self.another(&origin.shown(), "its content differs; peer check says where")
                );
            }
            Some(wanted) => {
                ticket = ticket.with_name_of(wanted);
                let (there, here) = (&wanted.relay, self.relay());
                let is_known_by = wanted.pin.is_none_or(|wanted| wanted == pin);
                if there == here && is_known_by {
                    ticket = wanted.clone();
                } else if there == here {
                    notes.push(format!(
                        "this ticket names the pin {pin}; holders of the one that was given refuse the relay, which has \
                         another key now"
                    ));
                } else {
                    notes.push(format!(
                        "this ticket names the relay {here}; holders of the one that was given look at {there}"
                    ));
                }
            }
            None => {
                let name = ticket.name();
                let what = if origin.index().is_some() { "directory" } else { "file" };
                notes.extend(fault.map(|fault| {
                    format!("the ticket calls the {what} {name}: its own name {fault}")
                }));
            }
        }
        if ticket.relay.is_of_this_machine() {
            notes.push(format!(
                "only this machine can use the ticket, since it names the relay {}: to share with others, \
                 name the relay as they reach it, with --relay",
                ticket.relay
            ));
        }
        Ok((ticket, notes))
    }

    fn another(&self, of: &str, why: &str) -> ProgramError {
        let is_bundle =
            self.wanted.as_ref().is_some_and(|ticket| ticket.kind == TicketKind::Bundle);
        let what = if is_bundle { "directory" } else { "file" };
        ProgramError::Job(format!("{of} is not the ticket's {what}: {why}"))
    }
}
