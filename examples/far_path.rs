//! A long path on one machine: a TCP proxy that adds time to each direction, and nothing else.
//!
//! `cargo run --release --example far_path LISTEN TO MILLISECONDS` passes connections to LISTEN on to TO;
//! each byte takes half of the round trip. It holds no one up: what is on its way is bounded by memory
//! alone (`PIECES_MAX`), so whatever bounds a transfer is one of its ends. Used by `bench/far.py`.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::{Duration, Instant},
};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Pieces on their way in one direction. A narrow link brings them packet by packet: half a second of 1 Gbit/s.
const PIECES_MAX: usize = 1 << 16;

/// Bytes, and when they come out.
type Piece = (Instant, Vec<u8>);

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "nothing here is an event loop")]
fn in_background(run: impl FnOnce() + Send + 'static) {
    drop(std::thread::spawn(run));
}

#[expect(clippy::disallowed_methods, reason = "nothing here is an event loop")]
fn wait_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(now()));
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, to, round_trip_ms] = &arguments[..] else {
        return Err(io::Error::other("usage: far_path LISTEN TO MILLISECONDS"));
    };
    let round_trip_ms: u64 = round_trip_ms.parse().map_err(io::Error::other)?;
    let delay = Duration::from_millis(round_trip_ms) / 2;
    let listener = TcpListener::bind(listen)?;
    println!("{}", listener.local_addr()?);
    for near in listener.incoming() {
        let near = near?;
        match TcpStream::connect(to) {
            Ok(far) => connect(near, far, delay)?,
            // The other end isn't there yet: the client sees its connection end, and tries again.
            Err(_) => drop(near),
        }
    }
    Ok(())
}

fn connect(near: TcpStream, far: TcpStream, delay: Duration) -> io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    for (from, to) in [(near.try_clone()?, far.try_clone()?), (far, near)] {
        let (sender, receiver) = sync_channel(PIECES_MAX);
        in_background(move || take_in(from, &sender, delay));
        in_background(move || give_out(to, &receiver));
    }
    Ok(())
}

fn take_in(mut from: TcpStream, pieces: &SyncSender<Piece>, delay: Duration) {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let Ok(count) = from.read(&mut buffer) else { return };
        // An empty piece is the end.
        if pieces.send((now() + delay, buffer[..count].to_vec())).is_err() || count == 0 {
            return;
        }
    }
}

fn give_out(mut to: TcpStream, pieces: &Receiver<Piece>) {
    for (due, piece) in pieces {
        wait_until(due);
        if piece.is_empty() {
            to.shutdown(Shutdown::Write).ok();
            return;
        }
        if to.write_all(&piece).is_err() {
            to.shutdown(Shutdown::Both).ok();
            return;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}
