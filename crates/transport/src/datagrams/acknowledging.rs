//! When what has come is acknowledged: soon, but of several packets at once where they come in a flow.
//!
//! Pure. What has come is [`super::packets`]' business.

use relay_protocol::{
    limits::{DATAGRAM_ACK_DELAY_MAX, DATAGRAM_ACK_QUIET, DATAGRAM_LANE_MAX},
    time::Time,
};

/// Packets that came without being acknowledged, at most: then the acknowledgement waits no longer.
const PACKETS_MAX: u32 = 8;

/// Messages in them, at most: a sender whose lane is full waits for the acknowledgement, and must not
/// wait for its delay as well.
const MESSAGES_MAX: u32 = DATAGRAM_LANE_MAX / 4;

/// What is owed of acknowledgements.
#[derive(Debug)]
pub(super) struct Acknowledging {
    packets: u32,
    messages: u32,
    due: Option<Time>,
    /// When it is due at the latest, whatever still comes.
    deadline: Time,
}

impl Acknowledging {
    /// Nothing has come.
    pub(super) fn new(now: Time) -> Self {
        Self { packets: 0, messages: 0, due: None, deadline: now }
    }

    /// A message came in a packet.
    pub(super) fn handle_message(&mut self) {
        self.messages += 1;
    }

    /// A packet came that asks for an acknowledgement. `is_disorder`: before or after its turn.
    pub(super) fn handle_packet(&mut self, now: Time, is_disorder: bool) {
        if self.due.is_none() {
            self.deadline = now + DATAGRAM_ACK_DELAY_MAX;
        }
        self.packets += 1;
        let is_much = self.packets >= PACKETS_MAX || self.messages >= MESSAGES_MAX;
        let due = if is_disorder || is_much {
            now
        } else {
            // In a flow one acknowledgement tells of many: each wakes the other side.
            self.deadline.min(now + DATAGRAM_ACK_QUIET)
        };
        // What is due by now is not put off by what came since.
        let planned = self.due.filter(|&planned| planned <= now);
        self.due = Some(planned.unwrap_or(due));
    }

    /// Something is to be acknowledged, now or later.
    pub(super) fn owes(&self) -> bool {
        self.packets > 0
    }

    /// When it is to be acknowledged.
    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }

    /// It is to be acknowledged now.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// All that came was acknowledged.
    pub(super) fn handle_sent(&mut self) {
        (self.packets, self.messages, self.due) = (0, 0, None);
    }
}
