//! How the library is set: what a connection may cost, how long it waits, how much it dares.

use std::{sync::Arc, time::Duration};

use quinn_proto::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, MtuDiscoveryConfig,
    RandomConnectionIdGenerator, ServerConfig, TransportConfig, VarInt,
    congestion::{BbrConfig, CubicConfig},
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use super::address::{Address, Ids};
use relay_protocol::{
    Channel, Side,
    limits::{
        DATAGRAM_KEEPALIVE_INTERVAL, DATAGRAM_SECRET_BYTES, DATAGRAM_SILENCE_TIMEOUT,
        DATAGRAM_STREAMS_MAX,
    },
};

/// Round trip before the first sample: a path across a continent. A wrong guess costs one early or late repetition.
const RTT_INITIAL: Duration = Duration::from_millis(100);

/// What both sides take in one datagram: the longest that UDP carries over IPv6 (RFC 9000, 18.2). A sender finds
/// out what the path takes.
const DATAGRAM_LONGEST_BYTES: u16 = 65_527;

/// Bytes of a datagram that every path carries (RFC 9000, 14), if the system can't say what the first link does.
const DATAGRAM_LEAST_BYTES: u16 = 1200;

/// A path that lost long datagrams is tried again with them after this: it may have been a storm that hit them.
const BLACK_HOLE_COOLDOWN: Duration = Duration::from_secs(10);

/// What QUIC keeps of messages, beside file bytes, until they have arrived.
pub(super) const MESSAGES_BYTES: u64 = 64 << 10;

/// Bytes that a side takes in unread, at least: messages, and datagrams of the longest.
pub(super) const ROOM_BYTES_MIN: u32 = 128 << 10;

/// Bytes of one stream, within what all have: no stream is longer, but for those of messages.
const STREAM_ROOM_BYTES: u32 = 512 << 10;

/// Bytes that a peer lets a relay elsewhere have under way: as much as a relay ever has to one peer.
const REMOTE_ROOM_BYTES: u32 = 4 << 20;

/// Datagrams of messages that the other side need not acknowledge before more come, or 25 ms pass: messages fill no
/// path, and each acknowledgement costs both sides a system call.
const MESSAGES_UNACKNOWLEDGED: u32 = 7;

/// Bytes of TLS's messages that come out of order are kept up to this.
const HANDSHAKE_BYTES_MAX: usize = 16 << 10;

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

/// Bytes of the longest datagram that is tried between ends on one machine, by one probe: the library looks at each byte
/// that only makes a datagram long. Such datagrams are as fast there as longer ones.
const LOCAL_BYTES_MAX: u16 = 33_000;

/// Streams of messages.
const LANES: u32 = 3;

/// An answer to what is of no connection costs a hash, and is thrown away: at most so often.
const RESET_INTERVAL: Duration = Duration::from_secs(3600);

/// Bytes of the longest datagram that is tried beyond one machine: what links carry that carry jumbo frames. The
/// library looks at each byte that only makes a datagram long, so longer ones would cost more than they bring.
const REMOTE_BYTES_MAX: u16 = 8_952;

/// Bytes under way before the first acknowledgement, between ends on one machine: no other's path is crowded.
const LOCAL_WINDOW_INITIAL: u64 = 256 << 10;

/// What the shell knows of the path and its socket.
#[derive(Clone, Copy, Debug)]
pub struct PathSettings {
    /// As the streams beside it.
    pub congestion: CongestionControl,
    /// What this side's socket holds of datagrams that were not read yet: the other side has no more under way.
    pub room_bytes: u32,
    /// Bytes of a datagram that the first link carries, if the system says so.
    pub datagram_bytes_max: Option<u16>,
    /// Both ends are on this machine.
    pub is_local: bool,
}

/// What the other side may have under way. On one machine all of that may lie in this side's socket; elsewhere most of
/// it is on the path.
fn room_bytes(side: Side, path: &PathSettings) -> u32 {
    match side {
        Side::Peer if !path.is_local => path.room_bytes.max(REMOTE_ROOM_BYTES),
        Side::Peer => path.room_bytes.max(ROOM_BYTES_MIN),
        // It says more when it asks for something, see `Datagrams::expect_data`.
        Side::Relay => ROOM_BYTES_MIN,
    }
}

/// Streams that the other side may have open.
fn streams_max(channel: Channel) -> u32 {
    if channel == Channel::Control { LANES } else { DATAGRAM_STREAMS_MAX }
}

/// Of one connection.
fn transport(side: Side, channel: Channel, path: &PathSettings) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let (mut cubic, mut bbr) = (CubicConfig::default(), BbrConfig::default());
    let carried = path.datagram_bytes_max.unwrap_or(DATAGRAM_LEAST_BYTES);
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.black_hole_cooldown(BLACK_HOLE_COOLDOWN);
    if path.is_local {
        cubic.initial_window(LOCAL_WINDOW_INITIAL);
        bbr.initial_window(LOCAL_WINDOW_INITIAL);
        let longest = carried.min(LOCAL_BYTES_MAX);
        // The search by halves ends where a step is less than this, but for one probe of the longest if that is as far
        // away: so that is the only one.
        let step = longest.saturating_sub(DATAGRAM_LEAST_BYTES).max(1);
        mtu.upper_bound(longest).minimum_change(step);
    } else {
        mtu.upper_bound(carried.min(REMOTE_BYTES_MAX));
    }
    match path.congestion {
        CongestionControl::Cubic => config.congestion_controller_factory(Arc::new(cubic)),
        CongestionControl::Bbr => config.congestion_controller_factory(Arc::new(bbr)),
    };
    let room = VarInt::from_u32(room_bytes(side, path));
    let silence = DATAGRAM_SILENCE_TIMEOUT.try_into().expect("less than a minute");
    config
        .mtu_discovery_config(Some(mtu))
        .initial_rtt(RTT_INITIAL)
        .max_idle_timeout(Some(silence))
        // A peer keeps the path through its address translator open.
        .keep_alive_interval((side == Side::Peer).then_some(DATAGRAM_KEEPALIVE_INTERVAL))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(streams_max(channel)))
        .stream_receive_window(VarInt::from_u32(STREAM_ROOM_BYTES))
        .send_window(MESSAGES_BYTES)
        .receive_window(room)
        // Chunks go one after the other: the first is whole the sooner.
        .send_fairness(false)
        .datagram_receive_buffer_size(None)
        .crypto_buffer_size(HANDSHAKE_BYTES_MAX)
        .allow_spin(false);
    if channel == Channel::Control {
        let mut acknowledging = AckFrequencyConfig::default();
        acknowledging.ack_eliciting_threshold(VarInt::from_u32(MESSAGES_UNACKNOWLEDGED));
        config.ack_frequency_config(Some(acknowledging));
        // None is longer than every path carries.
        config.mtu_discovery_config(None);
    }
    Arc::new(config)
}

/// Of the endpoint of one connection.
pub(super) fn endpoint(side: Side, address: Address) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(DATAGRAM_LONGEST_BYTES).expect("the longest that there is");
    config.min_reset_interval(RESET_INTERVAL);
    match side {
        Side::Relay => config.cid_generator(move || Box::new(Ids::new(address))),
        // A peer has a socket for each connection, so its datagrams need not name it.
        Side::Peer => config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(0))),
    };
    config
}

/// Of the relay's end.
pub(super) fn server(
    crypto: &Arc<QuicServerConfig>,
    channel: Channel,
    path: &PathSettings,
) -> Arc<ServerConfig> {
    let crypto: Arc<QuicServerConfig> = Arc::clone(crypto);
    let mut config = ServerConfig::with_crypto(crypto);
    config.transport_config(transport(Side::Relay, channel, path));
    // One peer is expected, and begins once: tokens for later connections would never be used.
    config.validation_token.sent(0);
    config.max_incoming(1).incoming_buffer_size(0);
    Arc::new(config)
}

/// Of the peer's end.
pub(super) fn client(
    crypto: QuicClientConfig,
    address: Address,
    secret: &[u8; DATAGRAM_SECRET_BYTES],
    (channel, path): (Channel, &PathSettings),
) -> ClientConfig {
    let mut config = ClientConfig::new(Arc::new(crypto));
    let first_id = address.first_id(secret);
    config.initial_dst_cid_provider(Arc::new(move || first_id));
    config.transport_config(transport(Side::Peer, channel, path));
    config
}
