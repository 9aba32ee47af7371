//! What every transport must keep to, as cases over an [`End`]: written against the contract of
//! `crates/transport/src/lib.rs`, not against an implementation.
//!
//! Knows no transport: each says in a file of its own what its ends are, and is named once in
//! `tests/conformance.rs`.

pub(crate) mod cases;
pub(crate) mod datagrams;
pub(crate) mod tcp;

use std::{collections::BTreeMap, net::Shutdown, rc::Rc};

use self::tcp::Stream;

use relay::{
    protocol::{DataHeader, Decoder, Event, Message, Run, encode_preamble},
    transport::{
        Channels, Payload, Secure, SendEvent, Trust, exercise::relay_identity, ranges::RangeSet,
        send_queue::CutOff,
    },
};
use shards::{Driver, DriverChoice, clock, driver::choose, task};

/// Turns without anything to do, a millisecond each: only a bug needs so many.
const IDLE_TURNS_MAX: u32 = 60_000;

/// One end of a connection.
pub(crate) trait End {
    /// Its stream, which every transport has.
    fn stream(&self) -> &Stream;
    fn stream_mut(&mut self) -> &mut Stream;
    /// Writes what it can without waiting, with data only as allowed; file bytes that it wrote,
    /// and whether anything was written.
    fn write(&mut self, data_bytes_max: u64) -> (u64, bool);
    /// Reads what there is without waiting, once; whether there was anything.
    fn read(&mut self) -> bool;

    fn push_control(&mut self, message: &Message) {
        self.stream_mut().channels.push_control(message);
    }

    fn push_data(&mut self, payload: Rc<Payload>, tag: u32, offset: u32) {
        self.stream_mut().channels.push_data(payload, tag, offset);
    }

    fn cancel(&mut self, tag: u32) -> Option<CutOff> {
        self.stream_mut().channels.cancel(tag)
    }

    fn recall(&mut self, chunk: u32) -> Option<CutOff> {
        self.stream_mut().channels.recall(chunk)
    }

    fn poll_event(&mut self) -> Option<SendEvent> {
        self.stream_mut().channels.poll_event()
    }

    /// What waits for the other side to take messages.
    fn control_bytes(&self) -> usize {
        self.stream().channels.control_bytes()
    }

    /// Nothing is left to write.
    fn is_empty(&self) -> bool {
        self.stream().channels.is_empty()
    }

    /// What was read so far.
    fn heard(&self) -> &Heard {
        &self.stream().heard
    }

    /// Writes no more.
    fn shut_write(&mut self) {
        self.stream().socket.shutdown(Shutdown::Write).expect("open");
    }

    /// Writes and reads no more.
    fn shut(&mut self) {
        self.stream().socket.shutdown(Shutdown::Both).expect("open");
    }
}

/// Both ends of a connection.
pub(crate) type Ends = (Box<dyn End>, Box<dyn End>);

/// A transport to be tested.
pub(crate) struct Kind {
    /// As `--transport` names it.
    pub(crate) name: &'static str,
    /// Frames of one send come once, in the order of their offsets, and need nothing the other way.
    pub(crate) is_data_ordered: bool,
    /// Two ends, introduced to each other.
    pub(crate) pair: fn() -> Ends,
}

/// A frame that came, whole.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: DataHeader,
    pub(crate) bytes: Vec<u8>,
    /// Messages that had come before its first byte.
    pub(crate) messages_before: usize,
}

/// What one end has read.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) messages: Vec<Message>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) is_closed: bool,
    /// What came of each send.
    covered: BTreeMap<u32, RangeSet>,
    partial: Option<Frame>,
}

impl Heard {
    /// Books what a transport's reader hands over.
    pub(crate) fn take(&mut self, channels: &mut Channels, event: &Event<'_>) {
        match event {
            Event::Preamble { .. } => {}
            Event::Control(piece) => {
                let mut piece = *piece;
                while channels.open(&mut piece).expect("sealed by the other end") {
                    while let Some(message) = channels.poll_message().expect("a message") {
                        channels.handle_streamed(&message);
                        self.messages.push(message);
                    }
                }
            }
            Event::Data(run) => run.frames().for_each(|run| self.take_run(&run)),
        }
    }

    /// Books what came of one frame.
    fn take_run(&mut self, run: &Run<'_>) {
        if run.frame_offset == 0 {
            assert!(self.partial.is_none(), "a frame inside a frame");
            let messages_before = self.messages.len();
            let bytes = Vec::new();
            self.partial = Some(Frame { header: run.header, bytes, messages_before });
        }
        let frame = self.partial.as_mut().expect("a frame begins at 0");
        assert_eq!(frame.header, run.header, "one header per frame");
        assert_eq!(frame.bytes.len(), run.frame_offset as usize, "pieces follow each other");
        frame.bytes.extend_from_slice(run.bytes);
        if run.is_last {
            assert_eq!(frame.bytes.len(), run.header.payload_len as usize);
            let frame = self.partial.take().expect("just looked at");
            self.take_frame(frame);
        }
    }

    /// Books a whole frame, or a piece that came by itself.
    pub(crate) fn take_frame(&mut self, frame: Frame) {
        let DataHeader { tag, offset, payload_len, .. } = frame.header;
        self.covered.entry(tag).or_default().insert(offset..offset + payload_len);
        self.frames.push(frame);
    }

    /// File bytes in whole frames; those that came again don't count.
    pub(crate) fn data_bytes(&self) -> u64 {
        let ranges = self.covered.values().flat_map(RangeSet::iter);
        ranges.map(|range| u64::from(range.end - range.start)).sum()
    }

    /// What came of one send from `offset` on, up to the first hole.
    pub(crate) fn prefix(&self, tag: u32, offset: u32) -> Vec<u8> {
        let mut frames: Vec<_> = self.frames.iter().filter(|f| f.header.tag == tag).collect();
        frames.sort_by_key(|frame| frame.header.offset);
        let mut bytes = Vec::new();
        for frame in frames {
            let reached = offset as usize + bytes.len();
            let Some(known) = reached.checked_sub(frame.header.offset as usize) else { break };
            bytes.extend_from_slice(frame.bytes.get(known..).unwrap_or_default());
        }
        bytes
    }
}

/// Both ends of TLS, with its handshake over.
pub(crate) fn secured() -> (Secure, Secure) {
    let mut relay = relay_identity().accept();
    let mut peer = Trust::first_seen().connect("relay");
    while relay.is_handshaking() || peer.is_handshaking() {
        pass(&mut peer, &mut relay);
        pass(&mut relay, &mut peer);
    }
    (relay, peer)
}

/// Passes on what one end of TLS has for the other.
fn pass(from: &mut Secure, to: &mut Secure) {
    let mut stream = encode_preamble().to_vec();
    from.seal(&mut stream);
    let (mut decoder, mut input) = (Decoder::new(), &stream[..]);
    while let Some(event) = decoder.decode(&mut input).expect("our own frames") {
        if let Event::Control(mut piece) = event {
            while to.open(&mut piece).expect("our own TLS") {}
        }
    }
}

/// Lets both ends write and read until it is so.
pub(crate) async fn until(
    ends: (&mut dyn End, &mut dyn End),
    what: &str,
    is_so: impl Fn(&dyn End, &dyn End) -> bool,
) {
    let (near, far) = ends;
    let mut idle_turns = 0;
    while !is_so(near, far) {
        let wrote = near.write(u64::MAX).1 | far.write(u64::MAX).1;
        if wrote | near.read() | far.read() {
            idle_turns = 0;
            task::yield_now().await;
        } else {
            idle_turns += 1;
            assert!(idle_turns < IDLE_TURNS_MAX, "waited in vain for {what}");
            clock::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

/// Runs a case on every driver that works here; the case returns when all is well.
pub(crate) fn on_drivers<F: Future<Output = ()> + 'static>(case: impl Fn() -> F) {
    let drivers: Vec<Driver> = [DriverChoice::Epoll, DriverChoice::IoUring]
        .into_iter()
        .filter_map(|choice| choose(choice).ok())
        .map(|chosen| chosen.driver)
        .collect();
    assert!(!drivers.is_empty(), "epoll is everywhere");
    for driver in drivers {
        println!("on {driver:?}");
        shards::block_on(driver, case()).expect("the driver works");
    }
}
