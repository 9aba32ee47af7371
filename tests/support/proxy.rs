//! A link that misbehaves: a TCP proxy that looks at, or changes, what passes, frame by frame.
//!
//! To the peer it is a relay with a key of its own, to the relay a peer: so it reads messages, and only peers
//! that expect no key talk to it. Threads, since nothing here is fast.

#![expect(
    clippy::disallowed_types,
    reason = "both directions of a connection share what is said; no shard runs here"
)]

use std::{
    convert::Infallible,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use relay::{
    protocol::{CONTROL_HEADER_BYTES, DATA_HEADER_BYTES, encode_body, frame_crc},
    transport::{Dialogue, DialogueError, Heard, Trust, exercise::relay_identity},
};

use super::in_background;

/// What is done with each frame of one direction of one connection. It may change it.
pub(crate) type OnFrame = Box<dyn FnMut(&mut Frame) + Send>;

/// The two directions of one connection.
pub(crate) struct Handlers {
    /// From peer to relay.
    pub(crate) up: OnFrame,
    /// From relay to peer.
    pub(crate) down: OnFrame,
}

/// A whole frame; what is around messages is taken off.
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

    /// The body of the message that it carries.
    pub(crate) fn body(&self) -> Option<&[u8]> {
        (self.0[0] == 1).then(|| &self.0[CONTROL_HEADER_BYTES..])
    }

    /// The number of that message.
    pub(crate) fn message(&self) -> Option<u8> {
        self.body().map(|body| body[0])
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

/// Both ends that the proxy plays: to the peer it is a relay, to the relay a peer.
struct Middle {
    to_peer: Dialogue,
    to_relay: Dialogue,
}

/// One direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

fn connect(client: &TcpStream, relay: &TcpStream, handlers: Handlers) -> io::Result<()> {
    client.set_nodelay(true)?;
    relay.set_nodelay(true)?;
    let middle = Middle {
        to_peer: Dialogue::new(relay_identity().accept()),
        to_relay: Dialogue::new(Trust::first_seen().connect("relay")),
    };
    let middle = Arc::new(Mutex::new(middle));
    for (direction, on_frame) in [(Direction::Up, handlers.up), (Direction::Down, handlers.down)] {
        let (client, relay) = (client.try_clone()?, relay.try_clone()?);
        let middle = Arc::clone(&middle);
        in_background(move || pass(direction, &client, &relay, &middle, on_frame));
    }
    Ok(())
}

/// Passes one direction on until it ends.
fn pass(
    direction: Direction,
    client: &TcpStream,
    relay: &TcpStream,
    middle: &Mutex<Middle>,
    mut on_frame: OnFrame,
) {
    let (mut from, to) = match direction {
        Direction::Up => (client, relay),
        Direction::Down => (relay, client),
    };
    let (mut buffer, mut payload) = (vec![0; 64 << 10], Vec::new());
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let mut middle = middle.lock().expect("the other direction did not panic");
        let heard = middle.hear(direction, &buffer[..count], &mut payload, &mut on_frame);
        // Whoever does not take it is gone: the other direction ends by itself.
        if heard.is_err() || middle.write(client, relay).is_err() {
            from.shutdown(Shutdown::Both).ok();
            return;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}

impl Middle {
    /// Passes on what one end said. `payload`: of a data frame that is not whole yet.
    fn hear(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        payload: &mut Vec<u8>,
        on_frame: &mut OnFrame,
    ) -> Result<(), DialogueError<Infallible>> {
        let (near, far) = match direction {
            Direction::Up => (&mut self.to_peer, &mut self.to_relay),
            Direction::Down => (&mut self.to_relay, &mut self.to_peer),
        };
        near.hear(bytes, &mut |heard| {
            match heard {
                Heard::Preamble { .. } | Heard::Secured => {}
                Heard::Message(message) => {
                    let mut body = Vec::new();
                    encode_body(&message, &mut body);
                    let length = u16::try_from(body.len()).expect("a message is short");
                    let head = [&[1, 0][..], &length.to_le_bytes()].concat();
                    let mut frame = Frame([&head[..], &body].concat());
                    on_frame(&mut frame);
                    far.say_bytes(&frame.bytes()[2..]);
                }
                Heard::Data(run) => {
                    for run in run.frames() {
                        payload.extend_from_slice(run.bytes);
                        if run.is_last {
                            let head = run.header.encode();
                            let bytes = std::mem::take(payload);
                            let mut frame = Frame([&head[..], &bytes].concat());
                            on_frame(&mut frame);
                            far.push_frame(frame.bytes());
                        }
                    }
                }
            }
            Ok(())
        })
    }

    /// Sends what waits for both ends.
    fn write(&mut self, mut client: &TcpStream, mut relay: &TcpStream) -> io::Result<()> {
        client.write_all(&self.to_peer.take_out())?;
        relay.write_all(&self.to_relay.take_out())
    }
}
