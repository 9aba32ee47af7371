//! One connection to a relay, by hand: what is sent is up to the test, right or wrong.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
};

use relay::{
    protocol::{
        Claims, DataHeader, Failure, Hello, Message, Order, Run, Seeding, SwarmKey, Token, Welcome,
        limits::{DATAGRAM_SECRET_BYTES, FRAME_PAYLOAD_BYTES_MAX},
    },
    transport::{self, Dialogue, DialogueError, Trust},
};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use super::{PATIENCE, file::TestFile};

/// What the relay said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// Its preamble.
    Preamble,
    /// A message.
    Control(Message),
    /// A piece of a data frame.
    Data {
        /// The frame.
        header: DataHeader,
        /// Its bytes, whole.
        bytes: Vec<u8>,
    },
    /// It closed, or reset, the connection.
    Closed,
}

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    talk: Dialogue,
    heard: VecDeque<Heard>,
    frame: Vec<u8>,
}

/// A relay that takes nothing for so long has stopped reading.
const FLOOD_PATIENCE: std::time::Duration = std::time::Duration::from_millis(500);

/// A hello of a peer that has nothing.
pub(crate) fn hello(key: SwarmKey) -> Hello {
    Hello {
        key: Some(key),
        proof: None,
        claims: Claims::Nothing,
        order: Order::Relay,
        seeding: None,
    }
}

/// A hello of an origin.
pub(crate) fn origin_hello(key: SwarmKey) -> Hello {
    Hello { claims: Claims::Everything, seeding: Some(Seeding::Origin), ..hello(key) }
}

/// A hello that claims so.
pub(crate) fn with_claims(file: &TestFile, claims: Claims) -> Hello {
    Hello { claims, ..hello(file.key()) }
}

impl Wire {
    /// Connects, and says nothing yet.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn connect(addr: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect(addr)?)
    }

    /// The same from an address of its own, such as 127.0.0.2.
    ///
    /// # Errors
    /// The system's: not every one has more than one loopback address.
    pub(crate) fn connect_from(source: Ipv4Addr, addr: SocketAddr) -> io::Result<Self> {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&socket, &SocketAddr::from((source, 0)))?;
        connect(&socket, &addr)?;
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let talk = Dialogue::new(Trust::first_seen().connect("relay"));
        Ok(Self { stream, talk, heard: VecDeque::new(), frame: Vec::new() })
    }

    /// What proves this connection's datagrams to be its own.
    pub(crate) fn datagram_secret(&mut self) -> [u8; DATAGRAM_SECRET_BYTES] {
        self.talk.secure().datagram_secret().expect("TLS has begun")
    }

    /// Connects, greets, and waits for the welcome.
    ///
    /// # Errors
    /// The relay is gone.
    pub(crate) fn greet(addr: SocketAddr) -> io::Result<(Self, Welcome)> {
        Self::connect(addr)?.greeted()
    }

    /// Greets, and waits for the welcome.
    ///
    /// # Errors
    /// The relay is gone.
    pub(crate) fn greeted(mut self) -> io::Result<(Self, Welcome)> {
        self.write()?;
        loop {
            match self.hear()? {
                Heard::Preamble => {}
                Heard::Control(Message::Welcome(welcome)) => return Ok((self, welcome)),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// The whole handshake.
    ///
    /// # Errors
    /// The relay is gone or refuses.
    pub(crate) fn join(addr: SocketAddr, hello: Hello) -> io::Result<Self> {
        Self::connect(addr)?.joined(hello)
    }

    /// The whole handshake of a connection that has said nothing yet.
    ///
    /// # Errors
    /// The relay is gone or refuses.
    pub(crate) fn joined(self, hello: Hello) -> io::Result<Self> {
        let (mut wire, _) = self.greeted()?;
        wire.send(&Message::Hello(hello))?;
        match wire.hear()? {
            Heard::Control(Message::Accepted(_)) => Ok(wire),
            other => Err(unexpected(&other)),
        }
    }

    /// The whole handshake with a token.
    ///
    /// # Errors
    /// The relay is gone or refuses.
    pub(crate) fn join_with_token(
        addr: SocketAddr,
        mut hello: Hello,
        token: &Token,
    ) -> io::Result<Self> {
        let (mut wire, _) = Self::greet(addr)?;
        hello.proof = Some(wire.proof(token));
        wire.send(&Message::Hello(hello))?;
        match wire.hear()? {
            Heard::Control(Message::Accepted(_)) => Ok(wire),
            other => Err(unexpected(&other)),
        }
    }

    /// That it knows a token, on this connection. Once, when it was greeted.
    pub(crate) fn proof(&mut self, token: &Token) -> [u8; 32] {
        token.proof(&self.talk.secure().poll_secured().expect("TLS has begun"))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The relay is gone.
    pub(crate) fn send(&mut self, message: &Message) -> io::Result<()> {
        self.talk.say(message);
        self.write()
    }

    /// Says these bytes, under TLS, where messages are expected.
    ///
    /// # Errors
    /// The relay is gone.
    pub(crate) fn say_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.talk.say_bytes(bytes);
        self.write()
    }

    /// A message with this body, whatever that is.
    ///
    /// # Errors
    /// The relay is gone.
    pub(crate) fn say_body(&mut self, body: &[u8]) -> io::Result<()> {
        let length = u16::try_from(body.len()).expect("a body is short").to_le_bytes();
        self.say_bytes(&[&length[..], body].concat())
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// The relay is gone.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        let bytes = self.talk.take_out();
        self.stream.write_all(&bytes)
    }

    /// Sends whatever bytes.
    ///
    /// # Errors
    /// The relay is gone.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends the message again and again, reading nothing, until the relay takes no more of it;
    /// how many it took. Nothing can be sent after that.
    pub(crate) fn flood(&mut self, message: &Message) -> usize {
        self.flood_at_most(message, usize::MAX)
    }

    /// The same, until it took so many bytes at most.
    pub(crate) fn flood_at_most(&mut self, message: &Message, bytes_max: usize) -> usize {
        self.talk.say(message);
        let one = self.talk.take_out();
        self.stream.set_write_timeout(Some(FLOOD_PATIENCE)).expect("a socket");
        let (mut taken, mut waiting) = (0, one.clone());
        while taken < bytes_max
            && let Ok(count) = self.stream.write(&waiting)
        {
            taken += count;
            waiting.drain(..count);
            // Each is sealed for itself: none may come twice.
            while waiting.len() < 1000 * one.len() {
                self.talk.say(message);
                waiting.extend(self.talk.take_out());
            }
        }
        taken / one.len()
    }

    /// Answers a fetch: the whole chunk in frames.
    ///
    /// # Errors
    /// The relay is gone.
    pub(crate) fn send_chunk(&mut self, fetch_id: u32, chunk: u32, bytes: &[u8]) -> io::Result<()> {
        let key = self.talk.secure().upload_key().expect("TLS has begun");
        let mut out = Vec::with_capacity(bytes.len() + 1024);
        for (index, payload) in bytes.chunks(FRAME_PAYLOAD_BYTES_MAX).enumerate() {
            let header = DataHeader {
                chunk,
                offset: u32::try_from(index * FRAME_PAYLOAD_BYTES_MAX).expect("chunks are small"),
                payload_len: u32::try_from(payload.len()).expect("frames are small"),
                tag: fetch_id,
                checksum: 0,
            };
            let checksum = key.checksum(fetch_id, header.offset, payload);
            let header = DataHeader { checksum, ..header };
            out.extend_from_slice(&header.encode());
            out.extend_from_slice(payload);
        }
        self.send_bytes(&out)
    }

    /// What the relay says next.
    ///
    /// # Errors
    /// It says nothing for [`PATIENCE`], or what is not of the protocol.
    pub(crate) fn hear(&mut self) -> io::Result<Heard> {
        let mut scratch = [0; 64 << 10];
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(heard);
            }
            match self.stream.read(&mut scratch) {
                Ok(0) => return Ok(Heard::Closed),
                Ok(count) => self.decode(&scratch[..count])?,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(Heard::Closed);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn decode(&mut self, input: &[u8]) -> io::Result<()> {
        let (heard, frame) = (&mut self.heard, &mut self.frame);
        let mut handler = |event: transport::Heard<'_>| {
            match event {
                transport::Heard::Preamble { .. } => heard.push_back(Heard::Preamble),
                transport::Heard::Secured => {}
                transport::Heard::Message(message) => heard.push_back(Heard::Control(message)),
                transport::Heard::Data(Run { header, bytes, is_last, .. }) => {
                    frame.extend_from_slice(bytes);
                    if is_last {
                        heard.push_back(Heard::Data { header, bytes: std::mem::take(frame) });
                    }
                }
            }
            Ok::<(), Infallible>(())
        };
        let heard = self.talk.hear(input, &mut handler);
        // An answer of the handshake; the relay may be gone, as its words that came before tell.
        self.write().ok();
        heard.map_err(|error: DialogueError<Infallible>| io::Error::other(error.to_string()))
    }

    /// Waits for the end of the connection; the failure that the relay named, if it did.
    ///
    /// # Panics
    /// The relay leaves the connection open.
    pub(crate) fn hear_end(&mut self) -> Option<Failure> {
        let mut failure = None;
        loop {
            match self.hear() {
                Ok(Heard::Control(Message::Failure(said))) => failure = Some(said),
                Ok(Heard::Closed) => return failure,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the relay leaves the connection open")
                }
                Err(_) => return failure,
            }
        }
    }

    /// From now on it hears nothing when nothing is said for so long.
    pub(crate) fn set_patience(&self, time: std::time::Duration) {
        self.stream.set_read_timeout(Some(time)).expect("a socket");
    }

    /// Ends the connection as a kill would: what is in flight is lost.
    pub(crate) fn reset(self) {
        // Closing with a linger of nothing sends a reset.
        let linger = Some(std::time::Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(&self.stream, linger).ok();
    }

    /// Says that nothing more will come.
    pub(crate) fn shut_write(&self) {
        self.stream.shutdown(Shutdown::Write).ok();
    }
}

fn unexpected(heard: &Heard) -> io::Error {
    io::Error::other(match heard {
        Heard::Control(Message::Failure(failure)) => failure.to_string(),
        other => format!("unexpected: {other:?}"),
    })
}
