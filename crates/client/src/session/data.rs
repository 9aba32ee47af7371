//! A session's file bytes: frames of a stream, in order, or sealed pieces in any.
//!
//! Pure, like all of the session. Puts nothing together itself: that is the assembler's business.

use std::time::Duration;

use super::{Outbox, Session, Stage, Wants};
use crate::{SessionError, SessionEvent, assembler::Assembled};
use relay_protocol::{DataHeader, DataPieceHeader, Message, Run, time::Time};

impl Session {
    /// File bytes came.
    ///
    /// # Errors
    /// Data has no place in this state, lies outside of the file, or its chunk's digest is wrong.
    pub fn handle_data(&mut self, now: Time, run: &Run<'_>) -> Result<(), SessionError> {
        let Some(manifest) = self.file.manifest().filter(|_| self.stage == Stage::Joined) else {
            return Err(self.unexpected("data before the manifest"));
        };
        // What goes on behind the chunk's end is an error, and what came before it counts all the same.
        let key = manifest.key();
        let chunk = run.header.chunk;
        let chunk_len = if chunk < key.chunk_count() { key.chunk_len_bytes(chunk) } else { 0 };
        let (run, beyond) = run.split_at(chunk_len);
        // Only whole frames are acknowledged: the relay, too, counts what it sent by frames.
        self.intake.handle_received(run.ended_bytes());
        let wanted = self.lacks(chunk);
        let assembled = self.assembler.handle_data(manifest, &run, wanted)?;
        if let Assembled::Lost { chunk } = assembled {
            lost(&mut self.outbox, &mut self.wants, chunk);
        }
        self.handle_assembled(now, assembled);
        beyond.map_or(Ok(()), |run| self.handle_data(now, &run))
    }

    /// Whether a chunk ends with this frame.
    #[must_use]
    pub fn ends_chunk(&self, header: &DataHeader) -> bool {
        let DataHeader { chunk, offset, payload_len, .. } = *header;
        let key = self.file.key();
        chunk < key.chunk_count()
            && offset.checked_add(payload_len) == Some(key.chunk_len_bytes(chunk))
    }

    /// A sealed piece of a chunk came, in a datagram.
    ///
    /// # Errors
    /// As for [`Self::handle_data`].
    pub fn handle_piece(
        &mut self,
        now: Time,
        header: &DataPieceHeader,
        piece: &[u8],
    ) -> Result<(), SessionError> {
        let Some(manifest) = self.file.manifest().filter(|_| self.stage == Stage::Joined) else {
            return Err(self.unexpected("data before the manifest"));
        };
        self.intake.handle_received(piece.len() as u64);
        let wanted = self.lacks(header.chunk);
        let assembled = self.assembler.handle_sealed(manifest, header, piece, wanted)?;
        while let Some(chunk) = self.assembler.poll_dropped() {
            lost(&mut self.outbox, &mut self.wants, chunk);
        }
        self.handle_assembled(now, assembled);
        Ok(())
    }

    /// Whether bytes of this chunk are of use: of one that is about to be kept they are not, else pieces
    /// that come twice would begin it anew.
    fn lacks(&self, chunk: u32) -> bool {
        !self.file.have().contains(chunk) && !self.unkept.contains(&chunk)
    }

    fn handle_assembled(&mut self, now: Time, assembled: Assembled) {
        if let Assembled::Chunk { chunk, bytes } = assembled {
            self.unkept.insert(chunk);
            let intended = match &mut self.wants {
                // What it wants at once bounds what it has not kept yet.
                Some(wants) => wants.since(chunk),
                None => {
                    if bytes.is_some() {
                        self.intake.hold(self.file.key().chunk_len_bytes(chunk));
                    }
                    self.intake.credit_time(self.intake.received_bytes())
                }
            };
            let latency = intended.map_or(Duration::ZERO, |intended| now.since(intended));
            self.events.push_back(SessionEvent::Verified { chunk, bytes, latency });
        }
    }
}

/// What had come of a chunk is gone.
fn lost(outbox: &mut Outbox, wants: &mut Option<Wants>, chunk: u32) {
    outbox.push(Message::Lacking { chunk });
    if let Some(wants) = wants {
        wants.handle_lost(chunk);
    }
}
