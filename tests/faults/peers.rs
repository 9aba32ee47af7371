//! Peers that break the protocol or lie: each is told why where it can understand, counted, and
//! cut off, and an honest client beside it gets its file.

use std::sync::Arc;

use relay::protocol::{
    ChunkRange, Claims, DATA_HEADER_BYTES, DataHeader, Digest, FailureCode, Message,
    PREAMBLE_BYTES, SwarmKey, encode_body, encode_preamble,
    limits::{CONTROL_BODY_BYTES_MAX, FRAME_PAYLOAD_LEN_MAX, VERSION},
};

use crate::programs::relay;
use crate::support::{
    file::TestFile,
    honest::{Download, Origin, download},
    in_background,
    process::RelayProcess,
    wire::{Heard, Wire, hello, origin_hello},
};

/// A relay with an origin, to try things on.
struct Stage {
    relay: RelayProcess,
    file: Arc<TestFile>,
    origin: Origin,
}

impl Stage {
    fn new(args: &[&str]) -> Self {
        let relay = RelayProcess::start(relay(), args);
        let file = Arc::new(TestFile::new(1, 1 << 20, 16));
        let origin = Origin::start(relay.addr, &file);
        Self { relay, file, origin }
    }

    fn refused(&self, reason: &str) -> f64 {
        let label = format!("reason=\"{reason}\"");
        self.relay.metric("relay_connections_refused_total", &[&label])
    }

    fn wait_refused(&self, reason: &str, least: f64) {
        let label = format!("reason=\"{reason}\"");
        self.relay.wait_metric("relay_connections_refused_total", &[&label], least);
    }

    /// Honest peers are still served.
    fn check(&self) {
        download(self.relay.addr, &self.file);
        assert!(self.origin.is_serving(), "the origin is not blamed");
        assert_eq!(self.relay.metric("relay_panics_total", &[]), 0.0);
    }

    /// A peer that has joined.
    fn join(&self) -> Wire {
        Wire::join(self.relay.addr, hello(self.file.key())).expect("a peer may join")
    }
}

/// What a peer says in the wrong place, or of the wrong form.
enum Wrong {
    /// Under TLS, where messages are expected.
    Said(Vec<u8>),
    /// On the stream, where a frame is expected.
    Sent(Vec<u8>),
}

/// A message with this body.
fn message(body: &[u8]) -> Wrong {
    let length = u16::try_from(body.len()).expect("short").to_le_bytes();
    Wrong::Said([&length[..], body].concat())
}

/// A message's number and fields, as they are on the wire.
fn body_of(message: &Message) -> Vec<u8> {
    let mut body = Vec::new();
    encode_body(message, &mut body);
    body
}

/// 2^63 as a varint.
const HUGE: [u8; 10] = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];

/// One range of 2^32 - 1 chunks from chunk 2^32 - 1 on.
const ALL_RANGES: [u8; 11] = [1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0xff, 0x0f];

#[test]
fn who_speaks_something_else_is_cut_off_at_once() {
    let stage = Stage::new(&[]);
    let others: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0",
        b"PSPRELAX",
        &[0xff; 4096],
    ];
    for (count, bytes) in (1u8..).zip(others) {
        let mut wire = Wire::connect(stage.relay.addr).expect("connected");
        wire.send_bytes(bytes).ok();
        assert_eq!(wire.hear_end(), None, "it would not understand an answer");
        stage.wait_refused("magic", f64::from(count));
    }
    stage.check();
}

#[test]
fn another_version_is_told_both_versions() {
    let stage = Stage::new(&[]);
    let mut preamble = encode_preamble();
    let theirs = VERSION + 1;
    preamble[8..10].copy_from_slice(&theirs.to_le_bytes());
    let mut wire = Wire::connect(stage.relay.addr).expect("connected");
    wire.send_bytes(&preamble).expect("sent");
    assert_eq!(wire.hear().expect("heard"), Heard::Preamble, "it can see ours");
    if let Some(failure) = wire.hear_end() {
        assert_eq!(failure.code, FailureCode::Protocol);
        for version in [VERSION, theirs] {
            assert!(failure.text.contains(&version.to_string()), "{}", failure.text);
        }
    }
    stage.wait_refused("version", 1.0);
    stage.check();
}

#[test]
fn lengths_beyond_their_limits_end_the_connection() {
    let stage = Stage::new(&[]);
    let over = u16::try_from(CONTROL_BODY_BYTES_MAX + 1).expect("short").to_le_bytes();
    let data = |length: u32, chunk: u32, offset: u32| {
        let header = DataHeader { chunk, offset, payload_len: 1, tag: 0, checksum: 0 };
        let mut bytes = [0; DATA_HEADER_BYTES];
        bytes[0] = 2;
        bytes[2..4].copy_from_slice(&u16::try_from(length).expect("short").to_le_bytes());
        bytes[4..8].copy_from_slice(&header.chunk.to_le_bytes());
        bytes[8..12].copy_from_slice(&header.offset.to_le_bytes());
        Wrong::Sent(bytes.to_vec())
    };
    let have = body_of(&Message::Have { ranges: vec![ChunkRange { first: 0, count: 1 }] });
    let want = body_of(&Message::Want { chunks: vec![0] });
    let failure = 22;
    let wrongs: Vec<(&str, Wrong)> = vec![
        ("a message of no bytes", Wrong::Said(vec![0, 0])),
        ("a message of one byte too many", Wrong::Said(over.to_vec())),
        ("the longest message", Wrong::Said(vec![0xff, 0xff])),
        ("a control frame of no bytes", Wrong::Sent(vec![1, 0, 0, 0])),
        ("the longest control frame", Wrong::Sent(vec![1, 0, 0xff, 0xff])),
        ("2^63 ranges", message(&[&have[..1], &HUGE].concat())),
        ("2^63 chunks", message(&[&want[..1], &HUGE].concat())),
        ("2^63 bytes of text", message(&[&[failure, 0], &HUGE[..]].concat())),
        ("a range that ends beyond all numbers", message(&[&have[..1], &ALL_RANGES].concat())),
        ("a number beyond 64 bits", message(&[&have[..1], &[0xff; 10]].concat())),
        ("an unknown message", message(&[99])),
        ("an unknown kind of frame", Wrong::Sent(vec![3, 0, 1, 0])),
        ("a reserved byte", Wrong::Sent(vec![1, 1, 1, 0])),
        ("bytes after the message", message(&[&have[..], &[0]].concat())),
        ("a payload of no bytes", data(0, 0, 0)),
        ("a payload of one byte too many", data(FRAME_PAYLOAD_LEN_MAX + 1, 0, 0)),
        ("a chunk that no file has", data(1, u32::MAX, 0)),
        ("an offset off the frames", data(1, 0, 1)),
        ("an offset beyond the chunk", data(1, 0, 1 << 24)),
    ];
    for (count, (what, wrong)) in (1u16..).zip(&wrongs) {
        let mut wire = stage.join();
        match wrong {
            Wrong::Said(bytes) => wire.say_bytes(bytes).ok(),
            Wrong::Sent(bytes) => wire.send_bytes(bytes).ok(),
        };
        let told = wire.hear_end();
        if let Some(failure) = told {
            assert_eq!(failure.code, FailureCode::Protocol, "{what}");
        }
        stage.wait_refused("protocol", f64::from(count));
    }
    let resident = stage.relay.metric("process_resident_memory_bytes", &[]);
    assert!(resident < f64::from(1 << 28), "{resident} bytes are resident");
    stage.check();
}

#[test]
fn messages_out_of_turn_end_the_connection() {
    let stage = Stage::new(&[]);
    let key = stage.file.key();
    let chunks = key.chunk_count();
    let progress = |received_bytes| Message::Progress { received_bytes, granted_bytes: 1 << 20 };
    let have = |first, count| Message::Have { ranges: vec![ChunkRange { first, count }] };
    let after_joining: Vec<(&str, Message)> = vec![
        ("a second hello", Message::Hello(hello(key))),
        ("a relay's message", Message::SeedingDone),
        ("a fetch from a peer", Message::Fetch { fetch_id: 0, chunk: 0 }),
        (
            "a bitfield that was not announced",
            Message::BitfieldPart { offset_bytes: 0, bytes: vec![0; 2] },
        ),
        ("a label from a peer that shares nothing", Message::Label { text: "Mine".into() }),
        ("an uplink that was not announced", Message::Uplink { below: vec![1] }),
        (
            "a loss of what it may not lose",
            Message::Lost { ranges: vec![ChunkRange { first: 0, count: 1 }] },
        ),
        (
            "what only a relay tells of others",
            Message::Available { ranges: vec![ChunkRange { first: 0, count: 1 }], held: true },
        ),
        ("a chunk that the file does not have", have(chunks, 1)),
        ("a range that ends beyond the file", have(0, chunks + 1)),
        ("a want beyond the file", Message::Want { chunks: vec![0, chunks] }),
        ("a loss beyond the file", Message::Lacking { chunk: chunks }),
        ("bytes received that were never sent", progress(u64::MAX)),
        (
            "a manifest that the relay did not ask for",
            Message::ManifestPart { first_chunk: 0, digests: vec![Digest([0; 32])] },
        ),
    ];
    let mut count = 0.0;
    for (what, message) in after_joining {
        let mut wire = stage.join();
        wire.send(&message).expect("sent");
        let failure = wire.hear_end().unwrap_or_else(|| panic!("{what}: it is told why"));
        assert_eq!(failure.code, FailureCode::Protocol, "{what}: {failure}");
        count += 1.0;
        stage.wait_refused("protocol", count);
    }
    let (mut early, _) = Wire::greet(stage.relay.addr).expect("greeted");
    early.send(&have(0, 1)).expect("sent");
    assert!(early.hear_end().is_some_and(|failure| failure.code == FailureCode::Protocol));
    stage.wait_refused("protocol", count + 1.0);
    stage.check();
}

#[test]
fn keys_of_impossible_files_are_refused() {
    let stage = Stage::new(&[]);
    let honest = stage.file.key();
    let impossible: [SwarmKey; 4] = [
        SwarmKey { size_bytes: 1 << 63, ..honest },
        SwarmKey { size_bytes: u64::MAX, chunk_size_log2: 24, ..honest },
        SwarmKey { chunk_size_log2: 9, ..honest },
        SwarmKey { chunk_size_log2: 255, ..honest },
    ];
    // Patched into a message, since our own encoder would not write them.
    let body = |key: SwarmKey| {
        let mut body = vec![1, 1];
        body.extend_from_slice(&key.id.0);
        let mut size = key.size_bytes;
        while size >= 0x80 {
            body.push(size.to_le_bytes()[0] | 0x80);
            size >>= 7;
        }
        body.push(size.to_le_bytes()[0]);
        body.push(key.chunk_size_log2);
        // No proof, nothing, order of the relay, no seeding.
        body.extend_from_slice(&[0; 4]);
        body
    };
    // The patch is right: with the honest key it is an honest hello.
    let (mut wire, _) = Wire::greet(stage.relay.addr).expect("greeted");
    wire.say_body(&body(honest)).expect("sent");
    assert!(matches!(wire.hear(), Ok(Heard::Control(Message::Accepted(_)))));
    for key in impossible {
        let (mut wire, _) = Wire::greet(stage.relay.addr).expect("greeted");
        wire.say_body(&body(key)).expect("sent");
        let failure = wire.hear_end().expect("it is told why");
        let codes = [FailureCode::Protocol, FailureCode::SwarmRefused];
        assert!(codes.contains(&failure.code), "{key:?}: {failure}");
    }
    stage.check();
}

#[test]
fn a_storm_of_claims_costs_no_memory() {
    // 2^18 chunks of 1 KiB: a message of 1,100 bytes can claim all of them a hundred times.
    let stage = Stage::new(&[]);
    let key = SwarmKey { size_bytes: 1 << 28, chunk_size_log2: 10, ..stage.file.key() };
    let mut wire = Wire::join(stage.relay.addr, hello(key)).expect("a peer may join");
    let everything = ChunkRange { first: 0, count: key.chunk_count() };
    let storm = Message::Have { ranges: vec![everything; 100] };
    for _ in 0..3 {
        // Whether it is served or cut off is the relay's choice.
        if wire.send(&storm).is_err() {
            break;
        }
    }
    let honest = in_background({
        let (addr, file) = (stage.relay.addr, Arc::clone(&stage.file));
        move || download(addr, &file)
    });
    honest.join().expect("an honest client gets the file meanwhile");
    let status = std::fs::read_to_string(format!("/proc/{}/status", stage.relay.id()));
    let peak = status.unwrap_or_default().lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    assert!(peak.unwrap_or(0) < 256 << 10, "{peak:?} KiB were resident");
    stage.check();
}

#[test]
fn a_holder_that_lies_is_banned_and_nobody_else() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(2, 1 << 20, 16));
    // The liar is alone at first, so that it is asked.
    let mut liar = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    let of_liar = Arc::clone(&file);
    let lying = in_background(move || {
        loop {
            match liar.hear() {
                Ok(Heard::Control(Message::ManifestRequest)) => {
                    for part in of_liar.manifest.parts(0) {
                        liar.send(&part).expect("sent");
                    }
                }
                Ok(Heard::Control(Message::Fetch { fetch_id, chunk })) => {
                    let mut bytes = of_liar.chunk(chunk).to_vec();
                    bytes[17] ^= 1;
                    if liar.send_chunk(fetch_id, chunk, &bytes).is_err() {
                        return None;
                    }
                }
                Ok(Heard::Control(Message::Failure(failure))) => return Some(failure),
                Ok(Heard::Closed) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    });
    let waiting = in_background({
        let (addr, file) = (relay.addr, Arc::clone(&file));
        move || download(addr, &file)
    });
    let failure = lying.join().expect("the liar ends");
    relay.wait_metric("relay_peers_banned_total", &[], 1.0);
    relay.wait_metric("relay_chunks_rejected_total", &["reason=\"wrong_digest\""], 1.0);
    assert!(failure.is_none_or(|failure| failure.code == FailureCode::Banned));
    let origin = Origin::start(relay.addr, &file);
    waiting.join().expect("the honest client gets the file");
    assert!(origin.is_serving());
    assert_eq!(relay.metric("relay_peers_banned_total", &[]), 1.0);
}

#[test]
fn a_manifest_that_does_not_merge_bans_its_sender() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(3, 1 << 20, 16));
    let mut liar = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    let waiting = in_background({
        let (addr, file) = (relay.addr, Arc::clone(&file));
        move || download(addr, &file)
    });
    loop {
        match liar.hear().expect("the relay asks for the manifest") {
            Heard::Control(Message::ManifestRequest) => break,
            Heard::Closed => panic!("the liar was cut off before it lied"),
            _ => {}
        }
    }
    let digests = vec![Digest([9; 32]); file.key().chunk_count() as usize];
    liar.send(&Message::ManifestPart { first_chunk: 0, digests }).expect("sent");
    let failure = liar.hear_end();
    assert!(failure.is_none_or(|failure| failure.code == FailureCode::Banned));
    relay.wait_metric("relay_connections_refused_total", &["reason=\"manifest\""], 1.0);
    let _origin = Origin::start(relay.addr, &file);
    waiting.join().expect("the honest client gets the file");
}

#[test]
fn clients_killed_in_mid_chunk_take_nobody_along() {
    let stage = Stage::new(&[]);
    for _ in 0..10 {
        let mut download =
            Download::join(stage.relay.addr, stage.file.key()).expect("a client may join");
        while download.have_count() == 0 {
            download.step().expect("the first chunk comes");
        }
        // Gone, with chunks under way to it.
        download.into_wire().reset();
    }
    // Gone in the middle of a frame, and of a message.
    let mut wire = stage.join();
    wire.send_bytes(&[1, 0, 9]).expect("sent");
    wire.reset();
    let mut wire = Wire::connect(stage.relay.addr).expect("connected");
    wire.send_bytes(&encode_preamble()[..PREAMBLE_BYTES / 2]).expect("sent");
    wire.reset();
    stage.check();
}

#[test]
fn a_holder_killed_in_the_middle_of_its_answer_is_replaced() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(4, 1 << 20, 18));
    let mut dying = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    let waiting = in_background({
        let (addr, file) = (relay.addr, Arc::clone(&file));
        move || download(addr, &file)
    });
    loop {
        match dying.hear().expect("the relay is there") {
            Heard::Control(Message::ManifestRequest) => {
                for part in file.manifest.parts(0) {
                    dying.send(&part).expect("sent");
                }
            }
            Heard::Control(Message::Fetch { fetch_id, chunk }) => {
                let half = &file.chunk(chunk)[..100_000];
                let mut frames = half.chunks(16 << 10);
                let whole = frames.by_ref().take(3).flatten().copied().collect::<Vec<u8>>();
                dying.send_chunk(fetch_id, chunk, &whole).expect("sent");
                break;
            }
            Heard::Closed => panic!("the origin is cut off"),
            _ => {}
        }
    }
    dying.reset();
    let _origin = Origin::start(relay.addr, &file);
    waiting.join().expect("the client gets the file from another holder");
    let held = relay.metric("relay_chunk_bytes", &[]);
    assert!(held <= (1 << 20) as f64, "{held}: the dead holder's lease came back");
}

#[test]
fn claims_in_parts_that_do_not_fit_are_refused() {
    let stage = Stage::new(&[]);
    let mut claims = hello(stage.file.key());
    claims.claims = Claims::Some;
    for (offset_bytes, bytes) in [(1, vec![0; 1]), (0, vec![0; 3]), (32_000, vec![0; 1])] {
        let (mut wire, _) = Wire::greet(stage.relay.addr).expect("greeted");
        wire.send(&Message::Hello(claims.clone())).expect("sent");
        wire.send(&Message::BitfieldPart { offset_bytes, bytes }).expect("sent");
        let failure = wire.hear_end().expect("it is told why");
        assert_eq!(failure.code, FailureCode::Protocol);
    }
    assert_eq!(stage.refused("protocol"), 3.0);
    stage.check();
}
