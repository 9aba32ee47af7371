//! The budget's word, its table of tickets and the election of the head.
//!
//! Knows bytes and homes, not what is kept in them. The order of steps is what makes it right:
//!
//! - *join*: count oneself in the word, publish the ticket, then elect, then look for bytes;
//! - *give back*: take off the word, then elect, then call the head if what it wants is free;
//! - *leave*: take away the ticket, give up being the head, then elect and call like a release.
//!
//! A home that has drawn its ticket and not yet published it may be overtaken by the next: the two
//! came at the same moment. No home is forgotten by that: it elects after it has published.

#[cfg(not(test))]
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{OnceLock, atomic::Ordering::SeqCst};

#[cfg(test)]
use crate::stepping::{AtomicBool, AtomicUsize};
use crate::{placement::SHARDS_MAX, ringer::Ringer};

// Counters are packed into one word of this size.
const _: () = assert!(usize::BITS == 64);

/// The word: bytes in use below, waiting homes above.
const BYTES_BITS: u32 = 48;
const ONE_WAITING: usize = 1 << BYTES_BITS;

/// Most bytes: they have 48 bits of the word.
pub(super) const BYTES_MAX: usize = ONE_WAITING - 1;

/// Most homes: their count has 16 bits of the word, and a home has 16 bits of the head.
pub(super) const HOMES_MAX: usize = u16::MAX as usize;

/// The head: the home's place below, its ticket above. 48 bits of tickets last for 8 years at a
/// million a second.
const PLACE_BITS: u32 = 16;
const _: () = assert!(HOMES_MAX < 1 << PLACE_BITS);

/// What to ring: one ringer per shard.
const RINGERS_MAX: usize = SHARDS_MAX;

/// No ticket, and no head. Tickets begin at 1.
const NONE: usize = 0;

#[derive(Debug)]
pub(super) struct Queue {
    limit_bytes: usize,
    word: AtomicUsize,
    tickets_drawn: AtomicUsize,
    head: AtomicUsize,
    /// Places in use lie below this, so that an election need not look at all of them.
    places_used: AtomicUsize,
    /// Each home's ticket, [`NONE`] while it does not wait. Apart from the rest, since an election
    /// reads them all.
    tickets: Box<[AtomicUsize]>,
    places: Box<[Place]>,
    ringers: Box<[OnceLock<Ringer>]>,
}

/// Of one home.
#[derive(Debug, Default)]
struct Place {
    taken: AtomicBool,
    wanted_bytes: AtomicUsize,
    /// Rung since it last tried.
    called: AtomicBool,
    /// Index of its shard's ringer. Stale only for a home that has left: then a ring too many.
    ringer: AtomicUsize,
}

/// The owner's handle on its place.
#[derive(Debug)]
pub(super) struct Home {
    place: usize,
    ticket: usize,
}

impl Home {
    pub(super) fn is_waiting(&self) -> bool {
        self.ticket != NONE
    }
}

impl Queue {
    pub(super) fn new(limit_bytes: usize, homes_max: usize) -> Self {
        assert!((1..=BYTES_MAX).contains(&limit_bytes), "a budget has some bytes");
        assert!((1..=HOMES_MAX).contains(&homes_max), "a budget has some homes");
        Self {
            limit_bytes,
            word: AtomicUsize::new(0),
            tickets_drawn: AtomicUsize::new(0),
            head: AtomicUsize::new(NONE),
            places_used: AtomicUsize::new(0),
            tickets: (0..homes_max).map(|_| AtomicUsize::new(NONE)).collect(),
            places: (0..homes_max).map(|_| Place::default()).collect(),
            ringers: (0..RINGERS_MAX).map(|_| OnceLock::new()).collect(),
        }
    }

    pub(super) fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    pub(super) fn in_use_bytes(&self) -> usize {
        in_use_bytes(self.word.load(SeqCst))
    }

    pub(super) fn waiting(&self) -> usize {
        self.word.load(SeqCst) >> BYTES_BITS
    }

    /// Gives a home a place.
    pub(super) fn admit(&self, ringer: &Ringer) -> Option<Home> {
        let ringer = self.ringer_index(ringer)?;
        let take = |place: &Place| {
            !place.taken.load(SeqCst)
                && place.taken.compare_exchange(false, true, SeqCst, SeqCst).is_ok()
        };
        let place = self.places.iter().position(take)?;
        self.places[place].ringer.store(ringer, SeqCst);
        self.places_used.fetch_max(place + 1, SeqCst);
        Some(Home { place, ticket: NONE })
    }

    /// Takes a home's place away.
    pub(super) fn dismiss(&self, home: &mut Home) {
        self.leave(home);
        self.places[home.place].taken.store(false, SeqCst);
    }

    pub(super) fn is_called(&self, home: &Home) -> bool {
        self.places[home.place].called.load(SeqCst)
    }

    /// Takes bytes, or joins the queue, or stays in it. Returns the bytes in use by then.
    pub(super) fn try_take(&self, home: &mut Home, bytes: usize) -> Option<usize> {
        let place = &self.places[home.place];
        if home.is_waiting() {
            place.called.store(false, SeqCst);
            place.wanted_bytes.store(bytes, SeqCst);
        } else {
            if let Ok(in_use) = self.take_or_join(bytes) {
                return Some(in_use);
            }
            place.called.store(false, SeqCst);
            place.wanted_bytes.store(bytes, SeqCst);
            home.ticket = self.tickets_drawn.fetch_add(1, SeqCst) + 1;
            self.tickets[home.place].store(home.ticket, SeqCst);
        }
        self.try_serve(home, bytes)
    }

    /// Leaves the queue without having been served.
    pub(super) fn leave(&self, home: &mut Home) {
        if home.is_waiting() {
            self.withdraw(home);
            self.word.fetch_sub(ONE_WAITING, SeqCst);
            self.call_head();
        }
    }

    pub(super) fn give_back(&self, bytes: usize) {
        let before = self.word.fetch_sub(bytes, SeqCst);
        debug_assert!(in_use_bytes(before) >= bytes, "no more is given back than was taken");
        if before >= ONE_WAITING {
            self.call_head();
        }
    }

    /// In one step, so that no home takes bytes while another waits. Err: counted as waiting.
    fn take_or_join(&self, bytes: usize) -> Result<usize, ()> {
        let mut word = self.word.load(SeqCst);
        loop {
            let free = word < ONE_WAITING && bytes <= self.limit_bytes - in_use_bytes(word);
            let next = if free { word + bytes } else { word + ONE_WAITING };
            match self.word.compare_exchange(word, next, SeqCst, SeqCst) {
                Ok(_) if free => return Ok(in_use_bytes(next)),
                Ok(_) => return Err(()),
                Err(now) => word = now,
            }
        }
    }

    /// Serves a waiting home if it is the head and its bytes are free.
    fn try_serve(&self, home: &mut Home, bytes: usize) -> Option<usize> {
        let head = self.elect().expect("whoever has published a ticket can be elected");
        if head != home.place {
            return None;
        }
        let in_use = self.take_waiting(bytes)?;
        self.withdraw(home);
        self.call_head();
        Some(in_use)
    }

    /// Takes bytes for the head, and it off the count of those that wait.
    fn take_waiting(&self, bytes: usize) -> Option<usize> {
        let mut word = self.word.load(SeqCst);
        while bytes <= self.limit_bytes - in_use_bytes(word) {
            let next = word + bytes - ONE_WAITING;
            match self.word.compare_exchange(word, next, SeqCst, SeqCst) {
                Ok(_) => return Some(in_use_bytes(next)),
                Err(now) => word = now,
            }
        }
        None
    }

    /// Takes the ticket away, and the headship that it may have brought.
    fn withdraw(&self, home: &mut Home) {
        self.tickets[home.place].store(NONE, SeqCst);
        let head = head_word(home.place, home.ticket);
        // Not the head, or another home has noticed already: both are fine.
        let _unchanged = self.head.compare_exchange(head, NONE, SeqCst, SeqCst);
        home.ticket = NONE;
    }

    /// Has the head's shard rung, if the head waits for what is free now.
    fn call_head(&self) {
        let Some(head) = self.elect() else { return };
        let place = &self.places[head];
        if place.wanted_bytes.load(SeqCst) > self.limit_bytes - self.in_use_bytes() {
            return;
        }
        if !place.called.swap(true, SeqCst)
            && let Some(ringer) = self.ringers[place.ringer.load(SeqCst)].get()
        {
            ringer.ring();
        }
    }

    /// The place of the home whose turn it is. Elects it if there is none, and forgets one that has
    /// left. Each round follows a step of another home, so this ends.
    fn elect(&self) -> Option<usize> {
        loop {
            let head = self.head.load(SeqCst);
            let next = if head == NONE {
                self.lowest_ticket()?
            } else {
                let place = head & ((1 << PLACE_BITS) - 1);
                if self.tickets[place].load(SeqCst) == head >> PLACE_BITS {
                    return Some(place);
                }
                NONE
            };
            let _unchanged = self.head.compare_exchange(head, next, SeqCst, SeqCst);
        }
    }

    fn lowest_ticket(&self) -> Option<usize> {
        let used = self.places_used.load(SeqCst);
        let tickets = self.tickets[..used].iter().map(|ticket| ticket.load(SeqCst)).enumerate();
        let published = tickets.filter(|&(_, ticket)| ticket != NONE);
        let (place, ticket) = published.min_by_key(|&(_, ticket)| ticket)?;
        Some(head_word(place, ticket))
    }

    /// Finds the ringer's entry or makes one. Entries are never taken away: shards stay.
    fn ringer_index(&self, ringer: &Ringer) -> Option<usize> {
        self.ringers.iter().position(|slot| ringer.is_same(slot.get_or_init(|| ringer.clone())))
    }
}

fn in_use_bytes(word: usize) -> usize {
    word & BYTES_MAX
}

fn head_word(place: usize, ticket: usize) -> usize {
    ticket << PLACE_BITS | place
}

#[cfg(test)]
mod tests;
