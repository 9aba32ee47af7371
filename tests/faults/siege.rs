//! Many who do next to nothing, at once. What they cost the relay is bounded (memory,
//! descriptors, processor time), and twenty honest clients get their file meanwhile.

use std::{process::Command, sync::Arc, time::Duration};

use relay::protocol::{Message, encode_preamble};

use crate::support::{
    file::TestFile,
    honest::{Origin, download},
    in_background, pause, proc,
    process::RelayProcess,
    wait_until,
    wire::{Wire, hello},
};

/// Honest clients that download meanwhile.
const HONEST: usize = 20;

/// Chunk bytes that the relay may hold.
const CACHE_BYTES: f64 = (4 << 20) as f64;

/// Resident memory of the relay: cache, shards' buffers, and some KiB for each of 1,500
/// connections come to a tenth of it or two.
const RESIDENT_BYTES_MAX: u64 = 192 << 20;

/// Descriptors beside connections: listeners, doorbells, event loops, files.
const DESCRIPTORS_BESIDE_MAX: usize = 64;

/// Processor time of a relay that serves twenty clients and is otherwise besieged by those who do
/// next to nothing for 10 s; a shard that spins would take as long as that by itself.
const CPU_SECONDS_MAX: f64 = 8.0;

fn relay() -> Command {
    Command::new(env!("CARGO_BIN_EXE_relay"))
}

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
        let resident = proc::resident_bytes_peak(self.relay.id());
        assert!(resident <= RESIDENT_BYTES_MAX, "{resident} bytes were resident");
        let open = proc::descriptors(self.relay.id());
        assert!(open <= connections + DESCRIPTORS_BESIDE_MAX, "{open} descriptors are open");
        println!("{resident} bytes resident at most, {open} descriptors for {connections}");
    }
}

#[test]
fn a_thousand_who_do_next_to_nothing_cost_next_to_nothing() {
    const SILENT: usize = 1000;
    const SLOW: usize = 50;
    let siege = Siege::begin();
    let addr = siege.relay.addr;
    let connect = |_| Wire::connect(addr).expect("connected");
    let silent: Vec<_> = (0..SILENT).map(connect).collect();
    let mut half_closed: Vec<_> = (0..SLOW).map(connect).collect();
    for wire in &mut half_closed {
        wire.send_bytes(&encode_preamble()[..9]).expect("sent");
        wire.shut_write();
    }
    let mut one_by_one: Vec<_> = (0..SLOW).map(connect).collect();
    let mut deaf: Vec<_> = (0..HONEST)
        .map(|_| Wire::join(addr, hello(siege.file.key())).expect("it may join"))
        .collect();
    for wire in &mut deaf {
        let progress = Message::Progress { received_bytes: 0, granted_bytes: u64::MAX };
        wire.send(&progress).expect("sent");
    }
    let dripping = in_background(move || {
        // A byte a second each, until all of them are cut off.
        for byte in encode_preamble().into_iter().cycle() {
            one_by_one.retain_mut(|wire| wire.send_bytes(&[byte]).is_ok());
            if one_by_one.is_empty() {
                return;
            }
            pause(Duration::from_secs(1));
        }
    });
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
    drop((silent, half_closed, deaf));
}
