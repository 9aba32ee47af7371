//! Peers that wait for chunks which no connected peer holds: they are told, and not for ever.
//!
//! A publisher may have given the file up, as it is no longer what it was. Then another holder may still be
//! about to come back, but there is not much hope.

use std::time::Duration;

use relay_protocol::{Order, time::Time};

use crate::{
    api::{Action, PeerSlot},
    book::{Book, chunks::ones},
    desk::Desk,
};

/// How soon starving peers are looked at when chunks are missing: a holder may just be joining.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// How often one peer is told, at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long peers wait, at most, for what their origin has given up: a holder that lost its connection is
/// back within a second.
const GIVEN_UP_DEADLINE: Duration = Duration::from_secs(3);

/// When to look next, and what is known of the origin.
#[derive(Debug, Default)]
pub(crate) struct MissingChunks {
    check_at: Option<Time>,
    /// A publisher has said that it can't supply the file any more; holds while something is missing.
    is_given_up: bool,
}

impl MissingChunks {
    /// The peer can't supply a chunk that it had. Only one that published, and has supplied something
    /// right, is believed that no other peer will.
    pub(crate) fn refused(&mut self, book: &Book, slot: PeerSlot) {
        let peer = book.peer(slot);
        self.is_given_up |= peer.terms.seeding.is_some() && peer.supply.is_proven;
    }

    pub(crate) fn timeout(&self) -> Option<Time> {
        self.check_at
    }

    /// Whether it is time to look at those that starve.
    #[inline]
    pub(crate) fn is_due(&mut self, desk: &Desk, is_manifest_missing: bool) -> bool {
        let is_missing = desk.book.chunks().orphan_count > 0 || is_manifest_missing;
        self.is_given_up &= is_missing;
        if desk.book.starving().is_empty() || !is_missing {
            self.check_at = None;
            return false;
        }
        let is_due = desk.now >= *self.check_at.get_or_insert(desk.now + CHECK_EVERY);
        if is_due {
            self.check_at = Some(desk.now + CHECK_EVERY);
        }
        is_due
    }

    /// Looks at one peer that starves; whether its wait is over, in vain.
    pub(crate) fn look_at(
        &self,
        desk: &mut Desk,
        slot: PeerSlot,
        is_manifest_missing: bool,
    ) -> bool {
        let Some((missing_count, first_missing)) =
            missing_for(&desk.book, slot, is_manifest_missing)
        else {
            desk.book.misses_nothing(desk.now, slot);
            return false;
        };
        let waited = desk.book.misses(desk.now, slot);
        let is_given_up = self.is_given_up;
        let longest = desk.book.config().missing_deadline;
        let longest = if is_given_up { longest.min(GIVEN_UP_DEADLINE) } else { longest };
        let deadline = longest.saturating_sub(waited);
        if deadline.is_zero() {
            desk.actions.push(Action::GiveUp { peer: slot, missing_count, is_given_up });
            return true;
        }
        let told = desk.book.peer(slot).missing.and_then(|missing| missing.told);
        if told.is_none_or(|told| desk.now.since(told) >= TELL_EVERY) {
            desk.book.told_missing(desk.now, slot);
            desk.actions.push(Action::Waiting {
                peer: slot,
                missing_count,
                first_missing,
                deadline,
            });
        }
        false
    }
}

/// How many chunks the peer lacks that no peer holds, and the first; `None` if there is
/// anything else that it can get.
pub(crate) fn missing_for(
    book: &Book,
    slot: PeerSlot,
    is_manifest_missing: bool,
) -> Option<(u32, u32)> {
    let (peer, count) = (book.peer(slot), book.chunks().count());
    if !peer.intake.deliveries.is_empty() {
        return None;
    }
    if is_manifest_missing {
        let missing_count = count - peer.settled.count();
        return peer.settled.iter_missing().next().map(|first| (missing_count, first));
    }
    let words = || peer.settled.words().iter().zip(book.chunks().orphan_bits.words());
    let missing = || ones(words().map(|(settled, orphan)| !settled & orphan));
    let missing_count = u32::try_from(missing().count()).expect("fewer than chunks");
    let first = missing().next()?;
    let stuck = match peer.terms.order {
        Order::Relay => peer.settled.count() + missing_count == count,
        Order::Peer => {
            let next = peer.wants.first();
            next.is_some_and(|chunk| book.chunks().orphan_bits.contains(chunk))
        }
    };
    stuck.then_some((missing_count, first))
}
