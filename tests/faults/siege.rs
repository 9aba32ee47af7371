//! Many attackers at once, of many kinds. What they cost the relay is bounded (memory,
//! descriptors, processor time), and twenty honest clients get their file meanwhile.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use relay::{
    protocol::{ChunkRange, Claims, Digest, Message, SwarmKey, encode_preamble},
    rng::Rng,
};

use crate::programs::relay;
use crate::support::{
    file::TestFile,
    honest::{Origin, download},
    in_background, pause,
    process::{RelayProcess, descriptors, resident_bytes_peak},
    wait_until,
    wire::{Heard, Wire, hello, origin_hello, with_claims},
};

/// Connections that say nothing.
const SILENT: usize = 1000;

/// Connections that say a byte a second, and as many that end within their greeting.
const SLOW: usize = 50;

/// Honest clients that download meanwhile.
const HONEST: usize = 20;

/// Chunk bytes that the relay may hold.
const CACHE_BYTES: f64 = (4 << 20) as f64;

/// Resident memory of the relay: cache, shards' buffers, and some KiB for each of 1,500
/// connections come to a tenth of it or two.
const RESIDENT_BYTES_MAX: u64 = 192 << 20;

/// Descriptors beside connections: listeners, doorbells, event loops, files.
const DESCRIPTORS_BESIDE_MAX: usize = 64;

/// Processor time of a relay that serves twenty clients and is otherwise besieged by peers that do
/// next to nothing for 10 s; a shard that spins would take as long as that by itself.
const CPU_SECONDS_MAX: f64 = 8.0;

/// A besieger that is not spoken to for so long tries something else.
const BESIEGER_PATIENCE: Duration = Duration::from_secs(1);

/// Where those are that supply wrong bytes: elsewhere, so that no other peer is suspected with them. On
/// Linux all of 127.0.0.0/8 is this machine.
const LIARS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Bytes of one flood.
const FLOOD_BYTES: usize = 8 << 20;

/// Peers that claim everything, answer nothing and stay.
const PRETENDERS: usize = 100;

/// Processor time in a second after the siege: nothing of it lives on.
const CPU_SECONDS_AFTER_MAX: f64 = 0.5;

struct Siege {
    relay: RelayProcess,
    file: Arc<TestFile>,
    origin: Origin,
}

impl Siege {
    fn begin() -> Self {
        let relay = RelayProcess::start(relay(), &["--cache", "4M", "--cores", "2"]);
        let file = Arc::new(TestFile::new(1, 4 << 20, 16));
        let origin = Origin::start(relay.addr, &file);
        Self { relay, file, origin }
    }

    /// All honest clients get the file.
    fn serve(&self) {
        let clients: Vec<_> = (0..HONEST)
            .map(|_| {
                let (addr, file) = (self.relay.addr, Arc::clone(&self.file));
                in_background(move || download(addr, &file))
            })
            .collect();
        for client in clients {
            client.join().expect("an honest client gets its file");
        }
    }

    /// What it cost, with so many connections at most.
    fn check(&self, connections: usize) {
        assert!(self.origin.is_serving(), "the origin is not blamed");
        assert_eq!(self.relay.metric("relay_panics_total", &[]), 0.0);
        let chunk_bytes = self.relay.metric("relay_chunk_bytes_peak", &[]);
        assert!(chunk_bytes <= CACHE_BYTES, "{chunk_bytes}");
        let resident = resident_bytes_peak(self.relay.id());
        assert!(resident <= RESIDENT_BYTES_MAX, "{resident} bytes were resident");
        let open = descriptors(self.relay.id());
        assert!(open <= connections + DESCRIPTORS_BESIDE_MAX, "{open} descriptors are open");
        println!("{resident} bytes resident at most, {open} descriptors for {connections}");
    }
}

/// Connections that say nothing, a part of a greeting, or a byte now and then.
struct Idlers {
    held: Vec<Wire>,
    one_by_one: Vec<Wire>,
}

impl Idlers {
    fn connect(addr: SocketAddr) -> Self {
        let connect = |_| Wire::connect(addr).expect("connected");
        let mut held: Vec<_> = (0..SILENT).map(connect).collect();
        for mut wire in (0..SLOW).map(connect) {
            wire.send_bytes(&encode_preamble()[..9]).expect("sent");
            wire.shut_write();
            held.push(wire);
        }
        Self { held, one_by_one: (0..SLOW).map(connect).collect() }
    }
}

/// Peers that grant all there is and read nothing.
fn deaf(siege: &Siege) -> Vec<Wire> {
    let mut deaf: Vec<_> = (0..HONEST)
        .map(|_| Wire::join(siege.relay.addr, hello(siege.file.key())).expect("it may join"))
        .collect();
    for wire in &mut deaf {
        let progress = Message::Progress { received_bytes: 0, granted_bytes: u64::MAX };
        wire.send(&progress).expect("sent");
    }
    deaf
}

/// Sends a byte of a greeting on each, and waits so long, until all are cut off or it is over.
fn drip(mut wires: Vec<Wire>, over: &AtomicBool) {
    for byte in encode_preamble().into_iter().cycle() {
        wires.retain_mut(|wire| wire.send_bytes(&[byte]).is_ok());
        if wires.is_empty() || over.load(Ordering::SeqCst) {
            return;
        }
        pause(Duration::from_secs(1));
    }
}

#[test]
fn a_thousand_who_do_next_to_nothing_cost_next_to_nothing() {
    let siege = Siege::begin();
    let Idlers { held, one_by_one } = Idlers::connect(siege.relay.addr);
    let deaf = deaf(&siege);
    let dripping = in_background(move || drip(one_by_one, &AtomicBool::new(false)));
    siege.serve();
    siege.check(SILENT + 2 * SLOW + 2 * HONEST + 1);
    dripping.join().expect("those who drip are cut off");
    let label = ["reason=\"handshake_timeout\""];
    siege.relay.wait_metric("relay_connections_refused_total", &label, (SILENT + SLOW) as f64);
    siege.relay.wait_metric("relay_connections_stalled_total", &[], HONEST as f64);
    wait_until("the siege to be over", || siege.relay.metric("relay_connections", &[]) <= 1.0);
    let cpu = siege.relay.metric("process_cpu_seconds_total", &[]);
    assert!(cpu <= CPU_SECONDS_MAX, "{cpu} s of processor time");
    siege.check(1);
    drop((held, deaf));
}

/// What one kind of besieger does with one connection; it is called again and again.
type Attack = fn(SocketAddr, &TestFile, &mut Rng) -> io::Result<()>;

fn garbage(addr: SocketAddr, _: &TestFile, rng: &mut Rng) -> io::Result<()> {
    let mut wire = Wire::connect(addr)?;
    if rng.below(2) == 0 {
        wire.send_bytes(&encode_preamble())?;
    }
    let mut bytes = vec![0; 64 << 10];
    bytes.iter_mut().for_each(|byte| *byte = rng.below(256).to_le_bytes()[0]);
    for _ in 0..16 {
        wire.send_bytes(&bytes)?;
    }
    Ok(())
}

fn grants_all_there_is_and_reads_nothing(
    addr: SocketAddr,
    file: &TestFile,
    _: &mut Rng,
) -> io::Result<()> {
    let mut wire = Wire::join(addr, hello(file.key()))?;
    wire.send(&Message::Progress { received_bytes: 0, granted_bytes: u64::MAX })?;
    pause(Duration::from_millis(200));
    Ok(())
}

fn acknowledges_what_never_came(addr: SocketAddr, file: &TestFile, _: &mut Rng) -> io::Result<()> {
    let mut wire = Wire::join(addr, hello(file.key()))?;
    wire.send(&Message::Progress { received_bytes: 1 << 40, granted_bytes: u64::MAX })?;
    wire.hear_end();
    Ok(())
}

fn floods_requests(addr: SocketAddr, file: &TestFile, rng: &mut Rng) -> io::Result<()> {
    let mut wire = Wire::join(addr, hello(file.key()))?;
    let request = match rng.below(4) {
        0 => Message::StatsRequest,
        1 => Message::ManifestRequest,
        2 => Message::Want { chunks: (0..64).collect() },
        _ => Message::Have { ranges: vec![ChunkRange { first: 0, count: 64 }; 50] },
    };
    // Some of it costs the relay so little that it takes all there is.
    wire.flood_at_most(&request, FLOOD_BYTES);
    Ok(())
}

fn claims_what_it_does_not_have(
    addr: SocketAddr,
    file: &TestFile,
    rng: &mut Rng,
) -> io::Result<()> {
    let mut wire = Wire::join(addr, with_claims(file, Claims::Everything))?;
    wire.set_patience(BESIEGER_PATIENCE);
    for _ in 0..20 {
        match wire.hear()? {
            // Half of them say that they can't, half say nothing at all.
            Heard::Control(Message::Fetch { fetch_id, .. }) if rng.below(2) == 0 => {
                wire.send(&Message::FetchRefused { fetch_id })?;
            }
            Heard::Control(Message::ManifestRequest) => wire.send(&Message::ManifestRefused)?,
            Heard::Control(Message::Failure(_)) | Heard::Closed => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

/// Publishes the file under a size that isn't its own, with digests that can't merge.
fn lies_about_the_size(addr: SocketAddr, file: &TestFile, rng: &mut Rng) -> io::Result<()> {
    let key = SwarmKey { size_bytes: file.key().size_bytes + 1 + rng.below(1 << 20), ..file.key() };
    let mut wire = Wire::join(addr, origin_hello(key))?;
    wire.set_patience(BESIEGER_PATIENCE);
    let mut hungry = Wire::join(addr, hello(key))?;
    hungry.send(&Message::Progress { received_bytes: 0, granted_bytes: 1 << 20 })?;
    loop {
        match wire.hear()? {
            Heard::Control(Message::ManifestRequest) => {
                let digests = file.manifest.digests().iter().copied();
                let digests = digests.chain(std::iter::repeat(Digest([1; 32])));
                let digests: Vec<_> = digests.take(key.chunk_count() as usize).collect();
                for (index, part) in (0u32..).zip(digests.chunks(32)) {
                    let digests = part.to_vec();
                    wire.send(&Message::ManifestPart { first_chunk: index * 32, digests })?;
                }
            }
            Heard::Control(Message::Failure(_)) | Heard::Closed => return Ok(()),
            _ => {}
        }
    }
}

fn lies(addr: SocketAddr, file: &TestFile, _: &mut Rng) -> io::Result<()> {
    let wire = Wire::connect_from(LIARS, addr)?;
    let mut wire = wire.joined(with_claims(file, Claims::Everything))?;
    wire.set_patience(BESIEGER_PATIENCE);
    loop {
        match wire.hear()? {
            Heard::Control(Message::Fetch { fetch_id, chunk }) => {
                let wrong: Vec<u8> = file.chunk(chunk).iter().map(|byte| !byte).collect();
                wire.send_chunk(fetch_id, chunk, &wrong)?;
            }
            Heard::Control(Message::Failure(_)) | Heard::Closed => return Ok(()),
            _ => {}
        }
    }
}

/// Repeats an attack until it is told to stop.
fn besiege(
    attack: Attack,
    addr: SocketAddr,
    file: &Arc<TestFile>,
    seed: u64,
    over: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (file, over) = (Arc::clone(file), Arc::clone(over));
    in_background(move || {
        let mut rng = Rng::new(seed, 0);
        while !over.load(Ordering::SeqCst) {
            // However it ends: it asked for it. It comes back at once, or nearly so.
            attack(addr, &file, &mut rng).ok();
            pause(Duration::from_millis(2));
        }
    })
}

/// All kinds of attacks, each twice, until it is over.
fn besiege_by_all(siege: &Siege, over: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let attacks: [Attack; 7] = [
        garbage,
        grants_all_there_is_and_reads_nothing,
        acknowledges_what_never_came,
        floods_requests,
        claims_what_it_does_not_have,
        lies_about_the_size,
        lies,
    ];
    let attacks = (0u64..).zip(attacks.into_iter().chain(attacks));
    let addr = siege.relay.addr;
    attacks.map(|(seed, attack)| besiege(attack, addr, &siege.file, seed, over)).collect()
}

#[test]
fn twenty_are_served_among_all_attacks_at_once() {
    let siege = Siege::begin();
    let addr = siege.relay.addr;
    let over = Arc::new(AtomicBool::new(false));
    let claims = || with_claims(&siege.file, Claims::Everything);
    let pretend = |_| Wire::join(addr, claims()).expect("whoever claims may join");
    let pretenders: Vec<_> = (0..PRETENDERS).map(pretend).collect();
    let Idlers { held, one_by_one } = Idlers::connect(addr);
    let deaf = deaf(&siege);
    let mut besiegers = besiege_by_all(&siege, &over);
    besiegers.push({
        let over = Arc::clone(&over);
        in_background(move || drip(one_by_one, &over))
    });
    for _ in 0..3 {
        siege.serve();
        // Each besieger has two connections at most, and leaves some that linger.
        siege.check(2048 + PRETENDERS + 2 * HONEST);
    }
    assert!(siege.relay.metric("relay_peers_banned_total", &[]) > 0.0, "there were liars");
    over.store(true, Ordering::SeqCst);
    drop((pretenders, held, deaf));
    for besieger in besiegers {
        besieger.join().expect("a besieger does not fail by itself");
    }
    wait_until("the siege to be over", || siege.relay.metric("relay_connections", &[]) <= 1.0);
    let cpu = || siege.relay.metric("process_cpu_seconds_total", &[]);
    let before = cpu();
    pause(Duration::from_secs(1));
    let after = cpu() - before;
    assert!(after <= CPU_SECONDS_AFTER_MAX, "{after} s of processor time in an idle second");
    siege.serve();
    siege.check(1 + HONEST);
}
