//! Messages that came, by lane: each is handed on once, those in order in their order.
//!
//! Invariants: at most [`DATAGRAM_LANE_MAX`] messages are held back, none of them the next one.

use std::collections::BTreeMap;

use relay_protocol::{Message, limits::DATAGRAM_LANE_MAX};

/// A message is so far ahead of what has come that no sender would have sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a message runs ahead of its lane")]
pub struct RunsAhead;

/// The lane in order.
#[derive(Debug, Default)]
pub(crate) struct InOrder {
    /// Of the message that is to be handed on next.
    next: u32,
    /// How far ahead of it each is.
    held: BTreeMap<u32, Message>,
}

impl InOrder {
    /// Whether the message has come before; then its body need not be looked at.
    pub(crate) fn is_known(&self, number: u32) -> Result<bool, RunsAhead> {
        let ahead = number.wrapping_sub(self.next);
        if ahead > u32::MAX / 2 {
            return Ok(true);
        }
        if ahead >= DATAGRAM_LANE_MAX {
            return Err(RunsAhead);
        }
        Ok(self.held.contains_key(&ahead))
    }

    /// Takes a message that is not known.
    pub(crate) fn insert(&mut self, number: u32, message: Message) {
        let ahead = number.wrapping_sub(self.next);
        debug_assert!(ahead < DATAGRAM_LANE_MAX);
        self.held.insert(ahead, message);
    }

    /// The next message in order, if it is here.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let message = self.held.remove(&0)?;
        self.next = self.next.wrapping_add(1);
        let held = std::mem::take(&mut self.held);
        self.held = held.into_iter().map(|(ahead, message)| (ahead - 1, message)).collect();
        Some(message)
    }
}

/// The prompt lane: which numbers came.
#[derive(Debug, Default)]
pub(crate) struct Prompt {
    /// The first that has not come.
    next: u32,
    /// Bit `i`: number `next + 1 + i` has come.
    beyond: u64,
}

const _: () = assert!(DATAGRAM_LANE_MAX <= u64::BITS);

impl Prompt {
    /// Books the message; whether it is new.
    pub(crate) fn insert(&mut self, number: u32) -> Result<bool, RunsAhead> {
        let ahead = number.wrapping_sub(self.next);
        if ahead > u32::MAX / 2 {
            return Ok(false);
        }
        if ahead >= DATAGRAM_LANE_MAX {
            return Err(RunsAhead);
        }
        if ahead > 0 {
            let bit = 1 << (ahead - 1);
            let is_new = self.beyond & bit == 0;
            self.beyond |= bit;
            return Ok(is_new);
        }
        let run = self.beyond.trailing_ones();
        self.next = self.next.wrapping_add(1 + run);
        // A run of all 64 would shift everything out, which Rust calls an overflow.
        self.beyond = self.beyond.checked_shr(run + 1).unwrap_or(0);
        Ok(true)
    }
}

/// The lane of which the newest counts.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    newest: u32,
}

impl Latest {
    /// Books the message; whether it is newer than all before.
    pub(crate) fn insert(&mut self, number: u32) -> bool {
        let is_newer = number.wrapping_sub(self.newest).wrapping_sub(1) < u32::MAX / 2;
        if is_newer {
            self.newest = number;
        }
        is_newer
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The numbers below 500 in an order in which none runs ahead, with repetitions.
    fn arrivals() -> impl Strategy<Value = Vec<u32>> {
        prop::collection::vec(0_u32..DATAGRAM_LANE_MAX - 1, 500..1500).prop_map(|jumps| {
            let (mut missing, mut numbers) = ((0..500).collect::<BTreeSet<u32>>(), Vec::new());
            for jump in jumps {
                let Some(&first) = missing.first() else { break };
                let number = (first + jump).min(499);
                missing.remove(&number);
                numbers.push(number);
            }
            numbers.extend(missing);
            numbers
        })
    }

    proptest! {
        #[test]
        fn however_they_come_each_is_handed_on_once_and_in_order(numbers in arrivals()) {
            let (mut lane, mut prompt, mut out, mut seen) =
                (InOrder::default(), Prompt::default(), Vec::new(), BTreeSet::new());
            for number in numbers {
                if !lane.is_known(number).expect("within the lane") {
                    lane.insert(number, Message::Ping { token: u64::from(number) });
                }
                prop_assert_eq!(prompt.insert(number), Ok(seen.insert(number)));
                while let Some(Message::Ping { token }) = lane.pop() {
                    out.push(token);
                }
                prop_assert!(lane.held.len() < DATAGRAM_LANE_MAX as usize);
            }
            prop_assert_eq!(out, (0..500).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn who_runs_ahead_is_refused_and_what_is_old_is_known() {
        let lane = InOrder::default();
        assert_eq!(lane.is_known(DATAGRAM_LANE_MAX), Err(RunsAhead));
        assert_eq!(lane.is_known(u32::MAX), Ok(true));
        let mut prompt = Prompt::default();
        assert_eq!(prompt.insert(DATAGRAM_LANE_MAX), Err(RunsAhead));
        (1..DATAGRAM_LANE_MAX).for_each(|number| assert_eq!(prompt.insert(number), Ok(true)));
        assert_eq!(prompt.insert(0), Ok(true));
        assert_eq!(prompt.insert(DATAGRAM_LANE_MAX - 1), Ok(false));
        assert_eq!(prompt.insert(DATAGRAM_LANE_MAX), Ok(true));
    }

    #[test]
    fn an_older_latest_is_left_out() {
        let mut latest = Latest::default();
        assert!(latest.insert(1) && latest.insert(5));
        assert!(!latest.insert(5) && !latest.insert(3));
        assert!(latest.insert(6));
    }
}
