//! Clients of a web server, built as ours are: on pinned event loops, one shared buffer for each
//! loop, which is read into when a socket is readable, every chunk checked against its digest; a loop
//! never preempts the server, and lends its core when its clients are done.
//!
//! Knows just enough HTTP to get one file: a GET, and an answer with its length.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, Thread},
    time::Duration,
};

use relay::{
    client::{Scratch, dial::dial, new_scratch},
    protocol::{ChunkHasher, Manifest},
};
use shards::{Driver, Placement, Shard, Start, clock, net::Socket, task};

use crate::usage;

/// An answer's head may be so long.
const HEAD_BYTES_MAX: usize = 4 << 10;

/// Clients of one loop that connect at the same time, as ours.
const CONNECTING_MAX: usize = 64;
const CONNECT_TICK: Duration = Duration::from_millis(1);

/// Errors that are kept, of all clients together.
const ERRORS_MAX: usize = 16;

/// How often the main thread looks whether all have ended.
const TICK: Duration = Duration::from_millis(50);

/// What all clients do.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) remote: SocketAddr,
    pub(crate) path: &'static str,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) clients: usize,
    pub(crate) timeout: Duration,
}

/// What it took.
#[derive(Debug)]
pub(crate) struct Received {
    /// From the first connect until the last client had verified the last byte.
    pub(crate) wall: Duration,
    /// CPU time of this process meanwhile.
    pub(crate) cpu: Duration,
}

/// Shared by all loops and the main thread.
#[derive(Debug)]
struct Board {
    main: Thread,
    started_at: AtomicU64,
    ended_at: AtomicU64,
    settled: AtomicUsize,
    verified: AtomicUsize,
}

/// Runs all clients; every one must end with the file.
///
/// # Errors
/// One didn't, or the event loops can't be started.
pub(crate) fn receive(job: &Job, placement: Placement, driver: Driver) -> anyhow::Result<Received> {
    let board = Arc::new(Board {
        main: thread::current(),
        started_at: AtomicU64::new(u64::MAX),
        ended_at: AtomicU64::new(0),
        settled: AtomicUsize::new(0),
        verified: AtomicUsize::new(0),
    });
    let shard_count = placement.shard_count();
    let (sender, errors): (SyncSender<String>, Receiver<String>) = sync_channel(ERRORS_MAX);
    let start =
        Start { placement, driver, name: "receiver", credits_per_pair: 1, handoff_capacity: 1 };
    let cpu_before = usage::cpu_time();
    let (remote, path, clients) = (job.remote, job.path, job.clients);
    let (shared, manifest) = (Arc::clone(&board), Arc::clone(&job.manifest));
    let shards = shards::start::<(), (), _, _>(start, move |shard| {
        let client = Client {
            remote,
            path,
            manifest: Arc::clone(&manifest),
            board: Arc::clone(&shared),
            errors: sender.clone(),
        };
        shard_main(shard, shard_count, clients, client)
    })?;
    let deadline = clock::now() + job.timeout;
    while board.settled.load(Ordering::Acquire) < clients && clock::now() < deadline {
        thread::park_timeout(TICK);
    }
    let cpu = usage::cpu_time().saturating_sub(cpu_before);
    shards.drain();
    shards.join()?;
    let verified = board.verified.load(Ordering::Acquire);
    if verified < clients {
        let error = errors.try_recv();
        let error =
            error.unwrap_or_else(|_| format!("timed out after {} s", job.timeout.as_secs_f64()));
        anyhow::bail!("{verified} of {clients} HTTP clients got the file: {error}");
    }
    let at = |moment: &AtomicU64| Duration::from_nanos(moment.load(Ordering::Acquire));
    Ok(Received { wall: at(&board.ended_at).saturating_sub(at(&board.started_at)), cpu })
}

/// What clients of one loop share.
struct Client {
    remote: SocketAddr,
    path: &'static str,
    manifest: Arc<Manifest>,
    board: Arc<Board>,
    errors: SyncSender<String>,
}

async fn shard_main(shard: Shard<(), ()>, shard_count: usize, clients: usize, client: Client) {
    task::never_preempt();
    let (client, scratch) = (Rc::new(client), new_scratch());
    let connecting = Rc::new(Cell::new(0usize));
    let mine = (0..clients).filter(|index| index % shard_count == shard.id.index());
    let busy = Rc::new(Cell::new(mine.clone().count()));
    for _ in mine {
        while connecting.get() >= CONNECTING_MAX && !shard.draining() {
            clock::sleep(CONNECT_TICK).await;
        }
        connecting.set(connecting.get() + 1);
        let (client, scratch) = (Rc::clone(&client), Rc::clone(&scratch));
        let (connecting, panicked) = (Rc::clone(&connecting), Arc::clone(&client.board));
        let (busy, lender) = (Rc::clone(&busy), shard.clone());
        let done = move || {
            busy.set(busy.get() - 1);
            if busy.get() == 0 {
                lender.lend_core();
            }
        };
        let done_in_panic = done.clone();
        task::spawn_isolated(
            async move {
                let result = client.run(&scratch, &connecting).await;
                client.settle(result);
                done();
            },
            move |_| {
                panicked.settle();
                done_in_panic();
            },
        );
        task::yield_now().await;
    }
    while !shard.draining() {
        shard.port.wait().await;
    }
}

impl Board {
    fn settle(&self) {
        self.settled.fetch_add(1, Ordering::AcqRel);
        self.main.unpark();
    }
}

impl Client {
    fn settle(&self, result: io::Result<()>) {
        match result {
            Ok(()) => {
                self.board.ended_at.fetch_max(nanos(), Ordering::AcqRel);
                self.board.verified.fetch_add(1, Ordering::AcqRel);
            }
            // More than a few errors say nothing new.
            Err(error) => drop(self.errors.try_send(error.to_string())),
        }
        self.board.settle();
    }

    async fn run(&self, scratch: &Scratch, connecting: &Cell<usize>) -> io::Result<()> {
        self.board.started_at.fetch_min(nanos(), Ordering::AcqRel);
        let socket = dial(self.remote).await;
        connecting.set(connecting.get() - 1);
        let socket = socket?;
        let request =
            format!("GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", self.path);
        send(&socket, request.as_bytes()).await?;
        let mut body = Body::new(Arc::clone(&self.manifest));
        loop {
            socket.readable().await?;
            // As our clients: a full buffer is read again at once, after others had their turn.
            while body.read(&socket, scratch.borrow_mut().bytes_mut())? {
                task::yield_now().await;
            }
            if body.is_whole() {
                return Ok(());
            }
        }
    }
}

fn nanos() -> u64 {
    u64::try_from(clock::now().as_nanos()).unwrap_or(u64::MAX)
}

async fn send(socket: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write_vectored(&[IoSlice::new(bytes)]) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An answer, as far as it came.
struct Body {
    manifest: Arc<Manifest>,
    /// What came of the head, until it is whole.
    head: Option<Vec<u8>>,
    chunk: u32,
    hasher: ChunkHasher,
}

impl Body {
    fn new(manifest: Arc<Manifest>) -> Self {
        let key = manifest.key();
        let hasher = ChunkHasher::new(key.chunk_count(), 0, key.chunk_size_log2);
        Self { manifest, head: Some(Vec::new()), chunk: 0, hasher }
    }

    fn is_whole(&self) -> bool {
        self.head.is_none() && self.chunk == self.manifest.key().chunk_count()
    }

    /// One read and what follows from it; whether it filled the buffer.
    fn read(&mut self, socket: &Socket, scratch: &mut [u8]) -> io::Result<bool> {
        let count = match socket.try_read(scratch) {
            Ok(0) => return Err(bad("it closed the connection too early")),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        self.take(&scratch[..count])?;
        Ok(count == scratch.len())
    }

    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if let Some(head) = &mut self.head {
            let Some(rest) = take_head(head, bytes, self.manifest.key().size_bytes)? else {
                return Ok(());
            };
            (self.head, bytes) = (None, rest);
        }
        while !bytes.is_empty() {
            bytes = self.take_chunk(bytes)?;
        }
        Ok(())
    }

    /// Up to the end of the chunk under way; what is left.
    fn take_chunk<'a>(&mut self, bytes: &'a [u8]) -> io::Result<&'a [u8]> {
        let key = *self.manifest.key();
        if self.chunk == key.chunk_count() {
            return Err(bad("it sent more than it said"));
        }
        let len = u64::from(key.chunk_len_bytes(self.chunk));
        let lacking = usize::try_from(len - self.hasher.fed_bytes()).unwrap_or(usize::MAX);
        let (own, rest) = bytes.split_at(lacking.min(bytes.len()));
        self.hasher.update(own);
        if self.hasher.fed_bytes() == len {
            if self.hasher.finalize() != self.manifest.digest(self.chunk) {
                return Err(bad(&format!("chunk {} is wrong", self.chunk)));
            }
            self.chunk += 1;
            if self.chunk < key.chunk_count() {
                self.hasher.restart(key.chunk_count(), self.chunk, key.chunk_size_log2);
            }
        }
        Ok(rest)
    }
}

/// What follows the head in `bytes`, once it is whole and says what it should.
fn take_head<'a>(
    head: &mut Vec<u8>,
    bytes: &'a [u8],
    size_bytes: u64,
) -> io::Result<Option<&'a [u8]>> {
    let before = head.len();
    head.extend_from_slice(&bytes[..bytes.len().min(HEAD_BYTES_MAX)]);
    let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if head.len() >= HEAD_BYTES_MAX {
            Err(bad("its head is too long"))
        } else {
            Ok(None)
        };
    };
    let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
    let status = text.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        return Err(bad(&format!("it answered {status}")));
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    if length.map(str::trim) != Some(size_bytes.to_string().as_str()) {
        return Err(bad("it announced another length"));
    }
    Ok(Some(&bytes[end + 4 - before..]))
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the web server is of no use: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5000\r\n\r\n";

    fn body() -> (Body, Vec<u8>) {
        let content: Vec<u8> = (0..5000u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        (Body::new(Arc::new(Manifest::of(&content, 10).unwrap())), [HEAD, &content].concat())
    }

    #[test]
    fn an_answer_is_whole_however_it_is_cut() {
        for piece in [1, 7, 1023, 1024, 1025, 10_000] {
            let (mut body, answer) = body();
            for bytes in answer.chunks(piece) {
                assert!(!body.is_whole());
                body.take(bytes).unwrap();
            }
            assert!(body.is_whole(), "{piece}");
        }
    }

    #[test]
    fn a_wrong_byte_and_a_wrong_length_are_found() {
        for at in [HEAD.len(), HEAD.len() + 4999] {
            let (mut body, mut answer) = body();
            answer[at] ^= 1;
            let error = body.take(&answer).unwrap_err().to_string();
            assert!(error.contains("is wrong"), "{error}");
        }
        let (mut body, mut answer) = body();
        answer.push(0);
        assert!(body.take(&answer).unwrap_err().to_string().contains("more than it said"));
    }

    #[test]
    fn what_is_no_good_answer_is_refused() {
        for (answer, reason) in [
            (&b"HTTP/1.1 404 Not Found\r\n\r\n"[..], "404"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 4999\r\n\r\n", "another length"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "another length"),
            (&[b'x'; 2 * HEAD_BYTES_MAX], "too long"),
        ] {
            let error = body().0.take(answer).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
