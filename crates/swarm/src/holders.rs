//! Whom to ask for what: the choice of the next fetch.
//!
//! The chunk that most peers want, of an idle holder if there is one, else of the holder that
//! is expected to finish first. Idle holders come first, so that many slow uplinks are all kept
//! busy; a fast one gets several fetches at once (`depth.rs`), a slow one never more than one.
//!
//! To claim is cheap, so a claim is not trusted far: a holder that has supplied nothing yet is on
//! trial, with one fetch; and as soon as somebody has proven to supply, all trials together hold
//! half of the fetches at most.

use std::collections::VecDeque;

use super::{PeerSlot, Swarm, chunks::Place, fetching::Need, peers::Peer};
use relay_protocol::{Order, time::Time};

/// What to fetch next, from whom, and why.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    pub(super) chunk: u32,
    pub(super) holder: PeerSlot,
    pub(super) need: Need,
}

/// Who is not to be asked for a chunk, as he was already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Except {
    pub(super) holder: PeerSlot,
    pub(super) rival: Option<PeerSlot>,
    /// Who was looked at and is no better.
    pub(super) refused: Option<PeerSlot>,
}

impl Except {
    /// Whether it is about this one.
    pub(super) fn contains(&self, slot: PeerSlot) -> bool {
        slot == self.holder || [self.rival, self.refused].contains(&Some(slot))
    }
}

/// A holder that may be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) slot: PeerSlot,
    pub(super) idle: bool,
}

/// Chunks that one decision looks at, most wanted first: a bound on its cost.
const CHUNKS_PER_SCAN: usize = 48;

/// Holders of a chunk that one decision compares.
const HOLDERS_PER_SCAN: usize = 16;

/// The same while only suspects were found: one who is trusted is worth a longer look.
const SUSPECTS_PER_SCAN: usize = 64;

/// Chunks for which one decision looks for a holder.
const CHOICES_PER_SCAN: usize = 8;

/// Chunks of one idle holder that a decision compares: all of a file of ordinary size.
const CHUNKS_PER_HOLDER: usize = 4096;

/// Starving peers among which the one is sought that has starved longest.
const STARVING_COMPARED: usize = 64;

/// Starving peers that one decision looks at closely.
const STARVING_PER_SCAN: usize = 16;

/// Holders that are remembered because they supplied something: so that one of them is found among
/// any number that only claim.
const SUPPLIERS_MAX: usize = 16;

/// Wants of one peer in peer order that are fetched ahead while memory lies idle, at least.
const WANTS_AHEAD_MIN: u32 = 4;

/// The same in bytes: with tiny chunks four of them would leave everybody waiting for round trips.
const WANTS_AHEAD_BYTES: u32 = 64 << 10;

/// Holders that nothing is being fetched from.
#[derive(Debug, Default)]
pub(super) struct IdleHolders {
    peers: Vec<PeerSlot>,
    turn: usize,
    /// Where a peer was found last that could be asked for something.
    askable_hint: u32,
    /// Some of those who supplied something, the latest to do so for the first time last.
    suppliers: VecDeque<PeerSlot>,
}

impl Swarm {
    /// The peer's place among the idle holders may have changed.
    pub(super) fn refresh_idle(&mut self, slot: PeerSlot) {
        let peer = &mut self.peers[slot];
        let idle = peer.fetches == 0 && peer.is_holder() && peer.have.count() > 0;
        let all = &mut self.idle_holders.peers;
        match peer.idle {
            None if idle => {
                peer.idle = Some(u32::try_from(all.len()).expect("at most all peers"));
                all.push(slot);
            }
            Some(at) if !idle => {
                peer.idle = None;
                all.swap_remove(at as usize);
                if let Some(&moved) = all.get(at as usize) {
                    self.peers[moved].idle = Some(at);
                }
            }
            _ => {}
        }
    }

    /// The peer has supplied something that is right.
    pub(super) fn prove(&mut self, slot: PeerSlot) {
        let suppliers = &mut self.idle_holders.suppliers;
        if std::mem::replace(&mut self.peers[slot].is_proven, true) && suppliers.contains(&slot) {
            return;
        }
        if suppliers.len() == SUPPLIERS_MAX {
            suppliers.pop_front();
        }
        suppliers.push_back(slot);
        self.count_copies(slot);
    }

    /// The peer supplies nothing any more.
    pub(super) fn supplier_lost(&mut self, slot: PeerSlot) {
        self.idle_holders.suppliers.retain(|&other| other != slot);
    }

    /// Chooses the next fetch.
    pub(super) fn pick(&mut self, now: Time) -> Option<Pick> {
        self.chunks.fetchable.tidy();
        if self.seeding.holds_back() {
            return self.pick_seeding(now);
        }
        if let Some(pick) = self.pick_leaving() {
            return Some(pick);
        }
        // Mostly nobody can, and to find that out chunk by chunk would cost a look at all of them.
        if !self.can_ask_anybody() {
            return None;
        }
        if !self.starving.is_empty()
            && let Some(pick) = self.pick_starving()
        {
            return Some(pick);
        }
        if self.may_fetch_ahead(now) { self.pick_ahead() } else { None }
    }

    /// Whether somebody who can take one more fetch has anything that could be fetched.
    fn can_ask_anybody(&mut self) -> bool {
        let fetchable = self.chunks.fetchable_bits.words();
        let (slots, start) = (self.peers.slot_count(), self.idle_holders.askable_hint);
        let mut slots = (0..slots).map(|step| PeerSlot((start + step) % slots));
        let found = slots.find(|&slot| {
            self.peers.get(slot).is_some_and(|peer| {
                let mut words = peer.have.words().iter().zip(fetchable);
                peer.is_holder() && self.may_ask(peer) && words.any(|(have, some)| have & some != 0)
            })
        });
        self.idle_holders.askable_hint = found.map_or(0, |slot| slot.0);
        found.is_some()
    }

    /// A chunk that this peer lacks and somebody can be asked for.
    fn any_askable_for(&self, peer: &Peer) -> Option<u32> {
        self.peers.iter().find_map(|(_, holder)| {
            if !holder.is_holder() || !self.may_ask(holder) {
                return None;
            }
            let lacked = peer.settled.words().iter().zip(self.chunks.fetchable_bits.words());
            let words = lacked.zip(holder.have.words());
            let mut askable = ones(words.map(|((settled, some), have)| !settled & some & have));
            askable.find(|&chunk| !holder.may_go || self.chunks.get(chunk).holders == 1)
        })
    }

    /// For whoever has starved longest what most others want too; for another if nobody can be
    /// asked for that.
    fn pick_starving(&mut self) -> Option<Pick> {
        let count = self.starving.peers.len();
        let turn = self.starving.turn;
        let next = |step: usize| self.starving.peers[(turn + step) % count];
        let since = |slot: &PeerSlot| self.peers[*slot].starving_since;
        let longest = (0..count.min(STARVING_COMPARED)).map(next).min_by_key(since)?;
        let mut busy = None;
        for slot in std::iter::once(longest).chain((0..count.min(STARVING_PER_SCAN)).map(next)) {
            match self.pick_for(slot) {
                Some((pick, true)) => return Some(pick),
                Some((pick, false)) if busy.is_none() => busy = Some(pick),
                _ => {}
            }
        }
        self.starving.turn = (turn + STARVING_PER_SCAN) % count;
        self.pick_of_idle(Need::Starving).or(busy)
    }

    /// What comes next for somebody in peer order; else the most wanted chunk, preferably of an idle
    /// holder.
    fn pick_ahead(&mut self) -> Option<Pick> {
        let ahead = (WANTS_AHEAD_BYTES / self.config.chunk_size_bytes).max(WANTS_AHEAD_MIN);
        for &slot in self.starving.peers.iter().take(STARVING_PER_SCAN) {
            let wants = self.fetchable_wants(&self.peers[slot], ahead as usize);
            if let Some((pick, _)) = self.pick_among(wants, Need::Ahead) {
                return Some(pick);
            }
        }
        let chunks = self.chunks.fetchable.iter_down().map(|(chunk, _)| chunk);
        let (pick, idle) = self.pick_among(chunks, Need::Ahead).unzip();
        if idle == Some(true) { pick } else { self.pick_of_idle(Need::Ahead).or(pick) }
    }

    /// The first of these chunks that an idle holder has, or one that can take one more fetch; and
    /// whether it is idle.
    fn pick_among(&self, chunks: impl Iterator<Item = u32>, need: Need) -> Option<(Pick, bool)> {
        let mut busy = None;
        for chunk in chunks.take(CHOICES_PER_SCAN) {
            match self.find_holder(chunk, None) {
                Some(Choice { slot, idle: true }) => {
                    return Some((Pick { chunk, holder: slot, need }, true));
                }
                Some(Choice { slot, .. }) if busy.is_none() => {
                    busy = Some((Pick { chunk, holder: slot, need }, false));
                }
                _ => {}
            }
        }
        busy
    }

    /// The first few chunks that a peer in peer order wants, as far as they can be fetched.
    fn fetchable_wants(&self, peer: &Peer, count: usize) -> impl Iterator<Item = u32> {
        let wants = peer.wants.iter().take(count);
        wants.filter(|&chunk| self.chunks.fetchable_bits.contains(chunk))
    }

    /// Something that this starving peer lacks; in peer order only what it wants next: more would
    /// push out of a small cache what the next one needs.
    fn pick_for(&self, slot: PeerSlot) -> Option<(Pick, bool)> {
        let peer = &self.peers[slot];
        if peer.order == Order::Peer {
            return self.pick_among(self.fetchable_wants(peer, 1), Need::Starving);
        }
        let top = self.chunks.fetchable.iter_down().map(|(chunk, _)| chunk).take(CHUNKS_PER_SCAN);
        let top = top.filter(|&chunk| peer.lacks(chunk));
        self.pick_among(top, Need::Starving).or_else(|| {
            let words = peer.settled.words().iter().zip(self.chunks.fetchable_bits.words());
            let all = ones(words.map(|(settled, fetchable)| !settled & fetchable));
            let mut some: Vec<u32> = all.take(CHUNKS_PER_SCAN).collect();
            some.sort_by_key(|&chunk| std::cmp::Reverse(self.chunks.get(chunk).wanted));
            let some = self.pick_among(some.into_iter(), Need::Starving);
            some.or_else(|| {
                let chunk = self.any_askable_for(peer)?;
                let holder = self.find_holder(chunk, None)?.slot;
                Some((Pick { chunk, holder, need: Need::Starving }, false))
            })
        })
    }

    /// The most wanted chunk of the next few idle holders.
    fn pick_of_idle(&mut self, need: Need) -> Option<Pick> {
        // In peer order a starving peer takes what it wants next and nothing else.
        if need == Need::Starving && !self.next_starving().any(|peer| peer.order == Order::Relay) {
            return None;
        }
        let worth = self.worth_fetching(need);
        let count = self.idle_holders.peers.len();
        let mut best: Option<(u32, Pick)> = None;
        for _ in 0..count.min(HOLDERS_PER_SCAN) {
            self.idle_holders.turn = (self.idle_holders.turn + 1) % count;
            let holder = self.idle_holders.peers[self.idle_holders.turn];
            let peer = &self.peers[holder];
            if peer.slow || peer.may_go || peer.is_suspect || !self.may_ask(peer) {
                continue;
            }
            let words = peer.have.words().iter().zip(&worth);
            let chunks = ones(words.map(|(have, worth)| have & worth));
            for chunk in chunks.take(CHUNKS_PER_HOLDER) {
                let wanted = self.chunks.get(chunk).wanted;
                if best.is_none_or(|(most, _)| wanted > most) {
                    best = Some((wanted, Pick { chunk, holder, need }));
                }
            }
        }
        best.map(|(_, pick)| pick)
    }

    /// What can be fetched, as bits; for starving peers only what one of the next few would take.
    fn worth_fetching(&self, need: Need) -> Vec<u64> {
        let fetchable = self.chunks.fetchable_bits.words();
        if need != Need::Starving {
            return fetchable.to_vec();
        }
        let mut lacked = vec![0; fetchable.len()];
        for peer in self.next_starving().filter(|peer| peer.order == Order::Relay) {
            for (lacked, settled) in lacked.iter_mut().zip(peer.settled.words()) {
                *lacked |= !settled;
            }
        }
        lacked.iter().zip(fetchable).map(|(lacked, fetchable)| lacked & fetchable).collect()
    }

    pub(super) fn next_starving(&self) -> impl Iterator<Item = &Peer> {
        let (peers, turn) = (&self.starving.peers, self.starving.turn);
        let steps = 0..peers.len().min(STARVING_PER_SCAN);
        steps.map(move |step| &self.peers[peers[(turn + step) % peers.len()]])
    }

    /// The best holder of this chunk that can take one more fetch. Where somebody was asked in vain
    /// already, those come first who have proven to supply.
    pub(super) fn find_holder(&self, chunk: u32, except: Option<Except>) -> Option<Choice> {
        let state = self.chunks.get(chunk);
        debug_assert!(except.is_some() || state.place == Place::Absent);
        let (slots, start) = (self.peers.slot_count(), state.holder_hint);
        let (mut best, mut seen): (Option<(Rank, Choice)>, u32) = (None, 0);
        let mut is_trusted_held = false;
        let is_excepted = |slot| except.is_some_and(|except| except.contains(slot));
        let proven = self.idle_holders.suppliers.iter().map(|&slot| (slot, 0));
        let all = (0..slots).map(|step| (PeerSlot((start + step) % slots), 1));
        for (slot, counts) in proven.chain(all) {
            let Some(peer) = self.peers.get(slot) else { continue };
            if !peer.have.contains(chunk) || !peer.is_holder() {
                continue;
            }
            seen += counts;
            // An origin that may go, unless another holder was asked in vain.
            let spared = peer.may_go && state.holders > 1 && except.is_none();
            // Whoever is slow may never answer: then suspects are as good.
            let is_sure = !peer.is_suspect && !peer.slow && !spared;
            is_trusted_held |= is_sure && !is_excepted(slot);
            let may_ask =
                if except.is_some() { self.can_take_another(peer) } else { self.may_ask(peer) };
            if !is_excepted(slot) && !spared && may_ask {
                let rank = self.rank(peer, except.is_some());
                if best.is_none_or(|(least, _)| rank < least) {
                    best = Some((rank, Choice { slot, idle: peer.fetches == 0 && !peer.slow }));
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
    pub(super) fn may_ask(&self, peer: &Peer) -> bool {
        self.can_take_another(peer) && (!peer.slow || self.may_add_slow())
    }

    /// Whether the holder can take one more fetch, or one that others let us wait for: that adds
    /// none to those which wait for slow ones. Those on trial may hold half of the fetches at most
    /// once somebody is proven.
    fn can_take_another(&self, peer: &Peer) -> bool {
        let half = self.config.fetches_max / 2;
        if !peer.is_proven
            && self.fetch_queue.on_trial > half
            && self.sure_holders().next().is_some()
        {
            return false;
        }
        peer.fetches < if peer.slow { 1 } else { self.depth(peer) }
    }

    /// Whether one more of the fetches may wait for a slow holder.
    pub(super) fn may_add_slow(&self) -> bool {
        self.fetch_queue.overdue <= self.config.fetches_max / 2
    }

    /// Those of the suppliers remembered who answer in time.
    fn sure_holders(&self) -> impl Iterator<Item = &Peer> {
        let suppliers = self.idle_holders.suppliers.iter().map(|&slot| &self.peers[slot]);
        suppliers.filter(|peer| !peer.slow && !peer.may_go)
    }

    /// Whether one of those holds this chunk, and from no place where somebody lied.
    pub(super) fn is_surely_held(&self, chunk: u32) -> bool {
        self.sure_holders().any(|peer| !peer.is_suspect && peer.have.contains(chunk))
    }

    /// Fetches that the holder may have outstanding.
    fn depth(&self, peer: &Peer) -> u32 {
        if peer.is_proven { peer.depth.fetches(self.config.chunk_size_bytes) } else { 1 }
    }

    fn rank(&self, peer: &Peer, is_hedge: bool) -> Rank {
        let ahead = f64::from(peer.fetches + 1) * f64::from(self.config.chunk_size_bytes);
        let seconds = match peer.slow {
            true => peer.unanswered.as_secs_f64(),
            false => peer.up.rate().map_or(0.0, |rate| ahead / rate),
        };
        let is_doubted = !peer.is_proven && (is_hedge || peer.slow);
        let (first, second) =
            if is_hedge { (is_doubted, peer.slow) } else { (peer.slow, is_doubted) };
        Rank(peer.is_suspect, first, second, peer.fetches, seconds)
    }
}

/// Suspects last, then slow ones, then unproven ones among those; a hedge goes to proven ones rather
/// than to fast ones. Idle ones first, then the earliest expected finish in seconds; of slow ones
/// whoever has let us wait least.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
struct Rank(bool, bool, bool, u32, f64);

/// The set bits of a sequence of words.
pub(super) fn ones(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u32> {
    words.zip(0u32..).flat_map(|(mut word, index)| {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros())?;
            word &= word - 1;
            Some(index * 64 + bit)
        })
    })
}
