//! What a session receives of the file: what it is ready for, what it asks for, and the chunks that it makes
//! of frames and pieces.
//!
//! Pure. What became of a chunk is told by [`super`].

use std::{collections::HashSet, num::NonZeroU64, time::Duration};

use crate::{
    assembler::{AssembleError, Assembled, Assembler},
    file_state::FileState,
    intake::{Intake, WINDOW_BYTES},
    sealing::Seal,
    wants::{ChunkOrder, Wants},
};
use relay_protocol::{DataPieceHeader, Manifest, Message, Run, time::Time};

/// The receiving half of a session.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) intake: Intake,
    assembler: Assembler,
    /// Verified, and not kept yet; bounded by what a store takes before it is full.
    unkept: HashSet<u32>,
    /// In peer order, once it is ready to receive.
    wants: Option<Wants>,
    keeps_bytes: bool,
}

impl Receiving {
    /// Ready for nothing yet.
    pub(super) fn new(bytes_per_second: Option<NonZeroU64>, keeps_bytes: bool, now: Time) -> Self {
        Self {
            intake: Intake::new(bytes_per_second, now),
            assembler: Assembler::new(keeps_bytes),
            unkept: HashSet::new(),
            wants: None,
            keeps_bytes,
        }
    }

    /// Opens what comes and is not kept. Before anything has come.
    pub(super) fn open_with(&mut self, seal: Option<Seal>) {
        self.assembler = Assembler::new(self.keeps_bytes).with_opening(seal);
    }

    /// From now on it is ready for what the file lacks.
    pub(super) fn begin(&mut self, now: Time, order: ChunkOrder, file: &FileState) {
        // Two windows, near by; what is not in its turn yet of a stream lies in memory.
        let ahead_bytes = match self.keeps_bytes {
            true => self.intake.window_bytes().max(2 * WINDOW_BYTES),
            false => 2 * WINDOW_BYTES,
        };
        let chunk_size_bytes = file.key().chunk_size_bytes();
        self.wants = match order {
            ChunkOrder::Relay => None,
            order => Some(Wants::new(order, file.lacking_chunks(), chunk_size_bytes, ahead_bytes)),
        };
        self.intake.open(now);
    }

    /// Bytes of a stream came, all of one chunk that the file has, or beyond its end.
    pub(super) fn handle_run(
        &mut self,
        file: &FileState,
        manifest: &Manifest,
        run: &Run<'_>,
    ) -> Result<Assembled, AssembleError> {
        // Only whole frames are acknowledged: the relay, too, counts what it sent by frames.
        self.intake.handle_received(run.ended_bytes());
        let wanted = self.lacks(file, run.header.chunk);
        self.assembler.handle_data(manifest, run, wanted)
    }

    /// A piece of a chunk came in datagrams.
    pub(super) fn handle_piece(
        &mut self,
        file: &FileState,
        manifest: &Manifest,
        header: &DataPieceHeader,
        piece: &[u8],
    ) -> Result<Assembled, AssembleError> {
        self.intake.handle_received(piece.len() as u64);
        let wanted = self.lacks(file, header.chunk);
        self.assembler.handle_sealed(manifest, header, piece, wanted)
    }

    /// A chunk of which the pieces that had come were given up.
    pub(super) fn poll_dropped(&mut self) -> Option<u32> {
        self.assembler.poll_dropped()
    }

    /// Whether bytes of this chunk are of use: of one that is about to be kept they are not, else pieces
    /// that come twice would begin it anew.
    fn lacks(&self, file: &FileState, chunk: u32) -> bool {
        !file.have().contains(chunk) && !self.unkept.contains(&chunk)
    }

    /// Wants this chunk, in an order of its owner's.
    pub(super) fn name(&mut self, chunk: u32) {
        if let Some(wants) = &mut self.wants {
            wants.name(chunk);
        }
    }

    /// Wants this chunk no longer.
    pub(super) fn forget(&mut self, chunk: u32) {
        if let Some(wants) = &mut self.wants {
            wants.forget(chunk);
        }
    }

    /// Whether this chunk was named and has not come.
    pub(super) fn is_named(&self, chunk: u32) -> bool {
        self.unkept.contains(&chunk)
            || self.wants.as_ref().is_some_and(|wants| wants.contains(chunk))
    }

    /// What had come of a chunk is gone.
    pub(super) fn handle_lost(&mut self, chunk: u32) {
        if let Some(wants) = &mut self.wants {
            wants.handle_lost(chunk);
        }
    }

    /// A chunk of this length is verified; how long after it could have begun to come.
    pub(super) fn handle_verified(
        &mut self,
        now: Time,
        chunk: u32,
        chunk_len: u32,
        has_bytes: bool,
    ) -> Duration {
        self.unkept.insert(chunk);
        let intended = match &mut self.wants {
            // What it wants at once bounds what it has not kept yet.
            Some(wants) => wants.since(chunk),
            None => {
                if has_bytes {
                    self.intake.hold(chunk_len);
                }
                self.intake.credit_time(self.intake.received_bytes())
            }
        };
        intended.map_or(Duration::ZERO, |intended| now.since(intended))
    }

    /// A verified chunk of this length was kept.
    pub(super) fn handle_kept(&mut self, chunk: u32, chunk_len: u32) {
        self.unkept.remove(&chunk);
        match &mut self.wants {
            Some(wants) => {
                wants.handle_kept(chunk);
            }
            None if self.keeps_bytes => self.intake.release(chunk_len),
            None => {}
        }
    }

    /// What there is to say now of what it wants and what it is ready for.
    pub(super) fn poll_transmit(&mut self, now: Time, file: &FileState) -> Option<Message> {
        let have = file.have();
        if let Some(chunks) = self.wants.as_mut().and_then(|wants| wants.poll(now, have)) {
            return Some(Message::Want { chunks });
        }
        let report = self.intake.poll_report(now)?;
        Some(Message::Progress {
            received_bytes: report.received_bytes,
            granted_bytes: report.granted_bytes,
        })
    }
}
