//! Wrong tokens that HTTP requests came with: how many, and from where. An address that sends more of them is
//! answered later each time; the log has a line a minute. Right tokens are never slowed.
//!
//! Nothing is locked: a table of atomics, one slot for each hash of an address. Two that share a slot
//! take it from each other, which only forgets.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::home::blame::party;

/// Addresses that are remembered.
const ADDRESSES_MAX: usize = 1024;

/// How late the first wrong token of an address is answered. Each one doubles it.
const DELAY_FIRST: Duration = Duration::from_millis(100);

/// No answer is later: what stands in front of the relay gives up after ten seconds or more.
const DELAY_MAX: Duration = Duration::from_secs(5);

/// An address that sent none for so long begins anew.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Between two lines of the log.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Bits of a slot: whose it is, how many wrong tokens came from there, and the second of the last.
const TAG_BITS: u32 = 24;
const COUNT_BITS: u32 = 8;

/// Wrong tokens so far.
pub(crate) struct Guesses {
    total: AtomicU64,
    /// Of them, those that the log knows.
    told: AtomicU64,
    /// When it was told, in milliseconds from 1 on; 0: never.
    told_at: AtomicU64,
    /// Where the last came from.
    last: [AtomicU64; 2],
    hasher: RandomState,
    slots: Box<[AtomicU64]>,
}

impl Guesses {
    pub(crate) fn new() -> Self {
        Self {
            total: AtomicU64::new(0),
            told: AtomicU64::new(0),
            told_at: AtomicU64::new(0),
            last: [AtomicU64::new(0), AtomicU64::new(0)],
            hasher: RandomState::new(),
            slots: (0..ADDRESSES_MAX).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// How many there were.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// One more from there: how long its answer waits.
    pub(crate) fn note(&self, now: Duration, from: IpAddr) -> Duration {
        self.total.fetch_add(1, Ordering::Relaxed);
        let bits = match from.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        }
        .to_bits();
        for (half, shift) in self.last.iter().zip([64, 0]) {
            half.store(
                u64::try_from(bits >> shift & u128::from(u64::MAX)).unwrap_or(0),
                Ordering::Relaxed,
            );
        }
        self.tell(now);
        let hash = self.hasher.hash_one(party(from));
        let slot = &self.slots[usize::try_from(hash).unwrap_or(0) % ADDRESSES_MAX];
        let tag = hash >> (u64::BITS - TAG_BITS);
        let next = after(slot.load(Ordering::Relaxed), tag, now.as_secs());
        slot.store(next, Ordering::Relaxed);
        delay(count(next))
    }

    /// Tells the log of those that it does not know, if it was not told just now.
    pub(crate) fn tell(&self, now: Duration) {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX).max(1);
        let told_at = self.told_at.load(Ordering::Relaxed);
        if told_at != 0 && now < Duration::from_millis(told_at) + TELL_EVERY {
            return;
        }
        let total = self.total();
        let untold = total - self.told.swap(total, Ordering::Relaxed);
        if untold == 0 {
            return;
        }
        self.told_at.store(now_ms, Ordering::Relaxed);
        let [high, low] =
            [0, 1].map(|half: usize| u128::from(self.last[half].load(Ordering::Relaxed)));
        let last = IpAddr::from(Ipv6Addr::from_bits(high << 64 | low)).to_canonical();
        tracing::warn!(
            "HTTP requests with a wrong token: {untold} since the last such line, the last from {last}; whoever \
             sends more is answered later each time"
        );
    }
}

/// What a slot holds after one more wrong token.
fn after(slot: u64, tag: u64, now_seconds: u64) -> u64 {
    let now_seconds = now_seconds & u64::from(u32::MAX);
    let is_its_own = slot >> (u64::BITS - TAG_BITS) == tag;
    let last_seconds = slot & u64::from(u32::MAX);
    let is_recent = now_seconds.saturating_sub(last_seconds) < FORGET_AFTER.as_secs();
    let before = if is_its_own && is_recent { count(slot) } else { 0 };
    let counted = u64::from(before.saturating_add(1).min((1 << COUNT_BITS) - 1));
    tag << (u64::BITS - TAG_BITS) | counted << (u64::BITS - TAG_BITS - COUNT_BITS) | now_seconds
}

/// Wrong tokens from the address of a slot.
fn count(slot: u64) -> u32 {
    u32::try_from(slot >> (u64::BITS - TAG_BITS - COUNT_BITS) & ((1 << COUNT_BITS) - 1))
        .unwrap_or(0)
}

/// How late the so-manieth is answered.
fn delay(count: u32) -> Duration {
    let doublings = count.saturating_sub(1).min(16);
    (DELAY_FIRST * (1 << doublings)).min(DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn each_wrong_token_of_an_address_is_answered_later_and_no_other_address_is() {
        let guesses = Guesses::new();
        let now = Duration::from_secs(1000);
        let delays: Vec<Duration> =
            (0..300).map(|_| guesses.note(now, address("192.0.2.7"))).collect();
        assert_eq!(delays[..3], [1, 2, 4].map(|times| DELAY_FIRST * times));
        assert!(delays.is_sorted() && delays[299] == DELAY_MAX, "{:?}", delays[299]);
        assert_eq!(guesses.note(now, address("192.0.2.8")), DELAY_FIRST);
        assert_eq!(guesses.note(now, address("192.0.2.7")), DELAY_MAX, "still known");
        assert_eq!(guesses.note(now + FORGET_AFTER, address("192.0.2.7")), DELAY_FIRST);
        assert_eq!(guesses.total(), 303);
    }

    #[test]
    fn one_customer_of_many_addresses_is_one_address() {
        let guesses = Guesses::new();
        let now = Duration::ZERO;
        assert_eq!(guesses.note(now, address("2001:db8:1:2::5")), DELAY_FIRST);
        assert_eq!(guesses.note(now, address("2001:db8:1:2:3::9")), 2 * DELAY_FIRST);
        assert_eq!(guesses.note(now, address("::ffff:192.0.2.7")), DELAY_FIRST);
        assert_eq!(guesses.note(now, address("192.0.2.7")), 2 * DELAY_FIRST);
    }

    #[test]
    fn the_table_stays_as_large_as_it_is() {
        let guesses = Guesses::new();
        for index in 0..4 * u32::try_from(ADDRESSES_MAX).expect("few") {
            guesses.note(Duration::ZERO, IpAddr::from(index.to_be_bytes()));
        }
        assert_eq!(guesses.slots.len(), ADDRESSES_MAX);
    }

    #[test]
    fn the_log_has_a_line_a_minute() {
        let guesses = Guesses::new();
        let from = address("192.0.2.7");
        let told = || guesses.told.load(Ordering::Relaxed);
        guesses.note(Duration::from_secs(1), from);
        assert_eq!(told(), 1, "the first is told at once");
        for _ in 0..5 {
            guesses.note(Duration::from_secs(2), from);
        }
        assert_eq!(told(), 1);
        guesses.tell(Duration::from_secs(1) + TELL_EVERY);
        assert_eq!(told(), 6, "the others are told when their time has come");
    }
}
