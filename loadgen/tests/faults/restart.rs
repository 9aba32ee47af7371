//! The relay is killed again and again under load. All end with the file, and what a peer
//! had verified is not sent to it again: a link that looks at every frame counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::mpsc,
};

use relay::protocol::{Bitfield, Claims, Message, SwarmKey, decode_body};

use crate::{
    loadgen, relay,
    support::{
        process::{RelayProcess, Running, drivers},
        proxy::{Handlers, Proxy},
        wait_until,
    },
};

const CLIENTS: usize = 20;

const FILE_BYTES: u64 = 8 << 20;

/// File bytes that a relay has under way to one peer, at most: its largest window.
const UNDER_WAY_BYTES_MAX: u64 = 4 << 20;

/// What passed over a connection.
enum Seen {
    /// From the peer.
    Said(Message),
    /// To the peer: so many bytes of this chunk.
    Sent(u32, u64),
}

/// One connection, as the link saw it.
#[derive(Default)]
struct Story {
    key: Option<SwarmKey>,
    everything: bool,
    bitfield: Vec<u8>,
    verified: BTreeSet<u32>,
    lost: BTreeSet<u32>,
    sent: BTreeMap<u32, u64>,
}

impl Story {
    fn add(&mut self, seen: Seen) {
        match seen {
            Seen::Sent(chunk, bytes) => *self.sent.entry(chunk).or_default() += bytes,
            Seen::Said(Message::Hello(hello)) => {
                self.key = hello.key;
                self.everything = hello.claims == Claims::Everything;
            }
            Seen::Said(Message::BitfieldPart { bytes, .. }) => self.bitfield.extend(bytes),
            Seen::Said(Message::Have { ranges }) => {
                self.verified.extend(ranges.iter().flat_map(|r| r.first..r.first + r.count));
            }
            Seen::Said(Message::Lacking { chunk }) => {
                self.lost.insert(chunk);
            }
            Seen::Said(_) => {}
        }
    }

    /// Chunks that the peer had verified before it connected.
    fn claimed(&self, key: &SwarmKey) -> BTreeSet<u32> {
        let count = key.chunk_count();
        if self.everything {
            return (0..count).collect();
        }
        let claims = Bitfield::from_bytes(&self.bitfield, count);
        claims.map(|claims| claims.iter().collect()).unwrap_or_default()
    }

    /// Checks the story; what was sent of chunks that were verified, and of others. Whether the
    /// peer had everything at its end.
    fn check(&self) -> (u64, u64, bool) {
        let Some(key) = self.key else { return (0, 0, false) };
        let claimed = self.claimed(&key);
        let (mut kept, mut unreported) = (0, 0);
        for (&chunk, &bytes) in &self.sent {
            assert!(!claimed.contains(&chunk), "chunk {chunk} was verified, and is sent again");
            if self.verified.contains(&chunk) {
                let whole = u64::from(key.chunk_len_bytes(chunk));
                assert!(bytes == whole || self.lost.contains(&chunk), "{bytes} of chunk {chunk}");
                kept += bytes;
            } else {
                unreported += bytes;
            }
        }
        assert!(unreported <= UNDER_WAY_BYTES_MAX, "{unreported} bytes came to nothing");
        let had = claimed.union(&self.verified).count();
        (kept, unreported, had == key.chunk_count() as usize && !self.everything)
    }
}

/// A link that tells all that passes.
fn watched(relay: std::net::SocketAddr) -> (Proxy, mpsc::Receiver<(usize, Seen)>) {
    let (tell, told) = mpsc::channel();
    let mut connections = 0;
    let proxy = Proxy::start(relay, move || {
        let index = connections;
        connections += 1;
        let (up, down) = (tell.clone(), tell.clone());
        Handlers {
            up: Box::new(move |frame| {
                if let Some(body) = frame.body() {
                    let message = decode_body(body).expect("what a peer says is a message");
                    up.send((index, Seen::Said(message))).ok();
                }
            }),
            down: Box::new(move |frame| {
                if frame.is_data() {
                    let seen = Seen::Sent(frame.chunk(), frame.payload_len() as u64);
                    down.send((index, seen)).ok();
                }
            }),
        }
    });
    (proxy, told)
}

#[test]
fn a_relay_killed_ten_times_under_load_sends_nobody_what_he_had_verified() {
    for driver in drivers(relay) {
        let args = ["--driver", driver];
        let mut relay = RelayProcess::start(relay(), &args);
        let addr = relay.addr;
        let (link, told) = watched(addr);
        let (to, clients) = (link.addr.to_string(), CLIENTS.to_string());
        let size = FILE_BYTES.to_string();
        let common = ["--relay", &to, "--clients", &clients, "--file", &size];
        let more = ["--rate", "1M", "--chunk", "64K", "--seeding", "origin", "--driver", driver];
        let mut job = Running::start(loadgen().args(common).args(more).args(["--timeout", "150s"]));
        for _ in 0..10 {
            relay.wait_metric("relay_chunks_delivered_total", &[], 40.0);
            assert!(job.is_alive(), "there is load while it is killed");
            relay.kill();
            relay = RelayProcess::start_on(self::relay(), addr, &args);
        }
        let ended = job.wait();
        assert_eq!(ended.code, 0, "{}\n{}", ended.stdout, ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        wait_until("everyone to be gone", || relay.metric("relay_connections", &[]) == 0.0);
        drop(link);
        let mut stories: BTreeMap<usize, Story> = BTreeMap::new();
        told.into_iter().for_each(|(index, seen)| stories.entry(index).or_default().add(seen));
        check(&stories);
    }
}

fn check(stories: &BTreeMap<usize, Story>) {
    let wanted = CLIENTS as u64 * FILE_BYTES;
    assert!(stories.len() > CLIENTS * 5, "{} connections: it was killed", stories.len());
    let (mut kept, mut wasted, mut whole) = (0, 0, 0);
    for story in stories.values() {
        let (verified, unreported, has_all) = story.check();
        kept += verified;
        wasted += unreported;
        whole += usize::from(has_all);
    }
    println!("{kept} of {wanted} bytes were verified and reported, {wasted} more were under way");
    assert!(whole >= CLIENTS, "{whole} connections ended with the whole file");
    assert!(kept <= wanted, "{kept} of {wanted} bytes: something was sent twice");
    assert!(kept + wasted >= wanted, "{kept} + {wasted} of {wanted}: not all was seen");
}
