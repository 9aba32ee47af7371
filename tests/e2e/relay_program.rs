//! The relay end to end, with peers made by hand from the wire format: files of awkward sizes,
//! many clients, tokens, statistics, on every driver that works here.

use std::sync::Arc;

use relay::protocol::{FailureCode, Message, Token};

use crate::programs::relay;
use crate::support::{
    file::TestFile,
    honest::{Download, Origin, download},
    in_background,
    process::{RelayProcess, drivers},
    wire::{Heard, Wire, hello, origin_hello},
};

const CHUNK_SIZE_LOG2: u8 = 14;
const CHUNK_BYTES: usize = 1 << CHUNK_SIZE_LOG2;

#[test]
fn files_of_awkward_sizes_arrive_on_every_driver() {
    for driver in drivers(relay) {
        let relay = RelayProcess::start(relay(), &["--driver", driver]);
        let sizes = [
            1,
            CHUNK_BYTES - 1,
            CHUNK_BYTES,
            CHUNK_BYTES + 1,
            3 * CHUNK_BYTES,
            40 * CHUNK_BYTES + 5,
        ];
        for (seed, size) in (0..).zip(sizes) {
            let file = Arc::new(TestFile::new(seed, size, CHUNK_SIZE_LOG2));
            let _origin = Origin::start(relay.addr, &file);
            download(relay.addr, &file);
        }
    }
}

#[test]
fn an_empty_file_is_complete_on_joining() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(0, 0, CHUNK_SIZE_LOG2));
    let origin = Origin::start(relay.addr, &file);
    download(relay.addr, &file);
    assert!(origin.is_serving());
}

#[test]
fn chunks_larger_than_a_frame_and_smaller_than_one_arrive() {
    let relay = RelayProcess::start(relay(), &[]);
    for (seed, log2) in (0..).zip([10, 13, 15, 18, 20]) {
        let file = Arc::new(TestFile::new(seed, 3 << 20, log2));
        let _origin = Origin::start(relay.addr, &file);
        download(relay.addr, &file);
    }
}

#[test]
fn many_clients_share_what_was_fetched_about_once() {
    for driver in drivers(relay) {
        let relay = RelayProcess::start(relay(), &["--driver", driver]);
        let file = Arc::new(TestFile::new(1, 4 << 20, 16));
        let _origin = Origin::start(relay.addr, &file);
        let clients: Vec<_> = (0..10)
            .map(|_| {
                let (addr, file) = (relay.addr, Arc::clone(&file));
                in_background(move || download(addr, &file))
            })
            .collect();
        for client in clients {
            client.join().expect("every client gets the file");
        }
        let fetched = relay.metric("relay_chunks_fetched_total", &[]);
        // All of it fits the cache: a chunk is fetched again only for peers that joined after it was free.
        assert!((64.0..=640.0).contains(&fetched), "{fetched} fetches of 64 chunks");
        let limit = relay.metric("relay_chunk_bytes_limit", &[]);
        assert!(relay.metric("relay_chunk_bytes_peak", &[]) <= limit);
    }
}

#[test]
fn a_cache_of_four_chunks_is_enough_for_a_whole_file() {
    let cache = (4 * CHUNK_BYTES * 2).to_string();
    let relay = RelayProcess::start(relay(), &["--cache", &cache]);
    // The largest chunk that such a cache is fit for.
    let file = Arc::new(TestFile::new(2, 1 << 20, CHUNK_SIZE_LOG2));
    let _origin = Origin::start(relay.addr, &file);
    let clients: Vec<_> = (0..5)
        .map(|_| {
            let (addr, file) = (relay.addr, Arc::clone(&file));
            in_background(move || download(addr, &file))
        })
        .collect();
    for client in clients {
        client.join().expect("every client gets the file");
    }
    let peak = relay.metric("relay_chunk_bytes_peak", &[]);
    assert!(peak > 0.0 && peak <= (8 * CHUNK_BYTES) as f64, "{peak}");
}

#[test]
fn peers_supply_what_they_have_when_the_origin_is_gone() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(3, 2 << 20, 16));
    let mut origin = Wire::join(relay.addr, origin_hello(file.key())).expect("it may join");
    let mut first = Download::join(relay.addr, file.key()).expect("it may join");
    let served = Arc::clone(&file);
    // Serves every chunk once, and goes.
    let serving = in_background(move || {
        let mut left = served.key().chunk_count();
        while left > 0 {
            match origin.hear().expect("the relay is there") {
                Heard::Control(Message::Fetch { fetch_id, chunk }) => {
                    origin.send_chunk(fetch_id, chunk, served.chunk(chunk)).expect("sent");
                    left -= 1;
                }
                Heard::Control(Message::ManifestRequest) => {
                    for part in served.manifest.parts(0) {
                        origin.send(&part).expect("sent");
                    }
                }
                Heard::Closed => panic!("the origin is cut off"),
                _ => {}
            }
        }
    });
    while !first.is_complete() {
        first.step().expect("the origin serves");
    }
    serving.join().expect("the origin has served everything");
    let supplying = in_background(move || while first.step().is_ok() {});
    download(relay.addr, &file);
    drop(relay);
    supplying.join().expect("the first peer served until the end");
}

#[test]
fn a_token_is_wanted_known_or_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("tokens");
    std::fs::write(&path, "first token\n  second token  \n").expect("written");
    let path = path.display().to_string();
    let relay = RelayProcess::start(relay(), &["--token-file", &path]);
    let file = TestFile::new(4, 1000, 10);
    for line in ["first token", "second token\n"] {
        let token = Token::from_line(line).expect("a token");
        Wire::join_with_token(relay.addr, hello(file.key()), &token).expect("a known token");
    }
    let wrong = Token::from_line("third token").expect("a token");
    let refused = Wire::join_with_token(relay.addr, hello(file.key()), &wrong);
    assert!(refused.is_err_and(|error| error.to_string().starts_with("token refused")));
    let refused = Wire::join(relay.addr, hello(file.key()));
    assert!(refused.is_err_and(|error| error.to_string().contains("--token-file")));
    relay.wait_metric("relay_connections_refused_total", &["reason=\"token\""], 2.0);
}

#[test]
fn statistics_count_what_went_through() {
    let relay = RelayProcess::start(relay(), &[]);
    let file = Arc::new(TestFile::new(5, 1 << 20, 16));
    let _origin = Origin::start(relay.addr, &file);
    download(relay.addr, &file);
    let mut observer = hello(file.key());
    observer.key = None;
    let mut observer = Wire::join(relay.addr, observer).expect("an observer may join");
    observer.send(&Message::StatsRequest).expect("sent");
    let Ok(Heard::Control(Message::Stats(stats))) = observer.hear() else {
        panic!("statistics were asked for");
    };
    assert_eq!(stats.ingress_bytes, 1 << 20);
    assert_eq!(stats.egress_bytes, 1 << 20);
    assert!(stats.chunk_bytes_peak >= 1 << 16 && stats.chunk_bytes_peak <= 256 << 20);
    assert!(stats.rss_bytes_peak > 0 && stats.cpu_us > 0 && stats.shards > 0);
    assert!(["io-uring", "epoll", "kqueue"].contains(&stats.driver.as_str()));
    assert_eq!(
        relay.metric("relay_bytes_total", &["kind=\"data\"", "direction=\"out\""]),
        f64::from(1 << 20)
    );
}

#[test]
fn a_chunk_too_large_for_the_cache_is_refused_with_what_to_do() {
    let relay = RelayProcess::start(relay(), &["--cache", "1M"]);
    let file = TestFile::new(6, 1 << 20, 19);
    let (mut wire, welcome) = Wire::greet(relay.addr).expect("greeted");
    assert_eq!(welcome.chunk_size_log2_max, 17);
    wire.send(&Message::Hello(origin_hello(file.key()))).expect("sent");
    let failure = wire.hear_end().expect("it is told why");
    assert_eq!(failure.code, FailureCode::SwarmRefused);
    assert!(failure.text.contains("--cache"), "{}", failure.text);
}
