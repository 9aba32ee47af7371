//! Pace: which peer is worth a moment's wait, and which is left behind.
//!
//! Peers of one pace take a chunk within moments of each other. A chunk that one of them has not
//! taken yet will come free by itself, so it stays, and its one fetch serves them all (`rent` says for
//! how long). A peer that is slower than that will not come in that moment, however long the others
//! wait. Its wants hold nothing up: what only such peers need is given up at once. What they miss is
//! fetched again when the pace has come down to theirs, once for all of them. With rates that differ
//! by r in all that makes `1 + ln r` fetches a chunk, with no peer waiting: a wave at the pace of the
//! fastest peer that is not done fetches a file in its time, `size / t` bytes a second at time t, and
//! the integral of that from the fastest peer's time to the slowest one's is `size × ln r`.
//!
//! The **pace** is the mean rate of those that starve, as they have all that is cached: now or over the last
//! moments, whichever is less. A rate is bytes over
//! the time in which the peer had something to take or had not asked for more: time in which it starved
//! is the relay's fault and does not count. A peer falls behind when jitter no longer explains its rate.
//! Of n pieces, each of which takes its time by chance, the mean strays by 1 / √n, so it is behind if
//!
//! ```text
//! bytes / seconds < pace × exp(-MARGIN - JITTER / √n),    n = bytes / piece,
//! ```
//!
//! over about its last 32 pieces. A piece is a chunk, or what arrives in [`TURN_SECONDS`] at the pace if that is
//! more: a peer's machine gives other programs a turn as well, which delays many small chunks together. The same
//! is asked of the time since its last chunk, as if all that is under way arrived now: so one that is a hundred
//! times slower shows within a few chunks' time, and one that stops as well. It keeps pace again from
//! [`RESUME`] of the pace on, and if it starves while no peer that keeps pace needs anything: the wave has come
//! down to it, whatever is known of it.
//!
//! Being left behind costs a peer nothing else: it takes what passes by. Which of it matters. If each slow
//! peer took what it liked, all would end with different chunks, and no later fetch would serve many of
//! them. So all of them prefer the same ones: those whose number in the log has the most trailing zeros
//! (`log::precedence`). A peer at a quarter of the pace takes the fourth part that all slower than half of it
//! take, and what a slower peer has is a part of what a faster one has; the same chunks are the last to be
//! given up.
//!
//! While the shell's own limits hold back what peers could take, no peer falls behind: its rate is the limit's. If it is
//! a slow peer that the others wait for, they starve, nothing is held back, and the judging goes on.
//!
//! To pretend to be slow is to be left behind. To pretend to be fast takes bytes that the kernel has really
//! been rid of, and their time counts, however they are acknowledged.
//!
//! For every chunk: `keen = |{p counted, keeps pace: it is being sent, or p lacks it and, in peer order, has
//! named it}|`.

use std::time::Duration;

use relay_protocol::time::Time;

use crate::{
    api::PeerSlot,
    book::{
        Book,
        peer::{Pacing, Peer},
    },
};

/// A peer this much slower than the pace, as a natural logarithm, is not slow, whatever the evidence.
const MARGIN: f64 = 0.1;

/// How far the rate of one chunk may stray by chance, as a natural logarithm: four times the deviation of a
/// log-normal time with sigma 0.5. With three times, equal peers fetch each chunk 1.08 times instead of 1.02
/// with a cache of 2% (docs/tradeoff).
const JITTER: f64 = 2.0;

/// Part of the pace at which a peer keeps it again.
const RESUME: f64 = 0.85;

/// Less than this is no evidence of its own: chance comes in stretches of time, and acknowledgements
/// of small chunks in company.
const EVIDENCE_BYTES: u32 = 64 << 10;

/// What arrives in so long at the pace is one piece of evidence for a rate, as a scheduler's turn delays all of it.
/// Measured: without it, 40 equal clients on two cores fetch each chunk 1.12 times, with it 1.06. With 4 ms, jobs of
/// the simulator that take a tenth of a second find out too late that a peer is slow.
const TURN_SECONDS: f64 = 0.002;

/// Less than this part of a piece, such as the rest of a recalled chunk, is no evidence at all.
const EVIDENCE_MIN: f64 = 0.01;

/// Pieces of evidence beyond which more make no difference.
const EVIDENCE_MAX: f64 = 64.0;

/// So long a peer stays behind at least: to change sides costs a look at all that it lacks.
const BEHIND_LEAST: Duration = Duration::from_millis(50);

/// Peers that one look takes in: a bound on its cost.
const PEERS_LOOKED_AT: u32 = 256;

/// Whose pace is looked at next.
#[derive(Debug, Default)]
pub(crate) struct PaceWatch {
    turn: u32,
}

impl PaceWatch {
    /// Looks at some peers that may have fallen silent, or to whose pace the wave has come down.
    pub(crate) fn look(&mut self, book: &mut Book, now: Time) {
        let slots = book.peers().slot_count();
        for _ in 0..slots.min(PEERS_LOOKED_AT) {
            self.turn = (self.turn + 1) % slots;
            let slot = PeerSlot(self.turn);
            if book.find(slot).is_some_and(Peer::is_counted) {
                judge(book, now, slot);
            }
        }
    }
}

/// What came of the peer since the last time counts, all of it at once: acknowledgements come in company.
pub(crate) fn weigh(book: &mut Book, now: Time, slot: PeerSlot) {
    if book.fold_received(now, slot, rate_piece_bytes(book)) {
        judge(book, now, slot);
    }
}

/// Where no peer that keeps pace needs anything, those that starve set the pace, whatever is known of them. Else
/// a peer to which nothing arrives whole would be cut off for its own next chunk, again and again.
pub(crate) fn let_the_slow_lead(book: &mut Book) {
    if book.chunks().keen_total > 0 {
        return;
    }
    let starving = book.starving().peers().iter().take(PEERS_LOOKED_AT as usize);
    for slot in starving.copied().collect::<Vec<_>>() {
        if !book.peer(slot).keeps_pace() {
            book.set_pacing(slot, Pacing::Keeps);
        }
    }
}

/// Whether the peer has fallen behind the pace, or keeps it again.
fn judge(book: &mut Book, now: Time, slot: PeerSlot) {
    if book.limits().holds_back {
        return;
    }
    let intake = &book.peer(slot).intake;
    let piece = evidence_bytes(book);
    let under_way = (intake.under_way_bytes as f64).max(piece);
    let (bytes, seconds, silence) = intake.down.evidence(now);
    let is_silent = is_slower(book, under_way, silence, piece);
    match book.peer(slot).pacing {
        Pacing::Keeps => {
            if is_silent || is_slower(book, bytes, seconds, rate_piece_bytes(book)) {
                book.set_pacing(slot, Pacing::Behind { since: now });
            }
        }
        Pacing::Behind { since } => {
            if bytes > 0.0
                && now.since(since) >= BEHIND_LEAST
                && bytes >= RESUME * book.starving().pace().rate() * seconds
                && !is_silent
            {
                book.set_pacing(slot, Pacing::Keeps);
            }
        }
    }
}

/// Whether so many bytes in so many seconds are less than the pace, whatever chance does to pieces of this size.
fn is_slower(book: &Book, bytes: f64, seconds: f64, piece: f64) -> bool {
    let pieces = (bytes / piece).clamp(EVIDENCE_MIN, EVIDENCE_MAX);
    let pace = book.starving().pace().rate();
    bytes < seconds * pace * (-MARGIN - JITTER / pieces.sqrt()).exp()
}

/// Bytes that are one piece of evidence.
fn evidence_bytes(book: &Book) -> f64 {
    f64::from(book.config().chunk_size_bytes.max(EVIDENCE_BYTES))
}

/// The same where a rate is measured.
fn rate_piece_bytes(book: &Book) -> f64 {
    evidence_bytes(book).max(book.starving().pace().rate() * TURN_SECONDS)
}

#[cfg(test)]
mod tests;
