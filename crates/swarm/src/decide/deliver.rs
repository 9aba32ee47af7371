//! What goes to whom: cached chunks to peers with credit, oldest first. And how that is taken back.
//!
//! A peer with credit gets what is cached and it lacks at once, so a peer with credit either
//! starves (it lacks everything cached), or lacks nothing.
//!
//! Which chunk is given up, `room` and `seed` decide.

use relay_protocol::Order;

use crate::{
    api::{Action, PeerSlot},
    book::{
        Book,
        chunks::PINNED,
        intake::{Delivery, Stage},
        peer::Peer,
    },
    desk::Desk,
};

/// Chunks that slower peers are being sent, of which one more is chosen: a bound on a decision's cost.
const PINNED_LOOKED_AT: usize = 32;

/// Gives the peer what is cached while it has credit; then it may starve.
pub(crate) fn serve(desk: &mut Desk, slot: PeerSlot) {
    desk.book.wake_if_hungry(desk.now, slot);
    if !desk.book.holds_back() {
        while desk.book.peer(slot).is_hungry()
            && let Some(chunk) = next_cached(&mut desk.book, slot)
        {
            deliver(desk, slot, chunk);
        }
    }
    desk.book.refresh_starving(desk.now, slot);
}

/// A fetched chunk goes to all peers that starve for it, each once round.
pub(crate) fn serve_starving(desk: &mut Desk) {
    for slot in desk.book.starving().round() {
        serve(desk, slot);
    }
}

/// Assigns a cached chunk to the peer.
pub(crate) fn deliver(desk: &mut Desk, slot: PeerSlot, chunk: u32) {
    let offset = desk.book.send(desk.now, slot, chunk);
    desk.actions.push(Action::Deliver { chunk, peer: slot, offset });
}

/// The next cached chunk for the peer: one it has in part, else the oldest, or if it has fallen behind
/// what suits those (`next_behind`). In peer order the one it wants next, else the oldest that it asked for: what
/// is fetched for one serves all that named it, whatever else they wait for.
fn next_cached(book: &mut Book, slot: PeerSlot) -> Option<u32> {
    let (chunks, peer) = (book.chunks(), book.peer(slot));
    if peer.terms.order == Order::Peer {
        let next = peer.wants.first().filter(|&chunk| chunks.is_cached(chunk));
        return next.or_else(|| book.walk_log(slot));
    }
    let mut partials = peer.intake.partials.iter().map(|&(chunk, _)| chunk);
    if let Some(chunk) = partials.find(|&chunk| chunks.is_cached(chunk) && peer.lacks(chunk)) {
        return Some(chunk);
    }
    let oldest = book.walk_log(slot)?;
    let peer = book.peer(slot);
    Some(if peer.keeps_pace() { oldest } else { next_behind(book, peer).unwrap_or(oldest) })
}

/// The next chunk for a peer that can't keep up with the wave. What others like it are being sent stays
/// anyway, so that they share it; else the one that all of them prefer (`pace`).
fn next_behind(book: &Book, peer: &Peer) -> Option<u32> {
    let pinned = book.chunks().cached.bucket(PINNED).iter().take(PINNED_LOOKED_AT);
    let shared = pinned.copied().find(|&chunk| peer.lacks(chunk));
    shared.or_else(|| book.log().find_preceding(|chunk| peer.lacks(chunk)))
}

/// The peer has spoken of a chunk that is on its way to it: what of that is still to come is void.
pub(crate) fn cut_short(desk: &mut Desk, slot: PeerSlot, delivery: Delivery, has_it: bool) {
    let Delivery { chunk, offset_bytes: offset, length_bytes, stage } = delivery;
    match stage {
        // The peer spoke before the shell has looked at the decision to deliver: the rest of a delivery that
        // was taken back, though more of it had come than was known. It is never sent.
        Stage::Decided => {
            desk.actions.take_back(&Action::Deliver { chunk, peer: slot, offset });
            desk.book.unassign(slot, u64::from(length_bytes));
        }
        // The shell has still to send some of it: what it holds for that would keep the chunk's memory for as
        // long as the peer likes.
        Stage::Queued | Stage::Begun => {
            desk.actions.push(Action::CutOff { chunk, peer: slot, has_it });
        }
        Stage::Written => {}
    }
}

/// Drops a chunk from the cache. Its memory comes back when the last delivery is written; with
/// `is_recalled` those under way are cut off. Whether it came back at once.
pub(crate) fn evict(desk: &mut Desk, chunk: u32, is_recalled: bool) -> bool {
    let is_drained = desk.book.evict(chunk);
    desk.actions.push(Action::Evict { chunk });
    if !is_drained && is_recalled {
        recall(desk, chunk);
    }
    is_drained
}

/// Takes an evicted chunk back from its deliveries.
pub(crate) fn recall(desk: &mut Desk, chunk: u32) {
    if desk.book.recall(chunk) {
        desk.actions.push(Action::Recall { chunk });
    }
}

/// Takes all evicted chunks back that are still in memory.
pub(crate) fn recall_draining(desk: &mut Desk) {
    for chunk in desk.book.chunks().draining.clone() {
        recall(desk, chunk);
    }
}
