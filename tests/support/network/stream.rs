//! Streams through the proxy: in order and whole, but late, throttled, damaged, or cut.

use std::{io, net::Shutdown, sync::atomic::Ordering, time::Duration};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Instant,
};

use super::{Wishes, count, line::Line};

/// Bytes of one piece: what is delayed, damaged or "lost" together.
const PIECE_BYTES: usize = 16 << 10;

/// Pieces on their way in one direction of a stream: 1 MiB, as much as a long path holds.
const PIECES_MAX: usize = 64;

/// Bytes at the beginning of each direction that are never damaged: the introduction, and lists of
/// digests of a file of some hundred chunks, which no checksum covers but the sender's word.
const EARLY_BYTES: u64 = 16 << 10;

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
    let up = carry(&near, &far, wishes.clone(), Line::new(wishes.seed, 4 * number));
    let down = carry(&far, &near, wishes.clone(), Line::new(wishes.seed, 4 * number + 1));
    let is_whole = tokio::select! {
        both = async { tokio::try_join!(up, down) } => both.is_ok(),
        _ = resets.changed() => false,
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
    let mut taken_bytes = 0;
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
        taken_bytes += count as u64;
        let mut piece = buffer[..count].to_vec();
        let is_early = taken_bytes <= EARLY_BYTES;
        let due = line.piece(&mut piece, is_early, &wishes.now(), &wishes.happened);
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
