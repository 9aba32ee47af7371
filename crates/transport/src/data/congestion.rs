//! How much may be under way: congestion control and pacing (CUBIC with slow start that ends early, or
//! BBR, both from s2n-quic), and what the other side's socket can hold.
//!
//! The library's types end here: times are ours, and nothing it wants to publish is of use.

use std::time::Duration;

use s2n_quic_core::{
    packet::number::PacketNumberSpace,
    random::Generator,
    recovery::{
        CongestionController, CubicCongestionController, RttEstimator,
        bandwidth::{Bandwidth, PacketInfo, RateSample},
        bbr::{self, BbrCongestionController},
        congestion_controller::Publisher,
        cubic::ApplicationSettings,
    },
    time::{Clock as _, NoopClock, Timestamp},
};

use relay_protocol::time::Time;

/// Round trip before the first sample: a path across a continent. A wrong guess costs one early
/// or late repetition.
const RTT_INITIAL: Duration = Duration::from_millis(100);

/// Least time that an acknowledgement may take beyond the round trip: a busy receiver's turn, and
/// the stream that it travels on.
const ACK_PATIENCE: Duration = Duration::from_millis(100);

/// Longest wait for an acknowledgement before something is sent again.
const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// Bytes that the other side's socket holds, before it says so: the least that systems give.
const ROOM_BYTES_INITIAL: u64 = 64 << 10;

/// So much earlier than planned a datagram may go.
const PACING_SLACK: Duration = Duration::from_millis(1);

/// Weight of a rate sample that is lower than the estimate: it takes some dozen acknowledgements to
/// believe that the path has become slower.
const RATE_DECAY: f64 = 1.0 / 16.0;

/// Which congestion control: that of the streams beside it, so that neither crowds the other out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CongestionControl {
    /// Fills the path's queue and gives way when something is lost.
    #[default]
    Cubic,
    /// Follows the path's rate and round trip.
    Bbr,
}

impl CongestionControl {
    /// The kin of what a system's TCP calls by this name.
    #[must_use]
    pub fn like_tcp(name: &str) -> Self {
        if name.starts_with("bbr") { Self::Bbr } else { Self::Cubic }
    }
}

#[derive(Debug)]
enum Controller {
    Cubic(CubicCongestionController),
    Bbr(Box<BbrCongestionController>),
}

/// Calls the one that there is.
macro_rules! of_either {
    ($controller:expr, $it:ident => $call:expr) => {
        match $controller {
            Controller::Cubic($it) => $call,
            Controller::Bbr($it) => $call,
        }
    };
}

/// The congestion state of one direction of one path.
#[derive(Debug)]
pub(super) struct Congestion {
    controller: Controller,
    rtt: RttEstimator,
    has_rtt: bool,
    room_bytes: u64,
    delivered_bytes: u64,
    rate_bytes_per_second: f64,
}

/// What is remembered of a datagram under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) at: Time,
    pub(super) bytes: u32,
    delivered_bytes: u64,
    /// What BBR wants to be told again.
    info: Option<PacketInfo>,
}

impl Mark {
    /// Of what the controller does not count.
    pub(super) fn of_probe(at: Time) -> Self {
        Self { at, bytes: 0, delivered_bytes: 0, info: None }
    }
}

impl Congestion {
    pub(super) fn new(control: CongestionControl, datagram_bytes_max: u16) -> Self {
        let bytes = datagram_bytes_max;
        let controller = match control {
            CongestionControl::Cubic => {
                let settings = ApplicationSettings::default();
                Controller::Cubic(CubicCongestionController::new(bytes, settings))
            }
            CongestionControl::Bbr => {
                let settings = bbr::ApplicationSettings::default();
                Controller::Bbr(Box::new(BbrCongestionController::new(bytes, settings)))
            }
        };
        Self {
            controller,
            rtt: RttEstimator::new(RTT_INITIAL),
            has_rtt: false,
            room_bytes: ROOM_BYTES_INITIAL,
            delivered_bytes: 0,
            rate_bytes_per_second: 0.0,
        }
    }

    /// The path carries longer datagrams, or only shorter ones.
    pub(super) fn set_datagram_bytes_max(&mut self, bytes: u16) {
        match &mut self.controller {
            Controller::Cubic(it) => it.on_mtu_update(bytes, &mut Silent),
            // Four of them must fit into what it counts them in.
            Controller::Bbr(it) => it.on_mtu_update(bytes.min(u16::MAX / 4), &mut Silent),
        }
    }

    /// What the other side's socket holds.
    pub(super) fn set_room(&mut self, bytes: u64) {
        self.room_bytes = bytes;
    }

    /// Bytes that may be sent now. What lies in the other side's socket is bounded by its room;
    /// beside that the path itself holds rate × round trip.
    pub(super) fn room(&self) -> u64 {
        let in_flight = u64::from(self.bytes_in_flight());
        let on_path = self.rate_bytes_per_second * self.rtt.min_rtt().as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of bytes, never negative"
        )]
        let holds = self.room_bytes + if self.has_rtt { on_path as u64 } else { 0 };
        let window = of_either!(&self.controller, it => it.congestion_window());
        holds.min(u64::from(window)).saturating_sub(in_flight)
    }

    fn bytes_in_flight(&self) -> u32 {
        of_either!(&self.controller, it => it.bytes_in_flight())
    }

    /// Nothing is under way, so that even a datagram that does not fit may go.
    pub(super) fn is_idle(&self) -> bool {
        self.bytes_in_flight() == 0
    }

    /// When the next datagram may go, if it must wait.
    pub(super) fn departs_at(&self, now: Time) -> Option<Time> {
        let at = of_either!(&self.controller, it => it.earliest_departure_time())?;
        let at = Time::from_start(at - NoopClock.get_time());
        // Timers are coarse, and a burst of a millisecond does no harm.
        (at > now + PACING_SLACK).then_some(at)
    }

    /// A datagram goes out.
    pub(super) fn handle_sent(&mut self, now: Time, bytes: u32, has_more: bool) -> Mark {
        let at = stamp(now);
        let (len, is_last) = (bytes as usize, Some(!has_more));
        let info = match &mut self.controller {
            Controller::Cubic(it) => {
                it.on_packet_sent(at, len, is_last, &self.rtt, &mut Silent);
                None
            }
            Controller::Bbr(it) => {
                Some(it.on_packet_sent(at, len, is_last, &self.rtt, &mut Silent))
            }
        };
        Mark { at: now, bytes, delivered_bytes: self.delivered_bytes, info }
    }

    /// The other side has these; `newest` was sent last of them.
    pub(super) fn handle_acked(&mut self, now: Time, bytes: u64, newest: Mark) {
        self.delivered_bytes += bytes;
        let took = now.since(newest.at).max(Duration::from_micros(1));
        let (sent, came) = (stamp(newest.at), stamp(now));
        let space = PacketNumberSpace::ApplicationData;
        self.rtt.update_rtt(Duration::ZERO, took, came, true, space);
        self.has_rtt = true;
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let (rtt, chance, silent) = (&self.rtt, &mut NoChance, &mut Silent);
        of_either!(&mut self.controller, it => it.on_rtt_update(sent, came, rtt, silent));
        match (&mut self.controller, newest.info) {
            (Controller::Bbr(it), Some(info)) => {
                it.on_ack(sent, bytes, info, rtt, chance, came, silent);
            }
            (Controller::Cubic(it), _) => {
                let rtt = &steady(rtt.smoothed_rtt(), came);
                it.on_ack(sent, bytes, (), rtt, chance, came, silent);
            }
            (Controller::Bbr(_), None) => {}
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let delivered = (self.delivered_bytes - newest.delivered_bytes) as f64;
        let rate = delivered / took.as_secs_f64();
        if rate >= self.rate_bytes_per_second {
            self.rate_bytes_per_second = rate;
        } else {
            self.rate_bytes_per_second += RATE_DECAY * (rate - self.rate_bytes_per_second);
        }
    }

    /// One of them was lost; `is_first` of a row, `is_persistent` if nothing came through for long.
    pub(super) fn handle_lost(
        &mut self,
        now: Time,
        mark: Mark,
        is_first: bool,
        is_persistent: bool,
    ) {
        let (bytes, at) = (mark.bytes, stamp(now));
        let (chance, silent) = (&mut NoChance, &mut Silent);
        match (&mut self.controller, mark.info) {
            (Controller::Bbr(it), Some(info)) => {
                it.on_packet_lost(bytes, info, is_persistent, is_first, chance, at, silent);
            }
            (Controller::Cubic(it), _) => {
                it.on_packet_lost(bytes, (), is_persistent, is_first, chance, at, silent);
            }
            (Controller::Bbr(_), None) => {}
        }
    }

    /// It is under way no longer, which tells nothing about the path.
    pub(super) fn handle_forgotten(&mut self, mark: Mark) {
        let bytes = mark.bytes as usize;
        of_either!(&mut self.controller, it => it.on_packet_discarded(bytes, &mut Silent));
    }

    /// After so long a datagram is lost if a later one has come.
    pub(super) fn loss_delay(&self) -> Duration {
        let rtt = self.rtt.smoothed_rtt().max(self.rtt.latest_rtt());
        (rtt * 9 / 8).max(Duration::from_millis(1))
    }

    /// After so long without any acknowledgement something is sent again.
    pub(super) fn probe_timeout(&self, count: u32) -> Duration {
        let base = self.rtt.pto_period(1, PacketNumberSpace::ApplicationData) + ACK_PATIENCE;
        base.saturating_mul(1 << count.min(6)).min(PROBE_TIMEOUT_MAX.max(base))
    }
}

/// The round trip as CUBIC is to grow by: its window is compared with one that grows by so much each
/// round trip (RFC 8312, 4.2), for which the library takes the least one ever seen. On a short path with
/// a long queue that is hundreds of times too much: it would take whatever others give way to.
fn steady(rtt: Duration, at: Timestamp) -> RttEstimator {
    let mut steady = RttEstimator::new(rtt);
    steady.update_rtt(Duration::ZERO, rtt, at, true, PacketNumberSpace::ApplicationData);
    steady
}

fn stamp(time: Time) -> Timestamp {
    NoopClock.get_time() + Duration::from_nanos(time.0)
}

/// Hears what the library wants to publish.
struct Silent;

impl Publisher for Silent {
    fn on_slow_start_exited(
        &mut self,
        _: s2n_quic_core::event::builder::SlowStartExitCause,
        _: u32,
    ) {
    }

    fn on_delivery_rate_sampled(&mut self, _: RateSample) {}

    fn on_pacing_rate_updated(&mut self, _: Bandwidth, _: u32, _: num_rational::Ratio<u64>) {}

    fn on_bbr_state_changed(&mut self, _: s2n_quic_core::event::builder::BbrState) {}
}

/// CUBIC draws no lots, and BBR need not: when it probes matters little. A run can be replayed.
struct NoChance;

impl Generator for NoChance {
    fn public_random_fill(&mut self, dest: &mut [u8]) {
        dest.fill(0);
    }

    fn private_random_fill(&mut self, dest: &mut [u8]) {
        dest.fill(0);
    }
}
