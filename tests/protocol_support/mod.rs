//! What the protocol's tests share: arbitrary messages and frames within all limits, and a decoder
//! that is fed in pieces and checked after each. It contains no test.

#![expect(clippy::unwrap_used, reason = "a test that can't go on ends")]

use proptest::{collection::vec, option, prelude::*, string::string_regex};
use relay::protocol::{
    Accepted, Channel, ChunkRange, Claims, DATA_HEADER_BYTES, DataHeader, DatagramOffer,
    DecodeError, Decoder, Digest, Event, Failure, FailureCode, Hello, Message, MessageDecoder,
    Order, Run, Seeding, Stats, SwarmKey, SwarmStatus, TokenDemand, Welcome,
    codec::BUFFERED_BYTES_MAX,
    encode_control, encode_message, encode_preamble, frame_crc,
    limits::{
        BITFIELD_PART_BYTES_MAX, CHUNK_COUNT_MAX, CHUNK_SIZE_LOG2_MAX, CHUNK_SIZE_LOG2_MIN,
        FAILURE_TEXT_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, HAVE_RANGES_MAX,
        MANIFEST_PART_DIGESTS_MAX, RELAYS_BELOW_MAX, STATS_NAME_BYTES_MAX, VERSION,
        WANT_CHUNKS_MAX,
    },
};

/// Something that a stream carries after the preamble.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A control message.
    Control(Message),
    /// A data frame.
    Frame(DataHeader, Vec<u8>),
}

impl Item {
    /// A data frame with the right CRC.
    pub(crate) fn frame(chunk: u32, offset: u32, tag: u32, payload: &[u8]) -> Self {
        let payload_len = u32::try_from(payload.len()).unwrap();
        let header = DataHeader { chunk, offset, payload_len, tag, checksum: frame_crc(payload) };
        Self::Frame(header, payload.to_vec())
    }

    /// Its bytes on the wire.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Control(message) => {
                let mut said = Vec::new();
                encode_message(message, &mut said);
                encode_control(&said, &mut bytes);
            }
            Self::Frame(header, payload) => bytes = [&header.encode()[..], payload].concat(),
        }
        bytes
    }

    /// Bytes of payload, of a data frame.
    pub(crate) fn payload_len(&self) -> Option<usize> {
        match self {
            Self::Control(_) => None,
            Self::Frame(_, payload) => Some(payload.len()),
        }
    }
}

/// What came out of a decoder, with the pieces of each frame put together.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Seen {
    /// The preamble.
    Preamble,
    /// A control message.
    Control(Message),
    /// A whole data frame.
    Frame {
        /// Its header.
        header: DataHeader,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// A data frame whose end did not come.
    Unfinished {
        /// Its header.
        header: DataHeader,
        /// What came of its payload.
        payload: Vec<u8>,
    },
    /// The end of it.
    Error(DecodeError),
}

/// A whole stream, preamble first.
pub(crate) fn encode(items: &[Item]) -> Vec<u8> {
    items.iter().fold(encode_preamble().to_vec(), |mut stream, item| {
        stream.extend(item.encode());
        stream
    })
}

/// What the decoder makes of [`encode`]'s result.
pub(crate) fn expected(items: &[Item]) -> Vec<Seen> {
    let items = items.iter().cloned().map(|item| match item {
        Item::Control(message) => Seen::Control(message),
        Item::Frame(header, payload) => Seen::Frame { header, payload },
    });
    [Seen::Preamble].into_iter().chain(items).collect()
}

/// Feeds the stream in inputs of these sizes, in turn, and checks the decoder after every step.
pub(crate) fn run(stream: &[u8], splits: &[usize]) -> Vec<Seen> {
    let (mut decoder, mut seen) = (Decoder::new(), Vec::new());
    let mut messages = MessageDecoder::new();
    let (mut rest, mut splits) = (stream, splits.iter().cycle());
    while !rest.is_empty() {
        let size = rest.len().min(*splits.next().unwrap());
        let (mut input, after) = rest.split_at(size);
        rest = after;
        loop {
            let before = input.len();
            let event = decoder.decode(&mut input);
            decoder.invariants();
            assert!(decoder.buffered_bytes() < DATA_HEADER_BYTES);
            match event {
                Ok(Some(Event::Control(mut piece))) => {
                    while let Some(message) = messages.decode(&mut piece).transpose() {
                        match message {
                            Ok(message) => seen.push(Seen::Control(message)),
                            Err(error) => {
                                seen.push(Seen::Error(error));
                                return seen;
                            }
                        }
                    }
                    assert!(messages.buffered_bytes() <= BUFFERED_BYTES_MAX);
                }
                Ok(Some(event)) => {
                    assert!(input.len() < before, "an event consumes something");
                    note(&mut seen, &event);
                }
                Ok(None) => {
                    assert!(input.is_empty(), "more is wanted only when all is used up");
                    break;
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    seen.push(Seen::Error(error));
                    return seen;
                }
            }
        }
    }
    seen
}

fn note(seen: &mut Vec<Seen>, event: &Event<'_>) {
    let (header, piece_offset, piece, is_last) = match event {
        Event::Preamble { version: VERSION } if seen.is_empty() => {
            return seen.push(Seen::Preamble);
        }
        Event::Preamble { .. } => panic!("a preamble in the middle, or of another version"),
        Event::Control(_) => panic!("what control frames carry is messages"),
        &Event::Data(Run { header, frame_offset, bytes, is_last, .. }) => {
            (header, frame_offset, bytes, is_last)
        }
    };
    assert!(!piece.is_empty());
    let mut payload = Vec::new();
    if piece_offset > 0 {
        let Some(Seen::Unfinished { header: before, payload: begun }) = seen.pop() else {
            panic!("a piece follows its beginning");
        };
        assert_eq!(before, header);
        payload = begun;
    }
    assert_eq!(payload.len(), piece_offset as usize);
    payload.extend_from_slice(piece);
    assert_eq!(is_last, payload.len() == header.payload_len as usize);
    seen.push(match is_last {
        true => Seen::Frame { header, payload },
        false => Seen::Unfinished { header, payload },
    });
}

/// Some messages and frames.
pub(crate) fn items() -> impl Strategy<Value = Vec<Item>> {
    vec(prop_oneof![3 => message().prop_map(Item::Control), 1 => frame()], 0..12)
}

fn frame() -> impl Strategy<Value = Item> {
    let frame_max = FRAME_PAYLOAD_BYTES_MAX;
    let frames_per_chunk = (1 << CHUNK_SIZE_LOG2_MAX) / u32::try_from(frame_max).unwrap();
    let length = prop_oneof![1..=64usize, Just(frame_max), 1..=frame_max];
    (0..CHUNK_COUNT_MAX, 0..frames_per_chunk, any::<u32>(), length, any::<u8>()).prop_map(
        |(chunk, frame, tag, length, start)| {
            let offset = frame * u32::try_from(FRAME_PAYLOAD_BYTES_MAX).unwrap();
            let payload: Vec<u8> = (start..=250).chain(0..=250).cycle().take(length).collect();
            Item::frame(chunk, offset, tag, &payload)
        },
    )
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

/// A valid swarm key.
pub(crate) fn swarm_key() -> impl Strategy<Value = SwarmKey> {
    (digest(), CHUNK_SIZE_LOG2_MIN..=CHUNK_SIZE_LOG2_MAX)
        .prop_flat_map(|(id, log2)| (Just(id), Just(log2), 0..=u64::from(CHUNK_COUNT_MAX) << log2))
        .prop_map(|(id, chunk_size_log2, size_bytes)| SwarmKey { id, size_bytes, chunk_size_log2 })
}

fn hello() -> impl Strategy<Value = Message> {
    let claims = prop_oneof![Just(Claims::Nothing), Just(Claims::Everything), Just(Claims::Some)];
    let order = prop_oneof![Just(Order::Relay), Just(Order::Peer)];
    let seeding = prop_oneof![
        Just(Seeding::Origin),
        any::<u32>().prop_map(|peers| Seeding::Spread { peers })
    ];
    let proof = option::of(any::<[u8; 32]>());
    (option::of(swarm_key()), proof, claims, order, option::of(seeding)).prop_map(
        |(key, proof, claims, order, seeding)| {
            Message::Hello(Hello { key, proof, claims, order, seeding })
        },
    )
}

fn stats() -> impl Strategy<Value = Message> {
    let name = || string_regex(&format!("[a-z-]{{0,{STATS_NAME_BYTES_MAX}}}")).unwrap();
    (any::<[u64; 10]>(), any::<u32>(), name(), name()).prop_map(
        |(n, shards, driver, congestion)| {
            Message::Stats(Box::new(Stats {
                ingress_bytes: n[0],
                egress_bytes: n[1],
                cache_hits: n[2],
                cache_misses: n[3],
                cache_evictions: n[4],
                chunk_bytes_peak: n[5],
                rss_bytes_peak: n[6],
                cpu_us: n[7],
                hedges: n[8],
                peers_banned: n[9],
                shards,
                driver,
                congestion,
            }))
        },
    )
}

fn failure() -> impl Strategy<Value = Message> {
    let code = prop::sample::select(vec![
        FailureCode::Protocol,
        FailureCode::TokenRefused,
        FailureCode::TooManyPeers,
        FailureCode::SwarmRefused,
        FailureCode::Banned,
        FailureCode::Stalled,
        FailureCode::ChunksMissing,
        FailureCode::ShuttingDown,
        FailureCode::Internal,
        FailureCode::LinkCorrupt,
        FailureCode::TransportRefused,
        FailureCode::DatagramsSilent,
        FailureCode::NotPublished,
        FailureCode::UplinkRefused,
    ]);
    (code, string_regex(&format!(".{{0,{FAILURE_TEXT_BYTES_MAX}}}")).unwrap())
        .prop_map(|(code, text)| Message::Failure(Failure::new(code, text)))
}

fn lists() -> impl Strategy<Value = Message> {
    let range = (0..CHUNK_COUNT_MAX)
        .prop_flat_map(|first| (Just(first), 1..=CHUNK_COUNT_MAX - first))
        .prop_map(|(first, count)| ChunkRange { first, count });
    let bitfield_end = CHUNK_COUNT_MAX / 8 - u32::try_from(BITFIELD_PART_BYTES_MAX).unwrap();
    let manifest_end = CHUNK_COUNT_MAX - u32::try_from(MANIFEST_PART_DIGESTS_MAX).unwrap();
    prop_oneof![
        (0..=bitfield_end, vec(any::<u8>(), 0..=BITFIELD_PART_BYTES_MAX))
            .prop_map(|(offset_bytes, bytes)| Message::BitfieldPart { offset_bytes, bytes }),
        (0..=manifest_end, vec(digest(), 0..=MANIFEST_PART_DIGESTS_MAX))
            .prop_map(|(first_chunk, digests)| Message::ManifestPart { first_chunk, digests }),
        vec(range.clone(), 0..=HAVE_RANGES_MAX).prop_map(|ranges| Message::Have { ranges }),
        vec(range.clone(), 0..=HAVE_RANGES_MAX).prop_map(|ranges| Message::Lost { ranges }),
        (vec(range, 0..=HAVE_RANGES_MAX), any::<bool>())
            .prop_map(|(ranges, held)| Message::Available { ranges, held }),
        vec(any::<u64>(), 0..=RELAYS_BELOW_MAX).prop_map(|below| Message::Uplink { below }),
        vec(0..CHUNK_COUNT_MAX, 0..=WANT_CHUNKS_MAX).prop_map(|chunks| Message::Want { chunks }),
    ]
}

fn token_demand() -> impl Strategy<Value = TokenDemand> {
    prop::sample::select(vec![TokenDemand::None, TokenDemand::ToPublish, TokenDemand::Always])
}

fn fixed() -> impl Strategy<Value = Message> {
    let chunk = 0..CHUNK_COUNT_MAX;
    let bare = prop::sample::select(vec![
        Message::ManifestRequest,
        Message::ManifestRefused,
        Message::SeedingDone,
        Message::Leaving,
        Message::LeaveGranted,
        Message::StatsRequest,
        Message::DatagramRequest { channel: Channel::Control },
        Message::DatagramRequest { channel: Channel::Data },
        Message::DatagramRequest { channel: Channel::Both },
        Message::SwarmStatusRequest,
    ]);
    prop_oneof![
        6 => bare,
        1 => (token_demand(), 0..=CHUNK_SIZE_LOG2_MAX).prop_map(
            |(token_demand, chunk_size_log2_max)| {
                Message::Welcome(Welcome { token_demand, chunk_size_log2_max })
            }
        ),
        1 => any::<u64>().prop_map(|connection| Message::Accepted(Accepted { connection })),
        1 => any::<(u64, u64)>().prop_map(|(received_bytes, granted_bytes)| {
            Message::Progress { received_bytes, granted_bytes }
        }),
        1 => chunk.clone().prop_map(|chunk| Message::Lacking { chunk }),
        1 => (any::<u32>(), chunk).prop_map(|(fetch_id, chunk)| Message::Fetch { fetch_id, chunk }),
        1 => any::<u32>().prop_map(|fetch_id| Message::CancelFetch { fetch_id }),
        1 => any::<u32>().prop_map(|fetch_id| Message::FetchRefused { fetch_id }),
        1 => any::<(u32, u32, u32)>().prop_map(|(missing_count, first_missing, deadline_ms)| {
            Message::Waiting { missing_count, first_missing, deadline_ms }
        }),
        1 => any::<(u32, u32, u32, u32)>().prop_map(
            |(peers, whole_peers, copies, chunks_handed_out)| {
                Message::SwarmStatus(SwarmStatus { peers, whole_peers, copies, chunks_handed_out })
            }
        ),
        1 => any::<u64>().prop_map(|token| Message::Ping { token }),
        1 => any::<u64>().prop_map(|token| Message::Pong { token }),
        1 => string_regex("[a-zé日<]{1,12}( [-/a-z]{1,12})?").unwrap().prop_map(|text| Message::Label { text }),
        1 => any::<(u8, u64)>().prop_map(|(shard, connection)| {
            Message::DatagramOffer(DatagramOffer { shard, connection })
        }),
    ]
}

/// Any message within all limits.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    prop_oneof![2 => hello(), 4 => lists(), 4 => fixed(), 1 => stats(), 1 => failure()]
}
