//! Both channels on one TCP connection.

use relay::{
    protocol::Event,
    transport::{Channels, ReadOutcome, Reader, ReceiveBuffer},
};
use shards::Socket;

use super::{End, Heard, Kind, secured};

/// `--transport tcp`.
pub(crate) const KIND: Kind = Kind { name: "tcp", is_data_ordered: true, pair };

/// Frames that one read takes.
const FRAMES: usize = 16;

/// One end of a stream, and what was read from it.
pub(crate) struct Stream {
    pub(crate) socket: Socket,
    pub(crate) channels: Channels,
    pub(crate) heard: Heard,
    reader: Reader,
    /// Where what came is put; empty between calls.
    pub(crate) buffer: ReceiveBuffer,
}

impl Stream {
    /// With room for so many frames at a time.
    pub(crate) fn new(socket: Socket, channels: Channels, frames: usize) -> Self {
        let (heard, reader) = (Heard::default(), Reader::new());
        Self { socket, channels, heard, reader, buffer: ReceiveBuffer::new(frames) }
    }

    /// As [`End::write`].
    pub(crate) fn write(&mut self, data_bytes_max: u64) -> (u64, bool) {
        // A side that was told that the other has gone writes no more.
        match self.channels.write(&self.socket, data_bytes_max) {
            Ok(written) => (written.data_bytes, written.total_bytes > 0),
            Err(_) => (0, false),
        }
    }

    /// As [`End::read`].
    pub(crate) fn read(&mut self) -> bool {
        if self.heard.is_closed {
            return false;
        }
        let (heard, channels) = (&mut self.heard, &mut self.channels);
        let mut handler = |event: Event<'_>| {
            heard.take(channels, &event);
            Ok::<(), std::convert::Infallible>(())
        };
        match self.reader.read(&self.socket, &mut self.buffer, &mut handler) {
            Ok(ReadOutcome::Read { .. }) => true,
            Ok(ReadOutcome::Blocked) => false,
            Ok(ReadOutcome::Closed) => {
                self.heard.is_closed = true;
                true
            }
            Err(error) => panic!("a well-behaved end was misunderstood: {error}"),
        }
    }
}

/// Two connected sockets.
pub(crate) fn sockets() -> (Socket, Socket) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let near = std::net::TcpStream::connect(listener.local_addr().expect("bound"));
    let (far, _) = listener.accept().expect("it was connected");
    let socket = |stream| Socket::from_std(stream).expect("a socket can be watched");
    (socket(near.expect("loopback")), socket(far))
}

fn pair() -> (Box<dyn End>, Box<dyn End>) {
    let ((near, far), (relay, peer)) = (sockets(), secured());
    let end = |socket, secure| Box::new(Stream::new(socket, Channels::new(secure), FRAMES));
    (end(near, relay), end(far, peer))
}

impl End for Stream {
    fn stream(&self) -> &Stream {
        self
    }

    fn stream_mut(&mut self) -> &mut Stream {
        self
    }

    fn write(&mut self, data_bytes_max: u64) -> (u64, bool) {
        Self::write(self, data_bytes_max)
    }

    fn read(&mut self) -> bool {
        Self::read(self)
    }
}
