//! Both channels on one TCP connection.

use std::{net::Shutdown, rc::Rc};

use relay::{
    protocol::{Event, Message},
    transport::{
        Channels, Payload, ReadOutcome, Reader, ReceiveBuffer, SendEvent, send_queue::CutOff,
    },
};
use shards::Socket;

use super::{End, Heard, Kind, secured};

/// `--transport tcp`.
pub(crate) const KIND: Kind = Kind { name: "tcp", is_data_ordered: true, pair };

struct Tcp {
    socket: Socket,
    channels: Channels,
    reader: Reader,
    buffer: ReceiveBuffer,
    heard: Heard,
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
    let end = |socket: Socket, secure| {
        let channels = Channels::new(secure);
        let buffer = ReceiveBuffer::new(16);
        Box::new(Tcp { socket, channels, reader: Reader::new(), buffer, heard: Heard::default() })
    };
    let ((near, far), (relay, peer)) = (sockets(), secured());
    (end(near, relay), end(far, peer))
}

impl End for Tcp {
    fn push_control(&mut self, message: &Message) {
        self.channels.push_control(message);
    }

    fn push_data(&mut self, payload: Rc<Payload>, tag: u32, offset: u32) {
        self.channels.push_data(payload, tag, offset);
    }

    fn cancel(&mut self, tag: u32) -> Option<CutOff> {
        self.channels.cancel(tag)
    }

    fn recall(&mut self, chunk: u32) -> Option<CutOff> {
        self.channels.recall(chunk)
    }

    fn poll_event(&mut self) -> Option<SendEvent> {
        self.channels.poll_event()
    }

    fn control_bytes(&self) -> usize {
        self.channels.control_bytes()
    }

    fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    fn write(&mut self, data_bytes_max: u64) -> (u64, bool) {
        // A side that was told that the other has gone writes no more.
        match self.channels.write(&self.socket, data_bytes_max) {
            Ok(written) => (written.data_bytes, written.total_bytes > 0),
            Err(_) => (0, false),
        }
    }

    fn read(&mut self) -> bool {
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

    fn heard(&self) -> &Heard {
        &self.heard
    }

    fn shut_write(&mut self) {
        self.socket.shutdown(Shutdown::Write).expect("open");
    }

    fn shut(&mut self) {
        self.socket.shutdown(Shutdown::Both).expect("open");
    }
}
