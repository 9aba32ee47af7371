//! Which chunks cross a bridge: what either relay has asked its end for and waits, and what the other end has named for
//! that.
//!
//! Pure. A chunk crosses because a relay fetches it from its end. The end at the other relay names it there, as soon as
//! there is room; when it comes, it answers the fetch. What the other relay's peers hold no longer, or what takes too
//! long, is refused: the relay looks elsewhere.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::room::Place;
use relay_protocol::{Bitfield, ChunkRange, time::Time};

/// A chunk that was named and has not come for so long is given up, and its room with it. As long as peers wait for
/// chunks that no peer holds.
pub(super) const CROSSING_MAX: Duration = Duration::from_secs(60);

/// One of the two relays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The relay that this one gets files through.
    Up,
    /// This one.
    Down,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];

    /// The other relay.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// A fetch of a relay that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Waiting {
    /// At this relay.
    pub(super) side: Side,
    /// Names it there.
    pub(super) tag: u32,
    pub(super) chunk: u32,
}

/// What an end is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// Name the chunk.
    Name(Side, u32),
    /// Want it no longer.
    Forget(Side, u32),
}

/// One end.
#[derive(Debug, Default)]
struct End {
    /// What peers of its relay hold, beside itself; `None` while it is not connected.
    held: Option<Bitfield>,
    /// Chunks that its relay has asked for, and the fetches that wait for each.
    asked: BTreeMap<u32, Vec<u32>>,
    /// Chunks that it has named there, since when, and their room.
    named: BTreeMap<u32, (Time, Place)>,
    /// Chunks that it is to name when there is room.
    queue: VecDeque<u32>,
    /// It may claim other chunks than when this was last asked.
    has_news: bool,
}

/// Both ends of one bridge.
#[derive(Debug, Default)]
pub(super) struct Crossing {
    up: End,
    down: End,
    chunk_count: u32,
    wishes: VecDeque<Wish>,
    refused: VecDeque<Waiting>,
}

impl Crossing {
    /// For a file of so many chunks.
    pub(super) fn new(chunk_count: u32) -> Self {
        Self { chunk_count, ..Self::default() }
    }

    fn end(&self, side: Side) -> &End {
        match side {
            Side::Up => &self.up,
            Side::Down => &self.down,
        }
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Up => &mut self.up,
            Side::Down => &mut self.down,
        }
    }

    /// The relay has accepted its end.
    pub(super) fn handle_connected(&mut self, side: Side) {
        let nothing = Bitfield::empty(self.chunk_count);
        self.end_mut(side).held = Some(nothing);
        for side in Side::BOTH {
            self.end_mut(side).has_news = true;
        }
    }

    /// The relay's end is not connected any more.
    pub(super) fn handle_disconnected(&mut self, side: Side) {
        let end = self.end_mut(side);
        (end.held, end.named) = (None, BTreeMap::new());
        end.queue.clear();
        self.end_mut(side.other()).has_news = true;
        self.refuse_all(side.other());
    }

    /// No fetch of the relay waits any more: it has lost its end.
    pub(super) fn handle_fetches_lost(&mut self, side: Side) {
        self.refuse_all(side);
        let other = self.end_mut(side.other());
        other.queue.clear();
        let named = std::mem::take(&mut other.named);
        self.wishes.extend(named.into_keys().map(|chunk| Wish::Forget(side.other(), chunk)));
    }

    /// The list of digests is known: the ends may claim something.
    pub(super) fn handle_manifest(&mut self) {
        for side in Side::BOTH {
            self.end_mut(side).has_news = true;
        }
    }

    /// What the relay says of other peers.
    pub(super) fn handle_available(&mut self, side: Side, ranges: &[ChunkRange], is_held: bool) {
        let count = self.chunk_count;
        let chunks = ranges.iter().flat_map(|range| {
            let end = range.first.saturating_add(range.count).min(count);
            range.first.min(end)..end
        });
        for chunk in chunks {
            let Some(held) = &mut self.end_mut(side).held else { return };
            if is_held {
                held.insert(chunk);
            } else if held.remove(chunk) {
                self.give_up(side, chunk);
            }
        }
        self.end_mut(side.other()).has_news = true;
    }

    /// The chunk can't come from this relay's peers any more.
    fn give_up(&mut self, side: Side, chunk: u32) {
        let end = self.end_mut(side);
        if end.named.remove(&chunk).is_some() {
            self.wishes.push_back(Wish::Forget(side, chunk));
        } else {
            end.queue.retain(|&queued| queued != chunk);
        }
        let side = side.other();
        let tags = self.end_mut(side).asked.remove(&chunk).unwrap_or_default();
        self.refuse(side, chunk, tags);
    }

    fn refuse(&mut self, side: Side, chunk: u32, tags: Vec<u32>) {
        if !tags.is_empty() {
            // The relay takes it that its end has the chunk no longer.
            self.end_mut(side).has_news = true;
        }
        self.refused.extend(tags.into_iter().map(|tag| Waiting { side, tag, chunk }));
    }

    fn refuse_all(&mut self, side: Side) {
        for (chunk, tags) in std::mem::take(&mut self.end_mut(side).asked) {
            self.refuse(side, chunk, tags);
        }
    }

    /// The relay asks its end for a chunk; whether it waits, because it may come from the other one.
    pub(super) fn handle_fetch(&mut self, Waiting { side, tag, chunk }: Waiting) -> bool {
        let held = &self.end(side.other()).held;
        if !held.as_ref().is_some_and(|held| held.contains(chunk)) {
            self.end_mut(side).has_news = true;
            return false;
        }
        let tags = self.end_mut(side).asked.entry(chunk).or_default();
        tags.push(tag);
        let source = self.end_mut(side.other());
        if !source.named.contains_key(&chunk) && !source.queue.contains(&chunk) {
            source.queue.push_back(chunk);
        }
        true
    }

    /// A chunk came to the end at this relay: the fetches of the other one that it answers, and its room.
    pub(super) fn handle_came(&mut self, side: Side, chunk: u32) -> (Vec<u32>, Option<Place>) {
        let end = self.end_mut(side);
        let place = end.named.remove(&chunk).map(|(_, place)| place);
        end.queue.retain(|&queued| queued != chunk);
        // The end has it now, and claims it only if it can be had again.
        end.has_news = true;
        let tags = self.end_mut(side.other()).asked.remove(&chunk).unwrap_or_default();
        (tags, place)
    }

    /// Gives up what was named too long ago.
    pub(super) fn handle_time(&mut self, now: Time) {
        for side in Side::BOTH {
            let named = self.end(side).named.iter();
            let is_late =
                |&(_, &(since, _)): &(&u32, &(Time, Place))| now.since(since) >= CROSSING_MAX;
            let late: Vec<u32> = named.filter(is_late).map(|(&chunk, _)| chunk).collect();
            for chunk in late {
                self.give_up(side, chunk);
            }
        }
    }

    /// The next thing that an end is to do. `place` makes room for a chunk, if there is some.
    pub(super) fn poll_wish(
        &mut self,
        now: Time,
        place: impl Fn(u32) -> Option<Place>,
    ) -> Option<Wish> {
        if let Some(wish) = self.wishes.pop_front() {
            return Some(wish);
        }
        for side in Side::BOTH {
            let end = self.end_mut(side);
            if let Some(&chunk) = end.queue.front() {
                let place = place(chunk)?;
                end.queue.pop_front();
                end.named.insert(chunk, (now, place));
                return Some(Wish::Name(side, chunk));
            }
        }
        None
    }

    /// Whether chunks wait for room.
    pub(super) fn waits_for_room(&self) -> bool {
        Side::BOTH.into_iter().any(|side| !self.end(side).queue.is_empty())
    }

    /// Whether chunks are on their way.
    pub(super) fn is_busy(&self) -> bool {
        Side::BOTH.into_iter().any(|side| !self.end(side).named.is_empty())
    }

    /// A fetch that is refused.
    pub(super) fn poll_refused(&mut self) -> Option<Waiting> {
        self.refused.pop_front()
    }

    /// What the end at this relay can supply, if that may be something else than when it was last asked.
    pub(super) fn poll_claims(&mut self, side: Side) -> Option<Bitfield> {
        if !std::mem::take(&mut self.end_mut(side).has_news) {
            return None;
        }
        let held = &self.end(side.other()).held;
        Some(held.clone().unwrap_or_else(|| Bitfield::empty(self.chunk_count)))
    }

    /// Whether the end at this relay is connected.
    pub(super) fn is_connected(&self, side: Side) -> bool {
        self.end(side).held.is_some()
    }

    /// Whether peers of this relay hold anything.
    pub(super) fn has_something(&self, side: Side) -> bool {
        self.end(side).held.as_ref().is_some_and(|held| held.count() > 0)
    }
}

#[cfg(test)]
mod tests;
