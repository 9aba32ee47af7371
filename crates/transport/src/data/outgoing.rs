//! What is under way of chunks, how much may be, and what came of it.
//!
//! Invariant: every datagram under way is in `in_flight`, by its number, and in the congestion
//! controller's count.

use std::{cell::Cell, collections::BTreeMap, ops::Range, rc::Rc};

use super::{
    congestion::{Congestion, CongestionControl, Mark},
    mtu::{LONGEST_BYTES, Mtu},
    sends::{Piece, Sends},
};
use crate::{
    payload::Payload,
    send_queue::{CutOff, SendEvent},
};
use relay_protocol::{
    PacketRange, datagram::DATA_DATAGRAM_OVERHEAD_BYTES, limits::DATAGRAM_BYTES_MAX, time::Time,
};

/// A datagram is lost when so many later ones have come (RFC 9002).
const LATER_PACKETS: u64 = 3;

/// Datagrams given up when nothing was acknowledged for long: enough to hear of the path.
const GIVEN_UP_PER_TIMEOUT: usize = 2;

/// After so many time-outs in a row the path has changed: it may carry less, or shorter ones.
const TIMEOUTS_PERSISTENT: u32 = 3;

/// Figures so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DataCounts {
    /// File bytes sent, repetitions included.
    pub sent_bytes: u64,
    /// File bytes of datagrams that were lost, or thought to be.
    pub lost_bytes: u64,
    /// File bytes that were sent again.
    pub resent_bytes: u64,
}

#[derive(Debug)]
enum Cargo {
    Data(Piece),
    Probe,
}

#[derive(Debug)]
struct Flight {
    cargo: Cargo,
    mark: Mark,
}

/// The sending half.
#[derive(Debug)]
pub struct DataOut {
    sends: Sends,
    in_flight: BTreeMap<u64, Flight>,
    control: CongestionControl,
    congestion: Congestion,
    mtu: Mtu,
    largest_acked: Option<u64>,
    /// Since when nothing was acknowledged though something is under way, and how often that was
    /// too long since the last acknowledgement.
    waits_since: Option<Time>,
    timeouts: u32,
    /// The system had no room for what was to be sent last.
    is_blocked: bool,
    /// The other side has no room, and will say when it has.
    is_closed: bool,
    /// When a piece may go that waits for nothing but its time, as of the last question for one. A
    /// caller that is told that none goes now must look at [`Self::poll_timeout`].
    departs_at: Cell<Option<Time>>,
    tally: Tally,
}

/// Figures so far, and what was told of them.
#[derive(Debug, Default)]
struct Tally {
    counts: DataCounts,
    told: DataCounts,
    /// File bytes lost since they were last asked for.
    lost_bytes: u64,
}

impl Tally {
    fn sent(&mut self, piece: &Piece) {
        let len = u64::from(piece.len_bytes());
        self.counts.sent_bytes += len;
        self.counts.resent_bytes += if piece.is_again { len } else { 0 };
    }

    fn unsent(&mut self, piece: &Piece) {
        let len = u64::from(piece.len_bytes());
        self.counts.sent_bytes -= len;
        self.counts.resent_bytes -= if piece.is_again { len } else { 0 };
    }

    fn lost(&mut self, range: &Range<u32>) {
        let len = u64::from(range.end - range.start);
        self.counts.lost_bytes += len;
        self.lost_bytes += len;
    }

    fn take(&mut self) -> DataCounts {
        let (now, before) = (self.counts, std::mem::replace(&mut self.told, self.counts));
        DataCounts {
            sent_bytes: now.sent_bytes - before.sent_bytes,
            lost_bytes: now.lost_bytes - before.lost_bytes,
            resent_bytes: now.resent_bytes - before.resent_bytes,
        }
    }
}

fn new_congestion(control: CongestionControl) -> Congestion {
    Congestion::new(control, u16::try_from(DATAGRAM_BYTES_MAX).expect("a short datagram"))
}

impl DataOut {
    /// Nothing to send, over a path of which nothing is known.
    #[must_use]
    pub fn new(control: CongestionControl) -> Self {
        Self {
            sends: Sends::default(),
            in_flight: BTreeMap::new(),
            control,
            congestion: new_congestion(control),
            mtu: Mtu::default(),
            largest_acked: None,
            waits_since: None,
            timeouts: 0,
            is_blocked: false,
            is_closed: false,
            departs_at: Cell::new(None),
            tally: Tally::default(),
        }
    }

    /// A chunk from `offset` (a whole number of frames) on.
    ///
    /// # Panics
    /// If `offset` is not the start of a frame of this chunk.
    pub fn push(&mut self, payload: Rc<Payload>, tag: u32, offset: u32) {
        self.sends.push(payload, tag, offset);
    }

    /// Everything that was pushed has arrived, or was cut off.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// Figures so far.
    #[must_use]
    pub fn counts(&self) -> DataCounts {
        self.tally.counts
    }

    /// Figures since the last time.
    pub fn take_counts(&mut self) -> DataCounts {
        self.tally.take()
    }

    /// File bytes that were lost since this was last asked: they are under way no longer.
    pub fn take_lost_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.tally.lost_bytes)
    }

    /// The next thing that happened to a send.
    pub fn poll_event(&mut self) -> Option<SendEvent> {
        self.sends.poll_event()
    }

    /// The longest datagram that may be made now.
    #[must_use]
    pub fn datagram_bytes(&self) -> usize {
        self.mtu.datagram_bytes()
    }

    /// Cuts off the send with this tag.
    pub fn cancel(&mut self, tag: u32) -> Option<CutOff> {
        self.sends.cancel(tag)
    }

    /// Cuts off the send of this chunk, if there is one.
    pub fn recall(&mut self, chunk: u32) -> Option<CutOff> {
        self.sends.recall(chunk)
    }

    /// Sends no more of this chunk, if there is a send of it: its receiver has spoken of it. What is under
    /// way counts as reached.
    pub fn drop_rest(&mut self, chunk: u32) -> Option<CutOff> {
        self.sends.drop_rest(chunk)
    }

    /// Drops all sends: the connection is about to end.
    pub fn drop_data(&mut self) {
        self.sends.clear();
    }

    /// File bytes of the smallest piece that could go next: the window must have room for them.
    #[must_use]
    pub fn next_piece_len(&self) -> Option<u32> {
        self.sends.next_piece_len()
    }

    /// The next piece, at most `data_bytes_max` long (the other side's window, which is the caller's
    /// business), if the path takes it now. If it will do so by time alone, [`Self::poll_timeout`]
    /// says when.
    #[must_use]
    pub fn peek_piece(&self, now: Time, data_bytes_max: u64) -> Option<Piece> {
        self.departs_at.set(None);
        let least = self.next_piece_len()?;
        let fits = self.congestion.room() >= self.mtu.datagram_bytes() as u64;
        let may_send = !self.is_blocked && !self.is_closed;
        let takes = (fits || self.congestion.is_idle()) && may_send;
        if u64::from(least) > data_bytes_max || !takes {
            return None;
        }
        self.departs_at.set(self.congestion.departs_at(now));
        if self.departs_at.get().is_some() {
            return None;
        }
        let longest = self.mtu.datagram_bytes() - DATA_DATAGRAM_OVERHEAD_BYTES;
        let most = u32::try_from(data_bytes_max.min(longest as u64)).expect("a datagram");
        self.sends.next_piece(most)
    }

    /// Appends the piece to a datagram.
    ///
    /// # Panics
    /// If it was not peeked just now, or its bytes were withdrawn without being cut off.
    pub fn write_piece(&self, piece: &Piece, out: &mut Vec<u8>) {
        self.sends.write_piece(piece, out);
    }

    /// The piece went out, in a datagram of this number and length.
    pub fn handle_sent(&mut self, now: Time, number: u64, datagram_bytes: usize, piece: &Piece) {
        self.tally.sent(piece);
        self.sends.handle_sent(piece);
        let has_more = self.sends.lacks_any();
        let bytes = u32::try_from(datagram_bytes).expect("a datagram");
        let mark = self.congestion.handle_sent(now, bytes, has_more);
        let cargo = Cargo::Data(piece.clone());
        self.in_flight.insert(number, Flight { cargo, mark });
        self.waits_since.get_or_insert(now);
    }

    /// The system had no room for these packets, this one and all later ones: they did not go out, and
    /// that says nothing about the path. Nothing is sent until [`Self::handle_writable`].
    pub fn handle_unsent(&mut self, first: u64) {
        self.is_blocked = true;
        for (_, Flight { cargo, mark }) in self.in_flight.split_off(&first).into_iter().rev() {
            match cargo {
                Cargo::Probe => self.mtu.handle_probe_unsent(),
                Cargo::Data(piece) => {
                    self.tally.unsent(&piece);
                    self.congestion.handle_forgotten(mark);
                    self.sends.handle_unsent(&piece);
                }
            }
        }
        self.rest();
    }

    /// The system may have room again.
    pub fn handle_writable(&mut self) {
        self.is_blocked = false;
    }

    /// The length of the probe that is to be sent now, if any.
    pub fn poll_probe(&mut self, now: Time) -> Option<usize> {
        // Only a side that sends data needs to know.
        if self.wants_none() { None } else { self.mtu.poll_probe(now) }
    }

    fn wants_none(&self) -> bool {
        self.sends.is_empty() || self.is_blocked || self.is_closed
    }

    /// It went out.
    pub fn handle_probe_sent(&mut self, now: Time, number: u64) {
        self.mtu.handle_probe_sent(now, number);
        let mark = Mark::of_probe(now);
        self.in_flight.insert(number, Flight { cargo: Cargo::Probe, mark });
    }

    /// The system refuses a datagram for its length.
    pub fn handle_refused(&mut self) {
        if self.mtu.handle_refused() {
            self.length_changed();
        }
    }

    fn length_changed(&mut self) {
        let bytes = u16::try_from(self.mtu.datagram_bytes()).expect("a datagram");
        self.congestion.set_datagram_bytes_max(bytes);
    }

    /// The other side has received these packets; numbers that were never used are ignored. Without room it is sent
    /// nothing until it says that it has some.
    pub fn handle_acked(&mut self, now: Time, room_bytes: u32, ranges: &[PacketRange]) {
        self.is_closed = room_bytes == 0;
        self.congestion.set_room(u64::from(room_bytes).max(LONGEST_BYTES as u64));
        let (mut newest, mut bytes) = (None, 0);
        for range in ranges {
            let end = range.first.saturating_add(u64::from(range.count));
            let numbers: Vec<u64> =
                self.in_flight.range(range.first..end).map(|(&number, _)| number).collect();
            for number in numbers {
                let Some(flight) = self.in_flight.remove(&number) else { continue };
                self.largest_acked = self.largest_acked.max(Some(number));
                match flight.cargo {
                    Cargo::Probe => {
                        if self.mtu.handle_acked(number) {
                            self.length_changed();
                        }
                    }
                    Cargo::Data(Piece { send, range, .. }) => {
                        bytes += u64::from(flight.mark.bytes);
                        let is_newer = |(newest, _): &(u64, Mark)| *newest < number;
                        if newest.as_ref().is_none_or(is_newer) {
                            newest = Some((number, flight.mark));
                        }
                        self.sends.handle_arrived(send, &range);
                    }
                }
            }
        }
        if let Some((_, mark)) = newest {
            self.congestion.handle_acked(now, bytes, mark);
            self.timeouts = 0;
            self.waits_since = Some(now);
        }
        self.detect_lost(now);
    }

    /// What was sent long enough before something that came is lost.
    fn detect_lost(&mut self, now: Time) {
        let Some(largest) = self.largest_acked else { return };
        let delay = self.congestion.loss_delay();
        let is_lost = |number: u64, flight: &Flight| {
            largest - number >= LATER_PACKETS || now.since(flight.mark.at) >= delay
        };
        let lost: Vec<u64> = self
            .in_flight
            .range(..largest)
            .filter(|(number, flight)| is_lost(**number, flight))
            .map(|(&number, _)| number)
            .collect();
        let is_persistent = self.timeouts >= TIMEOUTS_PERSISTENT;
        let mut before = None;
        for number in lost {
            let Some(flight) = self.in_flight.remove(&number) else { continue };
            // A probe that was lost tells about its length, not about the path's rate.
            if let Cargo::Data(Piece { send, range, .. }) = flight.cargo {
                let is_first = before != Some(number.wrapping_sub(1));
                self.congestion.handle_lost(now, flight.mark, is_first, is_persistent);
                self.lost(send, &range);
                before = Some(number);
            }
        }
        self.rest();
    }

    fn lost(&mut self, id: u64, range: &Range<u32>) {
        self.tally.lost(range);
        self.sends.handle_lost(id, range);
    }

    /// Stops the wait if no data is under way.
    fn rest(&mut self) {
        let is_data = |flight: &Flight| matches!(flight.cargo, Cargo::Data(_));
        if !self.in_flight.values().any(is_data) {
            self.waits_since = None;
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.detect_lost(now);
        self.mtu.handle_timeout(now);
        self.departs_at.set(self.departs_at.get().filter(|&at| at > now));
        let patience = self.congestion.probe_timeout(self.timeouts);
        let is_overdue = self.waits_since.is_some_and(|since| now.since(since) >= patience);
        if !is_overdue {
            return;
        }
        self.timeouts += 1;
        self.waits_since = Some(now);
        if self.timeouts == TIMEOUTS_PERSISTENT && self.mtu.fall_back() {
            self.length_changed();
        }
        let oldest: Vec<u64> = self.in_flight.keys().copied().take(GIVEN_UP_PER_TIMEOUT).collect();
        self.give_up(&oldest);
        self.rest();
    }

    /// These are sent again, which says nothing about the path.
    fn give_up(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(Flight { cargo: Cargo::Data(Piece { send, range, .. }), mark }) =
                self.in_flight.remove(number)
            {
                self.congestion.handle_forgotten(mark);
                self.lost(send, &range);
            }
        }
    }

    /// The other side is elsewhere: nothing is known of the path, and what is under way went to the
    /// old address.
    pub fn handle_path_changed(&mut self) {
        let all: Vec<u64> = self.in_flight.keys().copied().collect();
        self.give_up(&all);
        self.congestion = new_congestion(self.control);
        self.mtu = Mtu::default();
        (self.waits_since, self.timeouts) = (None, 0);
    }

    /// How often in a row nothing was acknowledged in time.
    #[must_use]
    pub fn timeouts(&self) -> u32 {
        self.timeouts
    }

    /// When [`Self::handle_timeout`] or a transmission is due though nothing happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let largest = self.largest_acked.unwrap_or(0);
        let delay = self.congestion.loss_delay();
        // They were sent in the order of their numbers.
        let lost = self.in_flight.range(..largest).next().map(|(_, f)| f.mark.at + delay);
        let patience = self.congestion.probe_timeout(self.timeouts);
        let overdue = self.waits_since.map(|since| since + patience);
        let probe = self.mtu.poll_timeout();
        [lost, overdue, self.departs_at.get(), probe].into_iter().flatten().min()
    }

    /// A probe is to be sent at once.
    #[must_use]
    pub fn wants_probe(&self) -> bool {
        !self.wants_none() && self.mtu.wants_probe()
    }

    /// Asserts what always holds.
    pub fn invariants(&self) {
        self.sends.invariants();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Sends what goes now; how many datagrams there were in all.
    fn send_all(out: &mut DataOut, now: Time, mut number: u64) -> u64 {
        while let Some(piece) = out.peek_piece(now, u64::MAX) {
            let bytes = DATA_DATAGRAM_OVERHEAD_BYTES + piece.len_bytes() as usize;
            out.handle_sent(now, number, bytes, &piece);
            number += 1;
        }
        number
    }

    /// The first round trip is long, as if the address had to be found out; then everything under way
    /// is acknowledged at once and soon. How often a piece had to wait for its time alone.
    fn waits_of(control: CongestionControl) -> u32 {
        let mut out = DataOut::new(control);
        out.push(Payload::with_crcs_of(0, vec![7; 2_000_000].into()), 0, 0);
        let mut now = Time::from_start(Duration::from_secs(1));
        let (mut sent, mut waits) = (0, 0);
        while !out.is_empty() {
            let first = sent;
            sent = send_all(&mut out, now, first);
            now = now + Duration::from_millis(if first == 0 { 50 } else { 1 });
            let all = PacketRange { first, count: u32::try_from(sent - first).expect("few") };
            out.handle_acked(now, u32::MAX, &[all]);
            if !out.is_empty() && out.peek_piece(now, u64::MAX).is_none() {
                waits += 1;
                let due = out.poll_timeout().expect("nothing else will ever happen");
                assert!(due > now && due < now + Duration::from_secs(1), "{due:?} at {now:?}");
                now = due;
                out.handle_timeout(now);
            }
        }
        waits
    }

    #[test]
    fn what_waits_for_its_time_alone_is_planned_though_nothing_is_under_way() {
        for control in [CongestionControl::Cubic, CongestionControl::Bbr] {
            assert!(waits_of(control) > 0, "{control:?} paces");
        }
    }
}
