//! Datagrams on their way out: when there may be some, where they go, and what the system had no room for.

use quinn_proto::{Connection, ConnectionStats};

use super::{instant::instant, outcome::DataCounts};
use crate::lane::Route;
use relay_protocol::time::Time;

/// Bytes that one transmission may hold: what the system takes of equal datagrams in one call.
const TRANSMIT_BYTES_MAX: usize = 65_000;

/// Datagrams of equal length, the last one perhaps shorter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmission {
    /// Where they go.
    pub route: Route,
    /// How long each is.
    pub segment_bytes: usize,
}

/// The state of one connection's datagrams that go out.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Something has happened after which there may be something to send.
    pub(super) is_due: bool,
    /// Which of this side's sockets the other side uses.
    socket: u8,
    /// Made, and not taken by the system.
    unsent: Option<(Transmission, Vec<u8>)>,
    is_blocked: bool,
    /// Something was made that asks for an answer.
    has_asked: bool,
    /// Frames so far that ask for one.
    asked: u64,
    /// Bytes of a datagram on this path, as of the last that was made.
    longest_bytes: usize,
    told: DataCounts,
}

impl Outgoing {
    /// Nothing was sent. A peer begins at once.
    pub(super) fn new() -> Self {
        Self { is_due: true, ..Self::default() }
    }

    /// Whether the system takes datagrams, as far as is known.
    pub(super) fn may_send(&self) -> bool {
        !self.is_blocked
    }

    /// Something authentic came this way.
    pub(super) fn handle_heard(&mut self, route: Route, remote: Option<core::net::SocketAddr>) {
        if remote == Some(route.remote) {
            self.socket = route.socket;
        }
    }

    /// The next datagrams.
    pub(super) fn poll(
        &mut self,
        connection: &mut Connection,
        now: Time,
        segments_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<Transmission> {
        debug_assert!(out.is_empty());
        if let Some((transmission, bytes)) = self.unsent.take() {
            *out = bytes;
            return Some(transmission);
        }
        let longest = self.longest_bytes.max(1);
        let most = (TRANSMIT_BYTES_MAX / longest).clamp(1, segments_max.max(1));
        let Some(transmit) = connection.poll_transmit(instant(now), most, out) else {
            self.is_due = false;
            return None;
        };
        let stats = connection.stats();
        let asked = asks(&stats);
        self.has_asked |= asked > self.asked;
        (self.asked, self.longest_bytes) = (asked, usize::from(stats.path.current_mtu));
        let route =
            Route { socket: self.socket, remote: transmit.destination, local: transmit.src_ip };
        Some(Transmission { route, segment_bytes: transmit.segment_size.unwrap_or(transmit.size) })
    }

    /// Whether something was made that asks for an answer, since this was last asked.
    pub(super) fn take_asked(&mut self) -> bool {
        std::mem::take(&mut self.has_asked)
    }

    /// The system had no room for these.
    pub(super) fn handle_unsent(&mut self, transmission: Transmission, bytes: &mut Vec<u8>) {
        self.unsent = Some((transmission, std::mem::take(bytes)));
        (self.is_blocked, self.is_due) = (true, true);
    }

    /// The system has no room.
    pub(super) fn handle_full(&mut self) {
        self.is_blocked = true;
    }

    pub(super) fn socket(&self) -> u8 {
        self.socket
    }

    /// The system may have room again.
    pub(super) fn handle_writable(&mut self) {
        self.is_blocked = false;
    }

    /// Figures since the last time.
    pub(super) fn take_counts(&mut self, stats: &ConnectionStats) -> DataCounts {
        let now = DataCounts {
            lost_bytes: stats.path.lost_bytes,
            lost_datagrams: stats.path.lost_packets,
        };
        let before = std::mem::replace(&mut self.told, now);
        // Another path begins to count anew.
        DataCounts {
            lost_bytes: now.lost_bytes.saturating_sub(before.lost_bytes),
            lost_datagrams: now.lost_datagrams.saturating_sub(before.lost_datagrams),
        }
    }
}

/// Frames that went out and ask for an acknowledgement.
fn asks(stats: &ConnectionStats) -> u64 {
    let sent = &stats.frame_tx;
    let all = sent.stream + sent.ping + sent.crypto + sent.reset_stream;
    // Those that only try the path may well not come through.
    all - stats.path.sent_plpmtud_probes.min(all)
}
