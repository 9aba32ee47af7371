//! The bytes on the wire, pinned: every message, frame, digest and proof has its hex in
//! `tests/golden`. A change here is a change of the wire format and needs a new version.
//!
//! `GOLDEN_WRITE=1` rewrites the files; the difference is then for a reviewer to judge. Whether
//! the decoder copes with arbitrary input is tested in `protocol_streams`.

#![expect(clippy::unwrap_used, reason = "a test that can't go on ends")]

use std::{fmt::Write as _, fs, path::PathBuf};

use relay::protocol::{
    Accepted, Channel, ChunkRange, Claims, DataHeader, DataStreamHeader, DatagramOffer, Digest,
    Failure, FailureCode, Hello, Manifest, Message, MessageDecoder, Order, Seeding, Side, Stats,
    SwarmKey, SwarmStatus, Token, TokenDemand, UploadKey, Welcome, digest_file, encode_control,
    encode_message, encode_preamble, frame_crc, limits::FRAME_PAYLOAD_BYTES_MAX,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// Compares lines `name hex` with the file of that name.
pub(crate) fn check(file: &str, lines: &[(String, Vec<u8>)]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let text = lines.iter().fold(String::new(), |mut text, (name, bytes)| {
        writeln!(text, "{name} {}", hex(bytes)).unwrap();
        text
    });
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    for (ours, theirs) in text.lines().zip(golden.lines()) {
        assert_eq!(ours, theirs, "the wire format changed: see {}", path.display());
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

fn key() -> SwarmKey {
    SwarmKey { id: Digest([0xab; 32]), size_bytes: 104_857_600, chunk_size_log2: 18 }
}

fn stats() -> Stats {
    Stats {
        ingress_bytes: 1,
        egress_bytes: 200,
        cache_hits: 3,
        cache_misses: 4,
        cache_evictions: 5,
        chunk_bytes_peak: 6,
        rss_bytes_peak: 7,
        cpu_us: u64::MAX,
        hedges: 9,
        peers_banned: 10,
        shards: 11,
        driver: "io-uring".into(),
        congestion: "cubic".into(),
    }
}

fn offer() -> DatagramOffer {
    DatagramOffer { shard: 3, connection: 5 << 32 | 200 }
}

fn hellos() -> Vec<(&'static str, Message)> {
    let watcher = Hello {
        key: None,
        proof: None,
        claims: Claims::Nothing,
        order: Order::Relay,
        seeding: None,
    };
    let origin = Hello {
        key: Some(key()),
        proof: Some([0x33; 32]),
        claims: Claims::Everything,
        seeding: Some(Seeding::Spread { peers: 100 }),
        ..watcher.clone()
    };
    let fan_out = Hello { proof: None, seeding: Some(Seeding::Origin), ..origin.clone() };
    let resumed =
        Hello { claims: Claims::Some, order: Order::Peer, seeding: None, ..origin.clone() };
    vec![
        ("hello-watcher", Message::Hello(watcher)),
        ("hello-spread", Message::Hello(origin)),
        ("hello-origin", Message::Hello(fan_out)),
        ("hello-resumed", Message::Hello(resumed)),
    ]
}

/// One of each message, as they are declared.
fn messages() -> Vec<(&'static str, Message)> {
    let welcome =
        |token_demand| Message::Welcome(Welcome { token_demand, chunk_size_log2_max: 24 });
    let ranges = vec![ChunkRange { first: 0, count: 1 }, ChunkRange { first: 300, count: 128 }];
    let mut list = vec![
        ("welcome", welcome(TokenDemand::Always)),
        ("welcome-open-get", welcome(TokenDemand::ToPublish)),
        ("welcome-open", welcome(TokenDemand::None)),
    ];
    list.extend(hellos());
    list.extend([
        ("bitfield-part", Message::BitfieldPart { offset_bytes: 1024, bytes: vec![0xff, 0x01] }),
        ("accepted", Message::Accepted(Accepted { connection: 1 << 40 })),
        ("manifest-request", Message::ManifestRequest),
        (
            "manifest-part",
            Message::ManifestPart {
                first_chunk: 32,
                digests: vec![Digest([0x44; 32]), Digest([0x55; 32])],
            },
        ),
        ("manifest-refused", Message::ManifestRefused),
        ("progress", Message::Progress { received_bytes: 127, granted_bytes: 128 }),
        ("have", Message::Have { ranges: ranges.clone() }),
        ("want", Message::Want { chunks: vec![7, 6, 262_143] }),
        ("lacking", Message::Lacking { chunk: 5 }),
        ("fetch", Message::Fetch { fetch_id: u32::MAX, chunk: 9 }),
        ("cancel-fetch", Message::CancelFetch { fetch_id: 2 }),
        ("fetch-refused", Message::FetchRefused { fetch_id: 3 }),
        ("waiting", Message::Waiting { missing_count: 3, first_missing: 17, deadline_ms: 60_000 }),
        ("seeding-done", Message::SeedingDone),
        ("leaving", Message::Leaving),
        ("leave-granted", Message::LeaveGranted),
        ("stats-request", Message::StatsRequest),
        ("stats", Message::Stats(Box::new(stats()))),
        ("ping", Message::Ping { token: 0x0123_4567_89ab_cdef }),
        ("pong", Message::Pong { token: 0 }),
        ("failure", Message::Failure(Failure::new(FailureCode::Stalled, "took no byte"))),
        ("swarm-status-request", Message::SwarmStatusRequest),
        (
            "swarm-status",
            Message::SwarmStatus(SwarmStatus {
                peers: 101,
                whole_peers: 1,
                copies: 300,
                chunks_handed_out: 262_144,
            }),
        ),
        ("datagram-request", Message::DatagramRequest { channel: Channel::Control }),
        ("datagram-request-both", Message::DatagramRequest { channel: Channel::Both }),
        ("datagram-offer", Message::DatagramOffer(offer())),
        ("label", Message::Label { text: "Größe 7".into() }),
        ("uplink", Message::Uplink { below: vec![0x0123_4567_89ab_cdef, 5] }),
        ("available", Message::Available { ranges: ranges.clone(), held: true }),
        ("lost", Message::Lost { ranges: ranges.clone() }),
    ]);
    list
}

const FAILURE_CODES: [FailureCode; 14] = [
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
];

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_message(message, &mut bytes);
    bytes
}

/// The first `len` bytes of the input of BLAKE3's official test vectors.
fn vector_input(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

#[test]
fn every_control_message_has_the_golden_bytes() {
    let mut lines: Vec<(String, Vec<u8>)> =
        messages().iter().map(|(name, message)| ((*name).into(), encoded(message))).collect();
    for code in FAILURE_CODES {
        let failure = Message::Failure(Failure::new(code, ""));
        lines.push((format!("failure-{code:?}"), encoded(&failure)));
    }
    check("control.txt", &lines);
}

#[test]
fn golden_control_bytes_decode_to_their_messages() {
    let golden = include_str!("../golden/control.txt");
    for ((name, message), line) in messages().iter().zip(golden.lines()) {
        let bytes = unhex(line.strip_prefix(name).unwrap().trim());
        let (mut decoder, mut input) = (MessageDecoder::new(), &bytes[..]);
        assert_eq!(decoder.decode(&mut input), Ok(Some(message.clone())));
        assert_eq!(decoder.decode(&mut input), Ok(None));
    }
}

#[test]
fn each_side_sends_its_own_messages() {
    let of_relay = [
        "welcome",
        "welcome-open-get",
        "welcome-open",
        "accepted",
        "fetch",
        "cancel-fetch",
        "waiting",
        "seeding-done",
        "leave-granted",
        "stats",
        "datagram-offer",
        "swarm-status",
        "available",
    ];
    let of_both = ["manifest-request", "manifest-part", "ping", "pong", "failure"];
    for (name, message) in messages() {
        let (is_relays, is_both) = (of_relay.contains(&name), of_both.contains(&name));
        assert_eq!(message.may_come_from(Side::Relay), is_relays || is_both, "{name}");
        assert_eq!(message.may_come_from(Side::Peer), !is_relays, "{name}");
    }
}

#[test]
fn preamble_and_data_frames_have_the_golden_bytes() {
    let frame = |chunk, offset, tag, payload: &[u8]| {
        let payload_len = u32::try_from(payload.len()).unwrap();
        let header = DataHeader { chunk, offset, payload_len, tag, checksum: frame_crc(payload) };
        [&header.encode()[..], payload].concat()
    };
    let full = vector_input(FRAME_PAYLOAD_BYTES_MAX);
    let checksum = UploadKey::new([0x66; 32]).checksum(7, 2 * 16_384, b"123456789");
    let header = DataHeader { chunk: 3, offset: 2 * 16_384, payload_len: 9, tag: 7, checksum };
    let supplied = [&header.encode()[..], b"123456789"].concat();
    // The header of a TLS record, and two bytes of what is in it.
    let mut control = Vec::new();
    encode_control(&[0x17, 0x03, 0x03, 0x00, 0x02, 0xaa, 0xbb], &mut control);
    check(
        "frames.txt",
        &[
            ("preamble".into(), encode_preamble().to_vec()),
            ("control".into(), control.clone()),
            // The check value of CRC-32C is e3069283.
            ("data-check-value".into(), frame(3, 2 * 16_384, 0, b"123456789")),
            ("data-one-byte".into(), frame(262_143, 0, u32::MAX, &[0])),
            ("data-full-header".into(), frame(1, 16_384, 7, &full)[..20].to_vec()),
            ("data-of-a-peer".into(), supplied),
        ],
    );
}

#[test]
fn streams_of_datagrams_have_the_golden_beginning() {
    let header = DataStreamHeader { chunk: 0x0102_0304, offset: 0x0003_4000, tag: 0xdead_beef };
    check("datagrams.txt", &[("file-bytes".into(), header.encode().to_vec())]);
}

#[test]
fn proofs_have_the_golden_bytes() {
    let proof = |line: &str| Token::from_line(line).unwrap().proof(&[0x11; 32]).to_vec();
    check(
        "proofs.txt",
        &[
            ("open-sesame".into(), proof("open sesame")),
            ("open-sesame-padded".into(), proof("\topen sesame \r\n")),
            ("unicode".into(), proof("ключ")),
        ],
    );
}

#[test]
fn digests_are_those_of_the_official_test_vectors() {
    // From BLAKE3's test_vectors.json: the first 32 bytes of `hash`.
    let golden = include_str!("../golden/blake3.txt");
    let mut lines = 0;
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let (len, digest) = line.split_once(' ').unwrap();
        let bytes = vector_input(len.parse().unwrap());
        assert_eq!(digest_file(&bytes).to_string(), digest, "{len} bytes");
        for chunk_size_log2 in [10, 11, 12, 14, 18] {
            let manifest = Manifest::of(&bytes, chunk_size_log2).unwrap();
            assert_eq!(manifest.key().id.to_string(), digest, "{len} bytes, 2^{chunk_size_log2}");
        }
        lines += 1;
    }
    assert!(lines >= 10);
}

#[test]
fn chunk_digests_have_the_golden_bytes() {
    // A short file, to see what is in a manifest: two chunks and a byte.
    let manifest = Manifest::of(&vector_input(2 * 1024 + 1), 10).unwrap();
    let lines: Vec<_> = manifest
        .digests()
        .iter()
        .enumerate()
        .map(|(chunk, digest)| (format!("chunk-{chunk}"), digest.0.to_vec()))
        .chain([("id".into(), manifest.key().id.0.to_vec())])
        .collect();
    check("manifest.txt", &lines);
}
