//! Liars among the clients, a link that flips bits, a relay that lies: no honest peer is blamed for
//! what another did, and no wrong byte is kept.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    loadgen, relay, succeeds,
    support::{
        file::TestFile,
        process::{RelayProcess, drivers, run},
        proxy::{Frame, Handlers, OnFrame, Proxy},
    },
};

#[test]
fn one_liar_in_a_hundred_or_every_second_keeps_nobody_from_his_file() {
    for driver in drivers(relay) {
        for (clients, liars, seeding) in
            [(100, 1, "origin"), (30, 6, "spread"), (20, 10, "origin"), (20, 10, "spread")]
        {
            let relay = RelayProcess::start(relay(), &["--driver", driver, "--cache", "1M"]);
            let (to, clients) = (relay.addr.to_string(), clients.to_string());
            let common = ["--relay", &to, "--clients", &clients, "--file", "2M", "--chunk", "64K"];
            let liars = liars.to_string();
            let more = ["--corrupt", &liars, "--seeding", seeding, "--timeout", "100s"];
            succeeds(&run(loadgen().args(common).args(more)));
            let banned = relay.metric("relay_peers_banned_total", &[]);
            let most: f64 = liars.parse().expect("a number");
            assert!(banned <= most, "{banned} of {liars} were banned: someone honest was");
            // Each of them cost what it had been asked for when its first lie came.
            let wrong = relay.metric("relay_chunks_rejected_total", &["reason=\"wrong_digest\""]);
            assert!((banned..=4.0 * banned).contains(&wrong), "{wrong} wrong of {banned}");
            assert_eq!(relay.metric("relay_panics_total", &[]), 0.0);
        }
    }
}

/// Changes every `every`-th data frame of all connections, `most` times at most.
fn now_and_then(every: usize, most: usize, change: fn(&mut Frame, usize)) -> (Tamper, Counts) {
    let counts: Counts = Arc::default();
    (Tamper { every, most, change, counts: Arc::clone(&counts) }, counts)
}

type Counts = Arc<(AtomicUsize, AtomicUsize)>;

/// Frames are counted first, changes second.
#[derive(Clone)]
struct Tamper {
    every: usize,
    most: usize,
    change: fn(&mut Frame, usize),
    counts: Counts,
}

impl Tamper {
    fn handler(&self) -> OnFrame {
        let tamper = self.clone();
        Box::new(move |frame| {
            if !frame.is_data() {
                return;
            }
            let count = tamper.counts.0.fetch_add(1, Ordering::SeqCst) + 1;
            let is_due = count.is_multiple_of(tamper.every);
            if is_due && tamper.counts.1.fetch_add(1, Ordering::SeqCst) < tamper.most {
                (tamper.change)(frame, count);
            }
        })
    }
}

#[test]
fn a_link_that_flips_bits_gets_nobody_banned() {
    const FLIPS: usize = 20;
    for driver in drivers(relay) {
        let relay = RelayProcess::start(relay(), &["--driver", driver]);
        let flip = |frame: &mut Frame, at| frame.flip(at);
        let ((up, ups), (down, downs)) =
            (now_and_then(23, FLIPS, flip), now_and_then(97, FLIPS, flip));
        let link =
            Proxy::start(relay.addr, move || Handlers { up: up.handler(), down: down.handler() });
        let dir = tempfile::tempdir().expect("a directory");
        let (to, store) = (link.addr.to_string(), format!("dir:{}", dir.path().display()));
        let common = ["--relay", &to, "--clients", "10", "--file", "4M", "--chunk", "64K"];
        let more = ["--store", &store, "--seeding", "origin", "--timeout", "100s"];
        succeeds(&run(loadgen().args(common).args(more)));
        let damaged = downs.1.load(Ordering::SeqCst).min(FLIPS);
        assert!(damaged > 0 && ups.1.load(Ordering::SeqCst) > 0, "bits were flipped both ways");
        assert_eq!(relay.metric("relay_peers_banned_total", &[]), 0.0, "nobody is blamed");
        let rejected = |reason| relay.metric("relay_chunks_rejected_total", &[reason]);
        assert_eq!(rejected("reason=\"wrong_digest\""), 0.0);
        assert!(rejected("reason=\"link_corrupt\"") > 0.0, "the relay noticed, too");
        // The peer that got a damaged chunk said so before it closed, and was heard. Once, however many of the
        // chunk's frames were damaged.
        let told = relay.log().matches("damaged on the way").count();
        assert!((damaged / 2..=2 * FLIPS).contains(&told), "{told} last words for {damaged}");
    }
}

/// Whether what a client kept of the file is right: each chunk is the file's, or not there.
fn assert_no_wrong_chunk(file: &TestFile, kept: &[u8], chunk_bytes: usize) -> usize {
    let mut right = 0;
    for (chunk, (kept, expected)) in
        kept.chunks(chunk_bytes).zip(file.bytes.chunks(chunk_bytes)).enumerate()
    {
        let is_hole = kept.iter().all(|&byte| byte == 0);
        assert!(is_hole || kept == expected, "chunk {chunk} is wrong");
        right += usize::from(!is_hole);
    }
    right
}

fn files_below(dir: &Path) -> Vec<Vec<u8>> {
    let clients = std::fs::read_dir(dir).expect("the clients' directories").flatten();
    let files = clients.flat_map(|client| std::fs::read_dir(client.path()).into_iter().flatten());
    files.flatten().map(|file| std::fs::read(file.path()).expect("a client's file")).collect()
}

#[test]
fn a_relay_that_lies_is_given_up_and_no_wrong_byte_is_kept() {
    const CHUNK_BYTES: usize = 64 << 10;
    const CLIENTS: usize = 5;
    let relay = RelayProcess::start(relay(), &[]);
    // As a relay that changes chunks, and makes the checksums fit.
    let lie = |frame: &mut Frame, at| {
        frame.flip(at);
        frame.reseal();
    };
    let (down, lies) = now_and_then(101, usize::MAX, lie);
    let link =
        Proxy::start(relay.addr, move || Handlers { up: Box::new(|_| {}), down: down.handler() });
    let file = TestFile::new(7, 4 << 20, 16);
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("source");
    std::fs::write(&source, &file.bytes).expect("written");
    let out = dir.path().join("out");
    let (to, store) = (link.addr.to_string(), format!("dir:{}", out.display()));
    let clients = CLIENTS.to_string();
    let source = source.to_str().expect("a plain name");
    let common = ["--relay", &to, "--clients", &clients, "--file", source, "--chunk", "64K"];
    let more = ["--store", &store, "--seeding", "origin", "--timeout", "100s"];
    let ended = run(loadgen().args(common).args(more));
    assert_eq!(ended.code, 1, "{}\n{}", ended.stdout, ended.stderr);
    let said = ended.stdout + &ended.stderr;
    assert!(said.contains("the relay sent wrong bytes, or the path forged them"), "{said}");
    assert!(lies.1.load(Ordering::SeqCst) > 0);
    let kept = files_below(&out);
    assert_eq!(kept.len(), CLIENTS);
    let right: usize =
        kept.iter().map(|kept| assert_no_wrong_chunk(&file, kept, CHUNK_BYTES)).sum();
    assert!(right > 0, "what was right before is kept");
}
