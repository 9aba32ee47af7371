//! What the relay's limits have to remember of one connection: its own rate each way, and whether it waits.
//!
//! Decides nothing: [`crate::shard::shaping`] does.

use std::{cell::Cell, time::Duration};

use relay_protocol::{
    rate::{Gcra, Rate},
    time::Time,
};

/// A connection that brought what was not asked for is read in turn for so long.
const IN_TURN_FOR: Duration = Duration::from_secs(1);

/// Where one connection stands with the limits. All of it is at rest while there are none.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// What it was sent, by the limit of each peer.
    pub sent: Cell<Gcra>,
    /// What it has supplied, by the same limit.
    pub received: Cell<Gcra>,
    /// What it has supplied unasked, by the least limit.
    unasked: Cell<Gcra>,
    /// It waits for its turn to be sent something.
    pub waits_to_send: Cell<bool>,
    /// It waits to be sent something for its own limit, until then.
    pub paced_until: Cell<Option<Time>>,
    /// It waits for its turn to be read from.
    pub waits_to_read: Cell<bool>,
    /// File bytes that it may be read; what is not used of the limit of all goes back.
    pub granted_bytes: Cell<u64>,
    /// Since when what came in datagrams waits to be read, and until when.
    held_data: Cell<Option<(Time, Time)>>,
}

impl Pace {
    /// Other limits hold: what went by the old ones counts no longer.
    pub(crate) fn begin_anew(&self) {
        for moved in [&self.sent, &self.received, &self.unasked] {
            moved.take();
        }
        self.granted_bytes.set(0);
    }

    /// What comes in datagrams is read on at `until`.
    pub(crate) fn hold_data(&self, now: Time, until: Time) {
        if until > now {
            let since = self.held_data.get().map_or(now, |(since, _)| since);
            self.held_data.set(Some((since, until)));
        }
    }

    /// For how long it waited, if that is over; each wait is told of once.
    pub(crate) fn take_held_data(&self, now: Time) -> Duration {
        let over = self.held_data.get().filter(|&(_, until)| until <= now);
        if over.is_some() {
            self.held_data.set(None);
        }
        over.map_or(Duration::ZERO, |(since, until)| until.since(since))
    }

    /// It waits for nothing any more.
    pub(crate) fn end_hold(&self, now: Time) {
        self.held_data.set(self.held_data.get().map(|(since, until)| (since, until.min(now))));
    }

    /// It has supplied so many bytes unasked.
    pub(crate) fn charge_unasked(&self, rate: Rate, now: Time, bytes: u64) {
        let mut slots = self.unasked.get();
        slots.charge(rate, now, bytes);
        self.unasked.set(slots);
    }

    /// When what it has supplied unasked is over at the rate.
    pub(crate) fn unasked_until(&self) -> Time {
        self.unasked.get().next()
    }

    /// Whether it supplies what was not asked for.
    pub(crate) fn brings_unasked(&self, now: Time) -> bool {
        let until = self.unasked_until();
        until > Time::ZERO && now < until + IN_TURN_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_comes_unasked_waits_at_the_rate_and_is_forgotten_a_second_later() {
        let (pace, rate) = (Pace::default(), Rate::new(1000).expect("more than nothing"));
        let now = Time::ZERO + SECOND / 2;
        assert!(!pace.brings_unasked(now), "it has brought nothing");
        pace.charge_unasked(rate, now, 5000);
        assert!(pace.unasked_until() > now + 4 * SECOND);
        assert!(pace.brings_unasked(pace.unasked_until() + SECOND / 2));
        assert!(!pace.brings_unasked(pace.unasked_until() + SECOND));
    }

    #[test]
    fn a_wait_to_be_read_is_told_of_once_when_it_is_over() {
        let (pace, now) = (Pace::default(), Time::ZERO + 100 * SECOND);
        pace.hold_data(now, now + 4 * SECOND);
        assert_eq!(pace.take_held_data(now + SECOND), Duration::ZERO);
        pace.hold_data(now + SECOND, now + 6 * SECOND);
        assert_eq!(pace.take_held_data(now + 7 * SECOND), 6 * SECOND);
        assert_eq!(pace.take_held_data(now + 7 * SECOND), Duration::ZERO);
        pace.hold_data(now, now + 4 * SECOND);
        pace.end_hold(now + SECOND);
        assert_eq!(pace.take_held_data(now + SECOND), SECOND, "it was let go before its time");
    }

    #[test]
    fn a_raised_limit_of_each_acts_at_once() {
        let (pace, rate) = (Pace::default(), Rate::new(1).expect("more than nothing"));
        let now = Time::ZERO + 100 * SECOND;
        for moved in [&pace.sent, &pace.received] {
            let mut slots = moved.get();
            slots.charge(rate, now, 1 << 20);
            moved.set(slots);
        }
        pace.charge_unasked(rate, now, 1 << 20);
        pace.begin_anew();
        let rate = Rate::new(1 << 20).expect("more than nothing");
        assert!(pace.sent.get().room_bytes(rate, now) > 0);
        assert!(pace.received.get().room_bytes(rate, now) > 0 && !pace.brings_unasked(now));
    }
}
