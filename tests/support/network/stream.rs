//! Streams through the proxy: in order and whole, but late, throttled, damaged, or cut.

use std::{io, net::Shutdown, ops::Range, sync::atomic::Ordering, time::Duration};

use relay::protocol::{DATA_HEADER_BYTES, PREAMBLE_BYTES};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Instant,
};

use super::{Wishes, count, line::Line};

/// Bytes of one piece: what is delayed, damaged or "lost" together.
const PIECE_BYTES: usize = 16 << 10;

/// Pieces on their way in one direction of a stream: 16 MiB, more than any test sends on a long path.
const PIECES_MAX: usize = 1024;

/// Where the file bytes of a stream are: only these have checksums, so only these are damaged. Of all
/// else TCP's own takes care in earnest, and a message that is not what was said is a peer's fault.
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    /// Bytes that come before the next frame's head.
    skip: usize,
    payload: usize,
}

impl Frames {
    fn new() -> Self {
        Self { skip: PREAMBLE_BYTES, ..Self::default() }
    }

    /// The file bytes of this piece, which follows those before it.
    fn payloads(&mut self, piece: &[u8]) -> Vec<Range<usize>> {
        let (mut payloads, mut at) = (Vec::new(), 0);
        while at < piece.len() {
            let left = piece.len() - at;
            if self.skip > 0 {
                let count = self.skip.min(left);
                (self.skip, at) = (self.skip - count, at + count);
            } else if self.payload > 0 {
                let count = self.payload.min(left);
                payloads.push(at..at + count);
                (self.payload, at) = (self.payload - count, at + count);
            } else {
                self.head.push(piece[at]);
                at += 1;
                self.look_at_head();
            }
        }
        payloads
    }

    fn look_at_head(&mut self) {
        let &[kind, _, low, high, ..] = &self.head[..] else { return };
        let length = usize::from(u16::from_le_bytes([low, high]));
        if kind == 1 {
            self.skip = length;
        } else if self.head.len() == DATA_HEADER_BYTES {
            self.payload = length;
        } else {
            return;
        }
        self.head.clear();
    }
}

/// Takes connections as long as the proxy lives.
pub(super) async fn accept(listener: TcpListener, wishes: Wishes) {
    for number in 0.. {
        let Ok((near, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        count(&wishes.happened.streams);
        tokio::spawn(serve(near, wishes.clone(), number));
    }
}

async fn serve(near: TcpStream, mut wishes: Wishes, number: u64) {
    wishes.passable().await;
    // A relay that is not there refuses the peer too.
    let far = TcpStream::connect(wishes.relay).await;
    let Ok(far) = far else { return cut(&[&near]) };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let mut resets = wishes.resets.clone();
    resets.mark_unchanged();
    let mut moves = wishes.moves.clone();
    moves.mark_unchanged();
    let up = carry(&near, &far, wishes.clone(), Line::new(wishes.seed, 4 * number));
    let down = carry(&far, &near, wishes.clone(), Line::new(wishes.seed, 4 * number + 1));
    let is_whole = tokio::select! {
        both = async { tokio::try_join!(up, down) } => both.is_ok(),
        _ = resets.changed() => false,
        moved = moves.changed() => {
            if moved.is_ok() {
                // Both ends stay open, and hear nothing.
                std::future::pending::<()>().await;
            }
            false
        }
    };
    if !is_whole {
        cut(&[&near, &far]);
    }
}

/// Makes the streams end as cut ones do.
fn cut(streams: &[&TcpStream]) {
    for stream in streams {
        SockRef::from(*stream).set_linger(Some(Duration::ZERO)).ok();
    }
}

/// One direction, to its end.
async fn carry(from: &TcpStream, to: &TcpStream, wishes: Wishes, line: Line) -> io::Result<()> {
    let (pieces, coming) = mpsc::channel(PIECES_MAX);
    let (taken, given) =
        tokio::join!(take(from, wishes.clone(), line, pieces), give(to, wishes, coming));
    taken.and(given)
}

async fn take(
    from: &TcpStream,
    mut wishes: Wishes,
    mut line: Line,
    pieces: mpsc::Sender<(Instant, Vec<u8>)>,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut frames = Frames::new();
    loop {
        wishes.passable().await;
        from.readable().await?;
        let count = match from.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        wishes.happened.stream_bytes.fetch_add(count as u64, Ordering::Relaxed);
        let mut piece = buffer[..count].to_vec();
        let payloads = frames.payloads(&piece);
        let due = line.piece(&mut piece, &payloads, &wishes.now(), &wishes.happened);
        if pieces.send((due, piece)).await.is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
}

async fn give(
    to: &TcpStream,
    mut wishes: Wishes,
    mut coming: mpsc::Receiver<(Instant, Vec<u8>)>,
) -> io::Result<()> {
    while let Some((due, piece)) = coming.recv().await {
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        wishes.passable().await;
        let mut rest = &piece[..];
        while !rest.is_empty() {
            to.writable().await?;
            match to.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    // The other side may have closed before, which is as good.
    SockRef::from(to).shutdown(Shutdown::Write).ok();
    Ok(())
}
