//! Of whom a chunk may be asked, and of whom best.
//!
//! An idle holder if there is one, else the holder that is expected to finish first. Idle holders come first,
//! so that many slow uplinks are all kept busy; a fast one gets several fetches at once (`depth`), a slow
//! one never more than one.
//!
//! To claim is cheap, so a claim is not trusted far: a holder that has supplied nothing yet is on
//! trial, with one fetch; and as soon as one has proven to supply, all trials together hold
//! half of the fetches at most.

use crate::{
    api::PeerSlot,
    book::{Book, chunks::Place, peer::Peer},
};

/// Holders that are not to be asked for a chunk, as they were already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Except {
    pub(crate) holder: PeerSlot,
    pub(crate) rival: Option<PeerSlot>,
    /// It was looked at and is no better.
    pub(crate) refused: Option<PeerSlot>,
}

impl Except {
    /// Whether it is about this one.
    pub(crate) fn contains(&self, slot: PeerSlot) -> bool {
        slot == self.holder || [self.rival, self.refused].contains(&Some(slot))
    }
}

/// A holder that may be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) slot: PeerSlot,
    pub(crate) idle: bool,
}

/// Holders of a chunk that one decision compares.
const HOLDERS_PER_SCAN: usize = 16;

/// The same while only suspects were found: one that is trusted is worth a longer look.
const SUSPECTS_PER_SCAN: usize = 64;

/// The best holder of this chunk that can take one more fetch. Where one was asked in vain
/// already, those come first that have proven to supply.
pub(crate) fn find_holder(book: &Book, chunk: u32, except: Option<Except>) -> Option<Choice> {
    let state = book.chunk(chunk);
    debug_assert!(except.is_some() || state.place == Place::Absent);
    let (slots, start) = (book.peers().slot_count(), state.holder_hint);
    let (mut best, mut seen): (Option<(Rank, Choice)>, u32) = (None, 0);
    let mut is_trusted_held = false;
    let is_excepted = |slot| except.is_some_and(|except| except.contains(slot));
    let proven = book.suppliers().iter().map(|&slot| (slot, 0));
    let all = (0..slots).map(|step| (PeerSlot((start + step) % slots), 1));
    for (slot, counts) in proven.chain(all) {
        let Some(peer) = book.find(slot) else { continue };
        if !peer.have.contains(chunk) || !peer.is_holder() {
            continue;
        }
        seen += counts;
        // An origin that may go, unless another holder was asked in vain.
        let spared = peer.supply.may_go && state.holders > 1 && except.is_none();
        // A slow one may never answer: then suspects are as good.
        let is_sure = !peer.terms.is_suspect && !peer.supply.silence.is_slow && !spared;
        is_trusted_held |= is_sure && !is_excepted(slot);
        let may_ask =
            if except.is_some() { can_take_another(book, peer) } else { may_ask(book, peer) };
        if !is_excepted(slot) && !spared && may_ask {
            let rank = rank(book, peer, except.is_some());
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((
                    rank,
                    Choice { slot, idle: peer.supply.fetches == 0 && !peer.supply.silence.is_slow },
                ));
            }
        }
        let enough = match best {
            Some((Rank(is_suspect, ..), _)) if is_suspect => SUSPECTS_PER_SCAN,
            Some(_) => HOLDERS_PER_SCAN,
            None => usize::MAX,
        };
        if seen == state.holders || seen as usize >= enough {
            break;
        }
    }
    let may_choose = |rank: &Rank| !rank.0 || !is_trusted_held;
    best.filter(|(rank, _)| may_choose(rank)).map(|(_, choice)| choice)
}

/// Whether the holder may be asked for one chunk more. Slow holders together may hold half of
/// the fetches at most.
#[inline]
pub(crate) fn may_ask(book: &Book, peer: &Peer) -> bool {
    can_take_another(book, peer) && (!peer.supply.silence.is_slow || may_add_slow(book))
}

/// Whether the holder can take one more fetch, or one that others let the relay wait for: that adds
/// none to those which wait for slow ones. Those on trial may hold half of the fetches at most
/// once one is proven.
fn can_take_another(book: &Book, peer: &Peer) -> bool {
    let half = book.fetches_max() / 2;
    if !peer.supply.is_proven
        && book.fetches().on_trial() > half
        && sure_holders(book).next().is_some()
    {
        return false;
    }
    peer.supply.fetches < if peer.supply.silence.is_slow { 1 } else { depth(book, peer) }
}

/// Whether one more of the fetches may wait for a slow holder.
pub(crate) fn may_add_slow(book: &Book) -> bool {
    book.fetches().overdue() <= book.fetches_max() / 2
}

/// Those of the suppliers remembered that answer in time.
fn sure_holders(book: &Book) -> impl Iterator<Item = &Peer> {
    let suppliers = book.suppliers().iter().map(|&slot| book.peer(slot));
    suppliers.filter(|peer| !peer.supply.silence.is_slow && !peer.supply.may_go)
}

/// Whether one of those holds this chunk, and from no place where a peer lied.
pub(crate) fn is_surely_held(book: &Book, chunk: u32) -> bool {
    sure_holders(book).any(|peer| !peer.terms.is_suspect && peer.have.contains(chunk))
}

/// Fetches that the holder may have outstanding.
fn depth(book: &Book, peer: &Peer) -> u32 {
    match peer.supply.is_proven {
        true => {
            let depth = peer.supply.depth.fetches(book.config().chunk_size_bytes);
            depth.min(book.limits().depth_max).max(1)
        }
        false => 1,
    }
}

fn rank(book: &Book, peer: &Peer, is_hedge: bool) -> Rank {
    let supply = &peer.supply;
    let ahead = f64::from(supply.fetches + 1) * f64::from(book.config().chunk_size_bytes);
    let is_slow = supply.silence.is_slow;
    let seconds = match is_slow {
        true => supply.silence.unanswered.as_secs_f64(),
        false => supply.up.rate().map_or(0.0, |rate| ahead / rate),
    };
    let is_doubted = !supply.is_proven && (is_hedge || is_slow);
    let (first, second) = if is_hedge { (is_doubted, is_slow) } else { (is_slow, is_doubted) };
    Rank(peer.terms.is_suspect, peer.terms.is_uplink, first, second, supply.fetches, seconds)
}

/// Suspects last, then other relays (what is here need not come from there), then slow ones, then unproven ones among those; a hedge goes to proven ones rather
/// than to fast ones. Idle ones first, then the earliest expected finish in seconds; of slow ones
/// the one that has let the relay wait least.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
struct Rank(bool, bool, bool, bool, u32, f64);
