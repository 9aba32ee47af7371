//! A real shard with real sockets.
//!
//! A mistake of ours in one connection: that connection ends, the others go on. The mistake is made by
//! hand: a fetch is ordered with a lease that is too small for its chunk, which panics when the first
//! byte of the answer comes.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use shards::{Budget, Incoming, Shards, clock, task};

use super::{
    outbox::{CLAIMS_AT_ONCE_MAX, CLAIMS_PER_PEER_MAX},
    *,
};
use crate::{
    connection::Connection,
    descriptors::Places,
    message::{ConnectionRef, FetchOrder, NewsItem, PeerRequest},
    observe::metrics,
    one_shard,
    process::{About, ChunkMemory, Policy, Setup},
    session::SessionConfig,
};
use relay_protocol::{
    ChunkRange, Claims, DataHeader, Digest, Hello, Manifest, Message, Order, SwarmKey, frame_crc,
};
use relay_swarm::{Eviction, FetchId};
use relay_transport::{Dialogue, Heard, Trust};

const CHUNK_SIZE_LOG2: u8 = 16;

fn shared() -> Arc<Shared> {
    let recorder = metrics::recorder().expect("buckets are right");
    Shared::new(Setup {
        memory: ChunkMemory { budget: Budget::new(1 << 20, 16), files: None },
        policy: Policy {
            identity: relay_transport::exercise::relay_identity(),
            session: Arc::new(SessionConfig {
                relay_id: 0,
                admission: Default::default(),
                chunk_size_log2_max: CHUNK_SIZE_LOG2,
                chunk_size_log2_limit: CHUNK_SIZE_LOG2,
            }),
            eviction: Eviction::Demand,
            missing_timeout: Duration::from_secs(60),
            rates: Default::default(),
            uplinks: None,
        },
        cells: metrics::cells(&recorder, 1),
        about: About { driver: "test".into(), congestion: "test".into() },
        peers_max: 64,
        places: Places { http: 4, pages: 1, observers: 4, peers: 64, files: 0 },
        watch: crate::observe::snapshot::Watch::new(1).0,
    })
}

/// Orders the fetch that can't be carried out from the first peer that has joined.
async fn make_a_mistake(state: Rc<ShardState>, manifest: Arc<Manifest>, now: Arc<AtomicBool>) {
    loop {
        let to = first_peer(&state).filter(|_| now.load(Ordering::SeqCst));
        if let Some(to) = to {
            let desk = &state.desk;
            let waiter = desk.shared.memory.budget.waiter(desk.shard.port.ringer());
            let lease = waiter.expect("a place").try_lease(1).expect("a byte is free");
            let fetch = FetchOrder {
                fetch_id: FetchId(7),
                chunk: 0,
                manifest,
                lease,
                is_to_be_lent: false,
            };
            let Parts { guests, ready, payloads, .. } = &mut *state.parts();
            requests::handle(desk, guests, ready, payloads, PeerRequest::Fetch { to, fetch });
            return;
        }
        clock::sleep(Duration::from_millis(5)).await;
    }
}

fn first_peer(state: &ShardState) -> Option<ConnectionRef> {
    let guests = &state.parts().guests;
    guests.iter().find(has_joined).map(|connection| connection.reference)
}

fn has_joined(connection: &&Rc<Connection>) -> bool {
    connection.link().membership.member().is_some()
}

struct Client {
    stream: TcpStream,
    talk: Dialogue,
    heard: VecDeque<Message>,
}

impl Client {
    /// Connects to the only shard.
    fn connect(shards: &Shards) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it has an address");
        let stream = TcpStream::connect(addr).expect("connected");
        let (accepted, remote) = listener.accept().expect("accepted");
        let handoff = shards.handoff();
        let incoming = Incoming { stream: accepted, remote, tag: 0 };
        handoff.send(handoff.place(None), incoming).expect("there is room");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let talk = Dialogue::new(Trust::first_seen().connect("relay"));
        let mut client = Self { stream, talk, heard: VecDeque::new() };
        client.write();
        client
    }

    /// Sends what waits.
    fn write(&mut self) {
        self.stream.write_all(&self.talk.take_out()).expect("sent");
    }

    fn send(&mut self, message: &Message) {
        self.talk.say(message);
        self.write();
    }

    /// Joins as a holder of everything.
    fn join(&mut self, key: SwarmKey) {
        self.send(&Message::Hello(Hello {
            key: Some(key),
            proof: None,
            claims: Claims::Everything,
            order: Order::Relay,
            seeding: None,
        }));
        self.hear(|message| matches!(message, Message::Accepted(_)));
    }

    /// Reads until there is such a message; false if the connection ends before.
    fn hear(&mut self, wanted: impl Fn(&Message) -> bool) -> bool {
        let mut buffer = [0; 4096];
        loop {
            while let Some(message) = self.heard.pop_front() {
                if wanted(&message) {
                    return true;
                }
            }
            let count = match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return false,
                Ok(count) => count,
            };
            let mut take = |heard: Heard<'_>| {
                if let Heard::Message(message) = heard {
                    self.heard.push_back(message);
                }
                Ok::<(), Infallible>(())
            };
            let heard = self.talk.hear(&buffer[..count], &mut take);
            heard.expect("the relay speaks the protocol");
            self.write();
        }
    }
}

/// Peers of one shard, as many as there are to be.
async fn joined(state: &ShardState, count: usize) -> Vec<Rc<Connection>> {
    loop {
        let joined: Vec<_> = state.parts().guests.iter().filter(has_joined).cloned().collect();
        if joined.len() == count {
            return joined;
        }
        clock::sleep(Duration::from_millis(5)).await;
    }
}

/// Has all peers but the last claim the whole file twice, and the last one chunk; claims handled after
/// each turn, and what the last has still to tell by then.
async fn claim_and_count(state: Rc<ShardState>, chunks: u32, turns: mpsc::Sender<(u64, bool)>) {
    let peers = joined(&state, PEERS).await;
    // What their joins led to is over.
    while turn::turn(&state) {}
    let claim = |peer: &Rc<Connection>, count| {
        let range = ChunkRange { first: 0, count };
        peer.link().session.tell(NewsItem::Have(range));
        state.parts().ready.mark_news(&state.desk, peer);
    };
    let (last, greedy) = peers.split_last().expect("there are some");
    for peer in greedy {
        claim(peer, chunks);
        claim(peer, chunks);
    }
    // What stands behind it on its connection waits for it, as ever.
    claim(last, 1);
    let before = state.desk.cells.chunks_delivered.get();
    loop {
        let has_more = turn::turn(&state);
        let handled = state.desk.cells.chunks_delivered.get() - before;
        turns.send((handled, last.link().session.has_news())).expect("counted");
        if !has_more {
            return;
        }
    }
}

/// More than are served in one turn, with all that each may claim.
const PEERS: usize = (2 * CLAIMS_AT_ONCE_MAX / CLAIMS_PER_PEER_MAX) as usize + 1;

#[test]
fn claims_of_long_files_are_the_work_of_many_turns_and_hold_nobody_up() {
    let key = SwarmKey { id: Digest([1; 32]), size_bytes: 1 << 24, chunk_size_log2: 10 };
    let shared = shared();
    let of_shards = Arc::clone(&shared);
    let (turns, counted) = mpsc::channel();
    let shards = shards::start(one_shard::start(), move |shard| {
        let state = ShardState::new(shard, &of_shards, &[]);
        let counting = claim_and_count(Rc::clone(&state), key.chunk_count(), turns.clone());
        async move {
            task::spawn(counting);
            turn::run(state).await;
        }
    });
    let shards = shards.expect("a shard can be started");
    let mut peers: Vec<_> = (0..PEERS).map(|_| Client::connect(&shards)).collect();
    peers.iter_mut().for_each(|peer| peer.join(key));
    let whole = (PEERS as u64 - 1) * 2 * u64::from(key.chunk_count()) + 1;
    let (mut handled, mut turns) = (0, 0);
    while handled < whole {
        let (now, last_waits) = counted.recv_timeout(Duration::from_secs(60)).expect("it goes on");
        let count = now - handled;
        assert!(count <= CLAIMS_AT_ONCE_MAX.into(), "{count} claims were one turn's work");
        turns += 1;
        assert!(turns < 4 || !last_waits, "it waits though each has had its turn");
        handled = now;
    }
    assert_eq!(handled, whole, "none is lost, none comes twice");
    let last = peers.last_mut().expect("there are some");
    last.send(&Message::Ping { token: 3 });
    assert!(last.hear(|message| *message == Message::Pong { token: 3 }), "it is served");
    shared.drain(clock::now());
    shards.drain();
    shards.join().expect("the shard itself is well");
}

#[test]
fn a_panic_in_one_connection_ends_that_connection_and_is_counted() {
    let bytes = vec![5; 3 << CHUNK_SIZE_LOG2];
    let manifest = Arc::new(Manifest::of(&bytes, CHUNK_SIZE_LOG2).expect("a small file"));
    let shared = shared();
    let now = Arc::new(AtomicBool::new(false));
    let (of_shards, order, told) = (Arc::clone(&shared), Arc::clone(&manifest), Arc::clone(&now));
    let shards = shards::start(one_shard::start(), move |shard| {
        let state = ShardState::new(shard, &of_shards, &[]);
        let (order, told) = (Arc::clone(&order), Arc::clone(&told));
        async move {
            task::spawn(make_a_mistake(Rc::clone(&state), order, told));
            turn::run(state).await;
        }
    });
    let shards = shards.expect("a shard can be started");
    let mut victim = Client::connect(&shards);
    victim.join(*manifest.key());
    let mut other = Client::connect(&shards);
    other.join(*manifest.key());
    now.store(true, Ordering::SeqCst);
    assert!(victim.hear(|message| matches!(message, Message::Fetch { fetch_id: 7, .. })));
    let payload = &bytes[..1 << 14];
    let header = DataHeader {
        chunk: 0,
        offset: 0,
        payload_len: 1 << 14,
        tag: 7,
        checksum: frame_crc(payload),
    };
    victim.stream.write_all(&[&header.encode(), payload].concat()).expect("sent");
    assert!(!victim.hear(|_| false), "the connection ends");
    other.send(&Message::Ping { token: 3 });
    assert!(other.hear(|message| *message == Message::Pong { token: 3 }), "the other goes on");
    let cells = &shared.cells[0];
    assert_eq!((cells.panics.get(), cells.connections.get()), (1, 1));
    assert_eq!(
        (shared.peers(), shared.memory.budget.in_use_bytes()),
        (1, 0),
        "nothing is left of it"
    );
    let mut late = Client::connect(&shards);
    late.join(*manifest.key());
    shared.drain(clock::now());
    shards.drain();
    shards.join().expect("the shard itself is well");
}
