//! Writing what is lent: the kernel sends pages of the chunk's file. Which files it may refer to is in [`super::pinned`].

use std::{io, io::IoSlice};

use shards::net::Socket;

use super::{DATA_HEADER_BYTES, Frames, SendEvent, SendQueue, WRITE_BYTES_MAX, Written};
use crate::chunk_bytes::{FRAME_BYTES, LentChunk, frame_at, position};

/// Bytes that one connection is lent before it is another one's turn: what is not copied does not leave the core's
/// cache meanwhile. 512 KiB of file: with half as much the main job's CPU seconds are 0.94 and 0.93 of those with copies,
/// with this 0.92 and 0.89, with twice as much 0.90 and 0.90 (origin, spread; 4 rounds). But the longer the runs, the further
/// peers part, and the more chunks must be cached for all of them: at 1 MiB and 64 chunks it took in 2.36 instead of 2.00.
const LENT_RUN_BYTES_MAX: usize = 32 * FRAME_BYTES;

impl SendQueue {
    /// Whether the socket may refer to files, as far as was looked.
    #[must_use]
    pub fn is_lending(&self) -> bool {
        !self.pinned.is_empty()
    }

    /// Lets go of the files that nothing refers to any more. `received_bytes`: of file, as the other side says; the
    /// kernel is asked only where that is news.
    pub fn release(&mut self, socket: &Socket, received_bytes: u64) {
        if self.pinned.is_claimed(received_bytes) {
            // A system that does not tell has it counted until the connection is gone.
            let unacknowledged = socket.unacknowledged_bytes().unwrap_or(u64::MAX);
            self.pinned.release(unacknowledged, received_bytes);
        }
    }

    /// Writes what is lent in front of the queue, with new frames only while their payload fits into `data_bytes_max`.
    pub(super) fn write_lent(
        &mut self,
        socket: &Socket,
        data_bytes_max: u64,
    ) -> io::Result<Written> {
        let mut sum = Written::default();
        while sum.total_bytes < LENT_RUN_BYTES_MAX && !sum.blocked {
            let data_bytes_left = data_bytes_max.saturating_sub(sum.data_bytes);
            let step = if self.words_go_first() {
                let room = LENT_RUN_BYTES_MAX - sum.total_bytes;
                let is_followed = self.lent_run_follows(data_bytes_left, room);
                self.write_words(socket, is_followed).map(Some)
            } else {
                self.write_run(socket, data_bytes_left, &sum)
            };
            match step {
                Ok(Some(step)) => sum.add(&step),
                Ok(None) => break,
                // What was taken counts; the error comes again.
                Err(_) if sum.total_bytes > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }

    /// Something goes before the next byte of a file.
    fn words_go_first(&self) -> bool {
        let is_between_frames = self.sends.front().is_none_or(|send| send.frame_sent == 0);
        !self.tail.is_empty() || self.control_bytes() > 0 && is_between_frames
    }

    /// Bytes of a file would go behind what goes before them.
    fn lent_run_follows(&self, data_bytes_max: u64, room: usize) -> bool {
        let words = self.tail.len() - self.tail_sent + self.control_bytes();
        self.sends.front().is_some_and(|send| {
            send.payload.lent().is_some_and(|lent| {
                let from = position(send.offset as usize) + send.frame_sent;
                self.run_end(&lent, data_bytes_max, room.saturating_sub(words)) > from
            })
        })
    }

    /// The rest of a copied frame, and control bytes. Only before bytes of a file may the kernel wait for a full
    /// packet: with nothing behind them it would keep them for 200 ms.
    fn write_words(&mut self, socket: &Socket, is_followed: bool) -> io::Result<Written> {
        let parts = [&self.tail[self.tail_sent..], &self.control[self.control_sent..]];
        let offered = parts[0].len() + parts[1].len();
        let slices = parts.map(IoSlice::new);
        let taken = no_error_if_full(match is_followed {
            true => socket.try_write_before_more(&slices),
            false => socket.try_write_vectored(&slices),
        })?;
        let mut written =
            Written { total_bytes: taken, blocked: taken < offered, ..Written::default() };
        self.advance(taken, &Frames::default(), &mut written);
        Ok(written)
    }

    /// Bytes of one file, which follow what was written just now. None: no lent frame may go now.
    fn write_run(
        &mut self,
        socket: &Socket,
        data_bytes_max: u64,
        before: &Written,
    ) -> io::Result<Option<Written>> {
        let Some(send) = self.sends.front() else { return Ok(None) };
        let payload = std::rc::Rc::clone(&send.payload);
        let Some(lent) = payload.lent() else { return Ok(None) };
        let from = position(send.offset as usize) + send.frame_sent;
        let room = LENT_RUN_BYTES_MAX - before.total_bytes;
        let until = self.run_end(&lent, data_bytes_max, room);
        if until == from {
            return Ok(None);
        }
        let (is_lent, offered) = match self.pinned.hold(&lent) {
            true => (true, until - from),
            false => (false, (until - from).min(WRITE_BYTES_MAX)),
        };
        let taken = if is_lent {
            no_error_if_full(socket.try_send_file(lent.file(), from as u64, offered))?
        } else {
            // Sockets refer to as many files as they may: this one is copied, as chunks in memory are.
            let mut copy = Vec::new();
            lent.file().append_to(&mut copy, from, offered)?;
            no_error_if_full(socket.try_write_vectored(&[IoSlice::new(&copy)]))?
        };
        let mut written = Written { total_bytes: taken, ..Written::default() };
        // A file may be sent in pieces though there is room: only one that takes nothing is full.
        written.blocked = taken == 0 || !is_lent && taken < offered;
        self.advance_lent(&lent, from, from + taken, &mut written);
        if is_lent {
            written.lent_bytes = written.data_bytes;
            let mut so_far = *before;
            so_far.add(&written);
            self.pinned.mark(so_far.total_bytes as u64, so_far.data_bytes);
        }
        Ok(Some(written))
    }

    /// Where in its file the first send has to stop.
    fn run_end(&self, lent: &LentChunk, data_bytes_max: u64, room: usize) -> usize {
        let Some(send) = self.sends.front() else { return 0 };
        let begin = position(send.offset as usize);
        let (mut offset, mut end) = (send.offset, begin + send.frame_sent);
        let mut data_bytes = 0;
        while offset < send.payload.len_bytes() {
            let len = (send.payload.len_bytes() - offset).min(super::FRAME_PAYLOAD_LEN_MAX);
            let is_begun = offset == send.offset && send.frame_sent > 0;
            data_bytes += u64::from(len);
            let next = position((offset + len) as usize);
            if !is_begun && (data_bytes > data_bytes_max || next - begin > room) {
                break;
            }
            (offset, end) = (offset + len, next);
            if is_begun && self.control_bytes() > 0 {
                // Control bytes go ahead of the next frame.
                break;
            }
        }
        debug_assert!(end <= lent.file_bytes());
        end
    }

    /// Books what was taken of the first send's file.
    fn advance_lent(&mut self, lent: &LentChunk, from: usize, to: usize, written: &mut Written) {
        let Some(send) = self.sends.front_mut() else { return };
        let is_whole = to == lent.file_bytes();
        let (offset, frame_sent) = match is_whole {
            true => (send.payload.len_bytes() as usize, 0),
            false => frame_at(to),
        };
        written.data_bytes += (data_before(to) - data_before(from)) as u64;
        let offset = u32::try_from(offset).expect("within the chunk");
        let (chunk, tag) = (send.payload.chunk(), send.tag);
        if offset > send.offset && !std::mem::replace(&mut send.begun, true) {
            self.events.push_back(SendEvent::Begun { chunk, tag });
        }
        (send.offset, send.frame_sent) = (offset, frame_sent);
        if is_whole {
            self.events.push_back(SendEvent::Finished { chunk, tag });
            self.sends.pop_front();
        }
    }
}

impl Written {
    fn add(&mut self, step: &Self) {
        self.data_bytes += step.data_bytes;
        self.total_bytes += step.total_bytes;
        self.lent_bytes += step.lent_bytes;
        self.blocked |= step.blocked;
    }
}

/// Bytes of the chunk before a position of its file.
fn data_before(position: usize) -> usize {
    let (offset, frame_sent) = frame_at(position);
    offset + frame_sent.saturating_sub(DATA_HEADER_BYTES)
}

/// A socket that is full takes nothing.
fn no_error_if_full(taken: io::Result<usize>) -> io::Result<usize> {
    match taken {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
