//! A link that misbehaves: a TCP proxy that looks at, or changes, what passes, frame by frame.
//!
//! It cuts a stream into whole frames by their headers alone, as the wire format's page says, so
//! that a frame can be changed before any of it goes on. Threads, since nothing here is fast.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use relay::protocol::{CONTROL_HEADER_BYTES, DATA_HEADER_BYTES, PREAMBLE_BYTES, frame_crc};

use super::in_background;

/// Bytes of a frame's header that say how long it is.
const LENGTH_BYTES: usize = 4;

/// What is done with each frame of one direction of one connection. It may change it.
pub(crate) type OnFrame = Box<dyn FnMut(&mut Frame) + Send>;

/// The two directions of one connection.
pub(crate) struct Handlers {
    /// From peer to relay.
    pub(crate) up: OnFrame,
    /// From relay to peer.
    pub(crate) down: OnFrame,
}

/// A whole frame, or a preamble.
pub(crate) struct Frame(Vec<u8>);

impl Frame {
    /// The bytes as they are on the wire.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it carries bytes of a chunk.
    pub(crate) fn is_data(&self) -> bool {
        self.0[0] == 2 && self.0.len() > DATA_HEADER_BYTES
    }

    /// The number of the message that it carries.
    pub(crate) fn message(&self) -> Option<u8> {
        (self.0[0] == 1).then(|| self.0[CONTROL_HEADER_BYTES])
    }

    /// Makes the message one that no build knows.
    pub(crate) fn make_unknown(&mut self) {
        self.0[CONTROL_HEADER_BYTES] = 0x7f;
    }

    /// The chunk that it carries bytes of.
    pub(crate) fn chunk(&self) -> u32 {
        u32::from_le_bytes(self.0[4..8].try_into().expect("four bytes"))
    }

    /// File bytes in it.
    pub(crate) fn payload_len(&self) -> usize {
        self.0.len() - DATA_HEADER_BYTES
    }

    /// Flips a bit of the payload, as a bad link would.
    pub(crate) fn flip(&mut self, at: usize) {
        let payload = &mut self.0[DATA_HEADER_BYTES..];
        let at = at % payload.len();
        payload[at] ^= 1 << (at % 8);
    }

    /// Makes the checksum fit the payload, as a liar would.
    pub(crate) fn reseal(&mut self) {
        let crc = frame_crc(&self.0[DATA_HEADER_BYTES..]).to_le_bytes();
        self.0[16..20].copy_from_slice(&crc);
    }
}

/// The proxy, until it is dropped.
pub(crate) struct Proxy {
    /// Where peers connect.
    pub(crate) addr: SocketAddr,
    stopping: Arc<AtomicBool>,
}

impl Proxy {
    /// Passes connections on to `upstream`; `handlers` makes what watches each of them.
    ///
    /// # Panics
    /// There is no free port.
    pub(crate) fn start(
        upstream: SocketAddr,
        mut handlers: impl FnMut() -> Handlers + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it has an address");
        let stopping = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stopping);
        in_background(move || {
            for client in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                // No relay at the moment: the client sees its connection end, and tries again.
                if let Ok(relay) = TcpStream::connect(upstream) {
                    connect(&client, &relay, handlers()).ok();
                }
            }
        });
        Self { addr, stopping }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        TcpStream::connect(self.addr).ok();
    }
}

fn connect(client: &TcpStream, relay: &TcpStream, handlers: Handlers) -> io::Result<()> {
    client.set_nodelay(true)?;
    relay.set_nodelay(true)?;
    let (from, to) = (client.try_clone()?, relay.try_clone()?);
    in_background(move || pass(from, to, handlers.up));
    let (from, to) = (relay.try_clone()?, client.try_clone()?);
    in_background(move || pass(from, to, handlers.down));
    Ok(())
}

/// Passes one direction on until it ends.
fn pass(mut from: TcpStream, mut to: TcpStream, mut on_frame: OnFrame) {
    let (mut buffer, mut waiting) = (vec![0; 64 << 10], Vec::new());
    let mut is_first = true;
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        waiting.extend_from_slice(&buffer[..count]);
        let mut done = 0;
        while let Some(len) = frame_len(&waiting[done..], is_first) {
            is_first = false;
            let mut frame = Frame(waiting[done..done + len].to_vec());
            on_frame(&mut frame);
            if to.write_all(frame.bytes()).is_err() {
                // It is not taken: the other direction ends by itself.
                from.shutdown(Shutdown::Both).ok();
                return;
            }
            done += len;
        }
        waiting.drain(..done);
    }
    to.shutdown(Shutdown::Write).ok();
}

/// Length of the frame at the front, if it is whole.
fn frame_len(bytes: &[u8], is_preamble: bool) -> Option<usize> {
    let len = match bytes {
        _ if is_preamble => PREAMBLE_BYTES,
        [kind, _, low, high, ..] => {
            let header = if *kind == 2 { DATA_HEADER_BYTES } else { LENGTH_BYTES };
            header + usize::from(u16::from_le_bytes([*low, *high]))
        }
        _ => return None,
    };
    (bytes.len() >= len).then_some(len)
}
