//! The control messages: one closed enum, everything that may pass between a relay and a peer
//! beside file bytes. What each means is said here; how it is written, in [`super::codec`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    auth::TokenDemand,
    key::{Digest, SwarmKey},
    limits::FAILURE_TEXT_BYTES_MAX,
};

/// One control message. Each says which side sends it; from the other side it is an error.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Relay, first of all.
    Welcome(Welcome),
    /// Peer, in answer to the welcome.
    Hello(Hello),
    /// Peer, after a hello with [`Claims::Some`], until the whole bitfield was sent in order.
    BitfieldPart {
        /// Where in the bitfield the bytes belong.
        offset_bytes: u32,
        /// The bytes; bit `i % 8` (from the lowest) of byte `i / 8` stands for chunk `i`.
        bytes: Vec<u8>,
    },
    /// Relay, when the hello (and its bitfield) was accepted. The peer may now send anything.
    Accepted(Accepted),
    /// Either side asks the other for the list of digests. The relay answers when it has it; a
    /// peer without it answers [`Message::ManifestRefused`].
    ManifestRequest,
    /// A part of the list of digests, in order.
    ManifestPart {
        /// Chunk that the first digest belongs to.
        first_chunk: u32,
        /// Digests of that chunk and of those that follow.
        digests: Vec<Digest>,
    },
    /// Peer: it has no manifest (yet).
    ManifestRefused,
    /// Peer. Both figures are cumulative over the connection and only grow: a lost or repeated
    /// one does no harm.
    Progress {
        /// Payload bytes of data frames that the peer has taken in.
        received_bytes: u64,
        /// Payload bytes that the peer is ready to have taken in.
        granted_bytes: u64,
    },
    /// Peer: it has verified (or had all along) these chunks and can supply them.
    Have {
        /// The chunks, as a set.
        ranges: Vec<ChunkRange>,
    },
    /// Peer in peer order: it wants these chunks, in this order, after those it named before.
    Want {
        /// Chunk indices; those wanted already or held are ignored.
        chunks: Vec<u32>,
    },
    /// Peer: it could not put together a chunk that was delivered (a partial was dropped): it is
    /// lacking again from the first byte.
    Lacking {
        /// The chunk.
        chunk: u32,
    },
    /// Relay asks a holder for a chunk: data frames tagged with the id are the answer.
    Fetch {
        /// Names this fetch on this connection; never reused.
        fetch_id: u32,
        /// The chunk, whole.
        chunk: u32,
    },
    /// Relay: this fetch is no longer of use. Frames already under way are discarded.
    CancelFetch {
        /// The fetch.
        fetch_id: u32,
    },
    /// Peer: it can't answer this fetch.
    FetchRefused {
        /// The fetch.
        fetch_id: u32,
    },
    /// Relay: no connected peer holds these chunks; the peer waits in vain unless a holder
    /// comes. After `deadline_ms` the relay ends the wait with [`FailureCode::ChunksMissing`].
    Waiting {
        /// Number of chunks that the peer lacks and no peer holds.
        missing_count: u32,
        /// The first of them.
        first_missing: u32,
        /// How much longer the relay waits.
        deadline_ms: u32,
    },
    /// Relay to an origin that stated [`Seeding::Spread`]: every part was acknowledged.
    SeedingDone,
    /// Peer: it would like to go.
    Leaving,
    /// Relay: no connected peer depends on this one: it may go.
    LeaveGranted,
    /// Peer asks for the relay's counters.
    StatsRequest,
    /// Relay: its counters, of the whole process.
    Stats(Box<Stats>),
    /// Either side; answered by [`Message::Pong`] with the same token.
    Ping {
        /// Echoed.
        token: u64,
    },
    /// The answer to [`Message::Ping`].
    Pong {
        /// From the ping.
        token: u64,
    },
    /// Either side, last of all: why it closes the connection.
    Failure(Failure),
    /// Peer asks how far its swarm is.
    SwarmStatusRequest,
    /// Relay: how far the swarm is.
    SwarmStatus(SwarmStatus),
    /// Peer, right before its hello: it wants a channel in datagrams, or both.
    DatagramRequest {
        /// Which; what is not named stays on the stream.
        channel: Channel,
    },
    /// Relay, right before it accepts a peer that asked for datagrams.
    DatagramOffer(DatagramOffer),
    /// Peer that states a [`Seeding`]: what its user would have the file called where people watch the relay.
    Label {
        /// See [`super::check_label`].
        text: String,
    },
    /// Peer, right before its hello and again when it changes: it is an end of an uplink, and stands for the peers
    /// of another relay. It chooses its order, and needs nothing that it has not named.
    Uplink {
        /// The relays whose peers it stands for, their own first: random numbers that each makes at its start; of very
        /// many some. The end at the own relay names none.
        below: Vec<u64>,
    },
    /// Relay to an end of an uplink: whether other peers of the swarm hold these chunks. Until told otherwise they
    /// hold none.
    Available {
        /// The chunks, as a set.
        ranges: Vec<ChunkRange>,
        /// They do, or they do no longer.
        held: bool,
    },
    /// An end of an uplink: it can no longer supply these chunks, and wants none of them that it had named.
    Lost {
        /// The chunks, as a set.
        ranges: Vec<ChunkRange>,
    },
}

/// The two ends of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The side that accepted it.
    Relay,
    /// The side that connected.
    Peer,
}

impl Message {
    /// What it is called, for errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "Welcome",
            Self::Hello(_) => "Hello",
            Self::BitfieldPart { .. } => "BitfieldPart",
            Self::Accepted(_) => "Accepted",
            Self::ManifestRequest => "ManifestRequest",
            Self::ManifestPart { .. } => "ManifestPart",
            Self::ManifestRefused => "ManifestRefused",
            Self::Progress { .. } => "Progress",
            Self::Have { .. } => "Have",
            Self::Want { .. } => "Want",
            Self::Lacking { .. } => "Lacking",
            Self::Fetch { .. } => "Fetch",
            Self::CancelFetch { .. } => "CancelFetch",
            Self::FetchRefused { .. } => "FetchRefused",
            Self::Waiting { .. } => "Waiting",
            Self::SeedingDone => "SeedingDone",
            Self::Leaving => "Leaving",
            Self::LeaveGranted => "LeaveGranted",
            Self::StatsRequest => "StatsRequest",
            Self::Stats(_) => "Stats",
            Self::Ping { .. } => "Ping",
            Self::Pong { .. } => "Pong",
            Self::Failure(_) => "Failure",
            Self::SwarmStatusRequest => "SwarmStatusRequest",
            Self::SwarmStatus(_) => "SwarmStatus",
            Self::DatagramRequest { .. } => "DatagramRequest",
            Self::DatagramOffer(_) => "DatagramOffer",
            Self::Label { .. } => "Label",
            Self::Uplink { .. } => "Uplink",
            Self::Available { .. } => "Available",
            Self::Lost { .. } => "Lost",
        }
    }

    /// Whether this side may send such a message at all. From the other it is an error.
    #[must_use]
    pub fn may_come_from(&self, side: Side) -> bool {
        match self {
            Self::Welcome(_)
            | Self::Accepted(_)
            | Self::Fetch { .. }
            | Self::CancelFetch { .. }
            | Self::Waiting { .. }
            | Self::SeedingDone
            | Self::LeaveGranted
            | Self::DatagramOffer(_)
            | Self::Available { .. }
            | Self::Stats(_)
            | Self::SwarmStatus(_) => side == Side::Relay,
            Self::Hello(_)
            | Self::BitfieldPart { .. }
            | Self::ManifestRefused
            | Self::Progress { .. }
            | Self::Have { .. }
            | Self::Want { .. }
            | Self::Lacking { .. }
            | Self::FetchRefused { .. }
            | Self::Leaving
            | Self::DatagramRequest { .. }
            | Self::StatsRequest
            | Self::Label { .. }
            | Self::Uplink { .. }
            | Self::Lost { .. }
            | Self::SwarmStatusRequest => side == Side::Peer,
            Self::ManifestRequest
            | Self::ManifestPart { .. }
            | Self::Ping { .. }
            | Self::Pong { .. }
            | Self::Failure(_) => true,
        }
    }
}

/// What a relay says first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Of which peers [`Hello::proof`] is wanted.
    pub token_demand: TokenDemand,
    /// Largest chunk that this relay's cache is fit for (an eighth of it); publishers choose
    /// within it. [`super::limits::CHUNK_SIZE_LOG2_SLACK`] above it is not refused yet.
    pub chunk_size_log2_max: u8,
}

/// How a peer introduces itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The swarm it joins; `None` joins none: such a connection may only ask for statistics.
    pub key: Option<SwarmKey>,
    /// That it knows a token: keyed BLAKE3 of what binds it to this TLS session, see [`super::Token::proof`].
    pub proof: Option<[u8; 32]>,
    /// Which chunks it has.
    pub claims: Claims,
    /// Which side chooses the order of its chunks.
    pub order: Order,
    /// The first publisher's wish how to begin; ignored once anything was delivered.
    pub seeding: Option<Seeding>,
}

/// Which chunks a peer has on joining.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Claims {
    /// None.
    Nothing,
    /// All of them.
    Everything,
    /// Those that the bitfield names, which follows in parts.
    Some,
}

/// Which side chooses the order of a peer's chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Order {
    /// The relay does: peers advance as one wave.
    #[default]
    Relay,
    /// The peer does, by [`Message::Want`].
    Peer,
}

/// How a swarm begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Seeding {
    /// Plain fan-out, the origin stays a holder among others.
    Origin,
    /// Each of the first peers gets its own part; then the origin may go.
    Spread {
        /// How many peers to wait for.
        peers: u32,
    },
}

/// The relay's consent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// Number of this connection in the relay's log.
    pub connection: u64,
}

/// What may run in datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Channel {
    /// Messages.
    Control,
    /// File bytes.
    Data,
    /// Both.
    Both,
}

/// How a peer's datagrams find the relay's end of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DatagramOffer {
    /// Which of the relay's shards serves the connection.
    pub shard: u8,
    /// Which of the shard's connections it is.
    pub connection: u64,
}

/// A run of chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkRange {
    /// The first.
    pub first: u32,
    /// How many, at least one.
    pub count: u32,
}

/// The relay process's counters; bytes are chunk payload only.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stats {
    /// Payload that came in.
    pub ingress_bytes: u64,
    /// Payload that went out.
    pub egress_bytes: u64,
    /// Deliveries whose chunk was cached when it was wanted.
    pub cache_hits: u64,
    /// Chunks that had to be fetched for a delivery.
    pub cache_misses: u64,
    /// Chunks dropped to make room.
    pub cache_evictions: u64,
    /// Chunk bytes in the process, the most so far.
    pub chunk_bytes_peak: u64,
    /// Resident memory, the most so far.
    pub rss_bytes_peak: u64,
    /// CPU time so far, in microseconds.
    pub cpu_us: u64,
    /// Hedged fetches.
    pub hedges: u64,
    /// Peers that were cut off for a wrong chunk.
    pub peers_banned: u64,
    /// Event loops.
    pub shards: u32,
    /// What drives them: `io-uring`, `epoll`, `kqueue`.
    pub driver: String,
    /// TCP congestion control of the listener.
    pub congestion: String,
}

/// What a relay knows of one swarm. It has known it since the first of the present peers came;
/// a relay that was restarted begins anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SwarmStatus {
    /// Peers that are connected, the asking one among them.
    pub peers: u32,
    /// Those of them that have the whole file.
    pub whole_peers: u32,
    /// Peers that had not the whole file when they came, and got it; they may have gone.
    pub copies: u32,
    /// Chunks that at least one peer got from the relay and verified.
    pub chunks_handed_out: u32,
}

/// Why a side closes the connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// For machines.
    pub code: FailureCode,
    /// For people: a lowercase fragment.
    pub text: String,
}

impl Failure {
    /// With a text of any length: what does not fit is cut off.
    #[must_use]
    pub fn new(code: FailureCode, text: impl Into<String>) -> Self {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(FAILURE_TEXT_BYTES_MAX));
        Self { code, text }
    }

    /// For people, who need not see its code: what the other side says, or what the code means if it says
    /// nothing. What could steer a terminal is shown as `?`.
    #[must_use]
    pub fn reason(&self) -> String {
        if self.text.is_empty() {
            return self.code.to_string();
        }
        self.text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
    }
}

impl fmt::Display for Failure {
    /// The text came from outside: what could steer a terminal is shown as `?`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.is_empty() {
            true => write!(f, "{}", self.code),
            false => write!(f, "{}: {}", self.code, self.reason()),
        }
    }
}

/// What went wrong, on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum FailureCode {
    /// The other side broke the protocol.
    Protocol,
    /// The proof was missing or wrong, or its token is not good for what the peer wants.
    TokenRefused,
    /// As many peers, or files, as the relay takes.
    TooManyPeers,
    /// The relay can't take this swarm: its chunks are too large for the cache. Or its origin
    /// has given the file up, and peers wait for chunks that no other peer holds.
    SwarmRefused,
    /// The peer supplied a wrong chunk or manifest and is cut off from this swarm.
    Banned,
    /// The peer took no byte for too long.
    Stalled,
    /// No peer holds the chunks that this one lacks, and the deadline has passed.
    ChunksMissing,
    /// The relay shuts down; come back later.
    ShuttingDown,
    /// A fault of the sender's own. A publisher says so when the file is no longer what it was.
    Internal,
    /// Bytes were damaged on the way: connect again.
    LinkCorrupt,
    /// The relay does not have the transport that the peer asked for.
    TransportRefused,
    /// Datagrams of the other side stopped coming.
    DatagramsSilent,
    /// The peer may only get, and no peer that may publish the file has begun its swarm.
    NotPublished,
    /// An uplink would close a circle of relays.
    UplinkRefused,
}

impl fmt::Display for FailureCode {
    /// For people, as a lowercase fragment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Protocol => "protocol error",
            Self::TokenRefused => "token refused",
            Self::TooManyPeers => "too many peers",
            Self::SwarmRefused => "swarm refused",
            Self::Banned => "banned for wrong content",
            Self::Stalled => "stalled",
            Self::ChunksMissing => "no peer holds the missing chunks",
            Self::ShuttingDown => "relay is shutting down",
            Self::Internal => "internal fault",
            Self::LinkCorrupt => "bytes were damaged on the way",
            Self::TransportRefused => "transport refused",
            Self::DatagramsSilent => "datagrams stopped coming",
            Self::NotPublished => "no peer that may publish this file has shared it here yet",
            Self::UplinkRefused => "uplink refused",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{FAILURE_TEXT_BYTES_MAX, Failure, FailureCode};

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let failure = Failure::new(FailureCode::Internal, "x".repeat(511) + "é" + "y");
        assert_eq!(failure.text, "x".repeat(511));
        assert!(failure.text.len() <= FAILURE_TEXT_BYTES_MAX);
    }

    #[test]
    fn a_text_from_outside_can_not_steer_the_terminal() {
        let failure = Failure::new(FailureCode::Stalled, "\u{1b}[2Jbye\n\u{9b}1m");
        assert_eq!(failure.to_string(), "stalled: ?[2Jbye??1m");
        assert_eq!(failure.reason(), "?[2Jbye??1m");
        let silent = Failure::new(FailureCode::Stalled, "");
        assert_eq!((silent.to_string(), silent.reason()), ("stalled".into(), "stalled".into()));
    }
}
