//! The three lanes of control messages, both ways: from messages to frames of packets, and back.
//!
//! Pure. Which packets came or were lost is told here; why, is [`super::recovery`]'s business.

use super::{
    lanes_in::{InOrder, Latest, Prompt},
    lanes_out::{LaneOut, LatestOut},
    outcome::DatagramError,
};
use crate::lane::Lane;
use relay_protocol::{
    DatagramFrame, DecodeError, Message, datagram::MESSAGE_FRAME_HEADER_BYTES, decode_body,
    encode_body,
};

/// Messages on their way in both directions.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    in_order: (LaneOut, InOrder),
    prompt: (LaneOut, Prompt),
    latest: (LatestOut, Latest),
    /// Messages that had to be said again, since this was last asked.
    resent: u64,
    /// Where messages are encoded; empty between calls.
    body: Vec<u8>,
}

impl Lanes {
    /// A message to send.
    pub(super) fn push(&mut self, message: &Message) {
        self.body.clear();
        encode_body(message, &mut self.body);
        match Lane::of(message) {
            Lane::InOrder => self.in_order.0.push(&self.body),
            Lane::Prompt => self.prompt.0.push(&self.body),
            Lane::Latest => self.latest.0.push(&self.body),
        }
    }

    /// Bytes of messages that wait to be sent.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.in_order.0.waiting_bytes() + self.prompt.0.waiting_bytes()
    }

    /// Every message has arrived.
    pub(super) fn is_empty(&self) -> bool {
        self.in_order.0.is_empty() && self.prompt.0.is_empty() && self.latest.0.is_empty()
    }

    /// A message is to be sent.
    pub(super) fn has_content(&self) -> bool {
        self.latest.0.peek().is_some()
            || self.prompt.0.peek().is_some()
            || self.in_order.0.peek().is_some()
    }

    /// Messages that had to be said again, since this was last asked.
    pub(super) fn take_resent(&mut self) -> u64 {
        std::mem::take(&mut self.resent)
    }

    /// A message came; it goes to `handler`, with those that have waited for it.
    pub(super) fn handle_message<E>(
        &mut self,
        frame: &DatagramFrame<'_>,
        handler: &mut impl FnMut(Message) -> Result<(), E>,
    ) -> Result<(), DatagramError<E>> {
        let decode = |body: &[u8]| {
            decode_body(body).map_err(|error| DatagramError::Decode(DecodeError::Message(error)))
        };
        match *frame {
            DatagramFrame::InOrder { number, body } => {
                let lane = &mut self.in_order.1;
                if !lane.is_known(number)? {
                    lane.insert(number, decode(body)?);
                }
                while let Some(message) = lane.pop() {
                    handler(message).map_err(DatagramError::Handler)?;
                }
            }
            DatagramFrame::Prompt { number, body } if self.prompt.1.insert(number)? => {
                handler(decode(body)?).map_err(DatagramError::Handler)?;
            }
            DatagramFrame::Latest { number, body } if self.latest.1.insert(number) => {
                handler(decode(body)?).map_err(DatagramError::Handler)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// These packets have come.
    pub(super) fn handle_acked(&mut self, packets: &[u64]) {
        self.in_order.0.handle_acked(packets);
        self.prompt.0.handle_acked(packets);
        self.latest.0.handle_acked(packets);
    }

    /// These packets are lost: what was in them is sent again.
    pub(super) fn handle_lost(&mut self, packets: &[u64]) {
        if packets.is_empty() {
            return;
        }
        self.resent += self.in_order.0.handle_lost(packets)
            + self.prompt.0.handle_lost(packets)
            + u64::from(self.latest.0.handle_lost(packets));
    }

    /// Puts into this packet, which may end at `end`, what there is to say and fits, what must not wait
    /// first; whether it was anything.
    pub(super) fn fill(&mut self, packet: u64, end: usize, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let fits =
            |out: &Vec<u8>, body: &[u8]| out.len() + MESSAGE_FRAME_HEADER_BYTES + body.len() <= end;
        while let Some((number, body)) = self.prompt.0.peek().filter(|(_, body)| fits(out, body)) {
            DatagramFrame::Prompt { number, body }.encode(out);
            self.prompt.0.handle_sent(number, packet);
        }
        if let Some((number, body)) = self.latest.0.peek().filter(|(_, body)| fits(out, body)) {
            DatagramFrame::Latest { number, body }.encode(out);
            self.latest.0.handle_sent(packet);
        }
        while let Some((number, body)) = self.in_order.0.peek().filter(|(_, body)| fits(out, body))
        {
            DatagramFrame::InOrder { number, body }.encode(out);
            self.in_order.0.handle_sent(number, packet);
        }
        out.len() > start
    }

    /// Asserts what always holds.
    pub(super) fn invariants(&self) {
        self.in_order.0.invariants();
        self.prompt.0.invariants();
    }
}
