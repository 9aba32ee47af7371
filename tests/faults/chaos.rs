//! Peers that speak the language and make no sense: seeded random messages, each within its limits,
//! in any order. The relay may refuse them; it must not panic, nor leak, nor let the honest down.
//!
//! `CHAOS_SEED=n` replays the scripts of a run; how they interleave is up to the system.

use std::{io, net::SocketAddr, sync::Arc};

use relay::{
    protocol::{ChunkRange, Claims, Digest, Message, Order, Seeding},
    rng::Rng,
};

use crate::programs::relay;
use crate::support::{
    file::TestFile,
    honest::{Origin, download},
    in_background,
    process::{RelayProcess, drivers},
    wait_until,
    wire::{Heard, Wire, hello},
};

/// Peers that act at the same time.
const ACTORS: u64 = 8;

/// Connections that each of them makes, one after the other.
const LIVES: u64 = 12;

/// Runs on each driver.
const SEEDS: u64 = 5;

/// What each says on a connection, if it is let.
const WORDS: u64 = 60;

/// A chunk, now and then one too many.
fn any_chunk(rng: &mut Rng, chunk_count: u32) -> u32 {
    let most = u64::from(chunk_count) + u64::from(rng.below(40) == 0);
    u32::try_from(rng.below(most)).expect("chunks are few")
}

fn any_hello(rng: &mut Rng, file: &TestFile) -> Message {
    let mut hello = hello(file.key());
    hello.claims = match rng.below(4) {
        0 => Claims::Everything,
        1 => Claims::Some,
        _ => Claims::Nothing,
    };
    hello.order = if rng.below(3) == 0 { Order::Peer } else { Order::Relay };
    hello.seeding = match rng.below(6) {
        0 => Some(Seeding::Origin),
        1 => Some(Seeding::Spread { peers: u32::try_from(rng.below(5)).expect("few") }),
        _ => None,
    };
    Message::Hello(hello)
}

fn any_message(rng: &mut Rng, file: &TestFile, received: u64) -> Message {
    let count = file.key().chunk_count();
    let received_bytes = rng.below(received + 1);
    match rng.below(14) {
        0..3 => {
            let granted_bytes = received_bytes + rng.below(1 << 20);
            Message::Progress { received_bytes, granted_bytes }
        }
        3 | 4 => {
            let first = any_chunk(rng, count);
            let room = u64::from(count.saturating_sub(first)).max(1);
            let count = u32::try_from(1 + rng.below(room)).expect("few");
            Message::Have { ranges: vec![ChunkRange { first, count }] }
        }
        5 => Message::Want { chunks: (0..5).map(|_| any_chunk(rng, count)).collect() },
        6 | 7 => Message::Lacking { chunk: any_chunk(rng, count) },
        8 => Message::FetchRefused { fetch_id: u32::try_from(rng.below(50)).expect("few") },
        9 => Message::ManifestRefused,
        10 => Message::ManifestRequest,
        11 => Message::StatsRequest,
        12 if rng.below(8) == 0 => Message::Leaving,
        13 if rng.below(8) == 0 => {
            Message::ManifestPart { first_chunk: 0, digests: vec![Digest([3; 32]); 4] }
        }
        _ => Message::Ping { token: rng.below(u64::MAX) },
    }
}

/// Hears what there is to hear after a ping, and answers some of it, rightly or not.
fn listen(wire: &mut Wire, rng: &mut Rng, file: &TestFile, received: &mut u64) -> io::Result<()> {
    let token = rng.below(u64::MAX);
    wire.send(&Message::Ping { token })?;
    loop {
        match wire.hear()? {
            Heard::Control(Message::Pong { token: heard }) if heard == token => return Ok(()),
            Heard::Control(Message::Failure(failure)) => {
                return Err(io::Error::other(failure.to_string()));
            }
            Heard::Control(Message::Fetch { fetch_id, chunk }) => match rng.below(5) {
                0 => {}
                1 => wire.send(&Message::FetchRefused { fetch_id })?,
                _ => wire.send_chunk(fetch_id, chunk, file.chunk(chunk))?,
            },
            Heard::Control(Message::ManifestRequest) => match rng.below(3) {
                0 => wire.send(&Message::ManifestRefused)?,
                _ => file.manifest.parts(0).try_for_each(|part| wire.send(&part))?,
            },
            Heard::Data { bytes, .. } => *received += bytes.len() as u64,
            Heard::Closed => return Err(io::Error::other("closed")),
            Heard::Preamble | Heard::Control(_) => {}
        }
    }
}

/// One connection from its beginning to whatever end.
fn live(addr: SocketAddr, rng: &mut Rng, file: &TestFile) -> io::Result<()> {
    let (mut wire, _) = Wire::greet(addr)?;
    let hello = any_hello(rng, file);
    wire.send(&hello)?;
    if let Message::Hello(hello) = &hello
        && matches!(hello.claims, Claims::Some)
    {
        let count = file.key().chunk_count() as usize;
        let mut bytes: Vec<u8> =
            (0..count.div_ceil(8)).map(|_| rng.below(256).to_le_bytes()[0]).collect();
        if !count.is_multiple_of(8)
            && let Some(last) = bytes.last_mut()
        {
            *last &= (1 << (count % 8)) - 1;
        }
        wire.send(&Message::BitfieldPart { offset_bytes: 0, bytes })?;
    }
    match wire.hear()? {
        Heard::Control(Message::Accepted(_)) => {}
        other => return Err(io::Error::other(format!("{other:?}"))),
    }
    let mut received = 0;
    for _ in 0..rng.below(WORDS) {
        wire.send(&any_message(rng, file, received))?;
        if rng.below(3) == 0 {
            listen(&mut wire, rng, file, &mut received)?;
        }
    }
    if rng.below(2) == 0 {
        wire.reset();
    }
    Ok(())
}

#[test]
fn peers_that_make_no_sense_do_no_harm() {
    let given = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = given.map_or(1..=SEEDS, |seed| seed..=seed);
    let drivers = drivers(relay);
    for seed in seeds {
        println!("CHAOS_SEED={seed}");
        for driver in &drivers {
            check(seed, driver);
        }
    }
}

fn check(seed: u64, driver: &str) {
    let args = ["--driver", driver, "--cores", "2", "--oversubscribe", "--cache", "256K"];
    let relay = RelayProcess::start(relay(), &args);
    let addr = relay.addr;
    let files: Vec<_> =
        (0..3).map(|index| Arc::new(TestFile::new(seed + index, 600_000, 14))).collect();
    let origins: Vec<_> = files.iter().map(|file| Origin::start(addr, file)).collect();
    let actors: Vec<_> = (0..ACTORS)
        .map(|actor| {
            let files = files.clone();
            in_background(move || {
                let mut rng = Rng::new(seed, actor);
                for _ in 0..LIVES {
                    let index = usize::try_from(rng.below(3)).expect("three");
                    // However it ends: it asked for it.
                    live(addr, &mut rng, &files[index]).ok();
                }
            })
        })
        .collect();
    let honest: Vec<_> = files
        .iter()
        .map(|file| {
            let file = Arc::clone(file);
            in_background(move || {
                for _ in 0..3 {
                    download(addr, &file);
                }
            })
        })
        .collect();
    for actor in actors {
        actor.join().expect("an actor does not fail by itself");
    }
    for client in honest {
        client.join().expect("an honest client gets its file");
    }
    assert!(origins.iter().all(Origin::is_serving), "no origin is blamed");
    assert_eq!(relay.metric("relay_panics_total", &[]), 0.0);
    let peak = relay.metric("relay_chunk_bytes_peak", &[]);
    assert!(peak <= f64::from(256 << 10), "{peak}");
    drop(origins);
    wait_until("only the origins to be there", || relay.metric("relay_peers", &[]) <= 3.0);
    for file in &files {
        download(addr, file);
    }
}
