//! What is to be shared, and how: from what the user says, the relay and the file to a ticket.
//!
//! Connects to nothing and hashes nothing itself.

use super::super::{args::ShareArgs, error::ProgramError};
use crate::{
    client::{OriginFile, origin::OpenFile},
    protocol::{
        Digest, RelayAddr, SwarmKey, Ticket,
        limits::{CHUNK_COUNT_MAX, CHUNK_SIZE_LOG2_SLACK},
    },
    units::{bytes_text, bytes_texts},
};

/// A checked command line.
pub(super) struct Wish<'a> {
    args: &'a ShareArgs,
    relay: RelayAddr,
}

impl<'a> Wish<'a> {
    /// What the user wants.
    pub(super) fn of(args: &'a ShareArgs) -> Result<Self, ProgramError> {
        let of_ticket = args.ticket.as_ref().map(|ticket| &ticket.relay);
        let relay = args.relay.as_ref().or(of_ticket).cloned();
        let missing = || ProgramError::Usage("--relay or --ticket must say which relay".into());
        Ok(Self { args, relay: relay.ok_or_else(missing)? })
    }

    /// Through which relay.
    pub(super) fn relay(&self) -> &RelayAddr {
        &self.relay
    }

    /// A file of another length need not be hashed to be another one than the ticket's.
    pub(super) fn check_size(&self, file: &OpenFile) -> Result<(), ProgramError> {
        match &self.args.ticket {
            Some(ticket) if ticket.key.size_bytes != file.size_bytes() => {
                let (has, wanted) = bytes_texts(file.size_bytes(), ticket.key.size_bytes);
                Err(self.another(&format!("it has {has}, the ticket's has {wanted}")))
            }
            _ => Ok(()),
        }
    }

    /// Its chunks: as the ticket or the user says, if the relay takes them, or as the relay recommends.
    pub(super) fn chunk_size_log2(
        &self,
        file: &OpenFile,
        most_log2: u8,
    ) -> Result<u8, ProgramError> {
        let of_ticket = self.args.ticket.as_ref().map(|ticket| ticket.key.chunk_size_log2);
        let Some(log2) = of_ticket.or(self.args.chunk) else {
            return file.chunk_size_log2(most_log2).map_err(ProgramError::job);
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
        let size_bytes = file.size_bytes();
        let key = SwarmKey { id: Digest([0; 32]), size_bytes, chunk_size_log2: log2 };
        if key.validate().is_err() {
            return Err(ProgramError::Job(format!(
                "{} has {}: in chunks of {wanted} that are more than the {CHUNK_COUNT_MAX} that a file may \
                 have: give a larger --chunk",
                self.args.file.display(),
                bytes_text(size_bytes)
            )));
        }
        Ok(log2)
    }

    /// The ticket to hand out, and what the user should know of it.
    pub(super) fn ticket(
        &self,
        origin: &OriginFile,
    ) -> Result<(Ticket, Vec<String>), ProgramError> {
        let (mut ticket, fault) = origin.ticket(self.relay.clone()).map_err(ProgramError::job)?;
        let mut notes = Vec::new();
        match &self.args.ticket {
            Some(wanted) if wanted.key != ticket.key => {
                return Err(self.another("its content differs; peer check FILE TICKET says where"));
            }
            Some(wanted) => {
                ticket = wanted.clone();
                ticket.relay = self.relay.clone();
                let (there, here) = (&wanted.relay, &self.relay);
                if there != here {
                    notes.push(format!(
                        "this ticket names the relay {here}; holders of the one that was given look at {there}"
                    ));
                }
            }
            None => {
                let name = ticket.name();
                notes.extend(fault.map(|fault| {
                    format!("the ticket calls the file {name}: its own name {fault}")
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

    fn another(&self, why: &str) -> ProgramError {
        let path = self.args.file.display();
        ProgramError::Job(format!("{path} is not the ticket's file: {why}"))
    }
}
