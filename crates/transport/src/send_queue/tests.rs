//! The send queue over real sockets: byte-exact whatever the kernel takes, on every driver.

mod lent;

use std::{cell::RefCell, net::TcpListener, rc::Rc};

use bytes::Bytes;
use shards::{Driver, net::Socket, task};

use super::*;
use crate::{ReadOutcome, Reader, ReceiveBuffer};
use relay_protocol::{Event, encode_control, frame_crc};

const CHUNK: usize = 5 * FRAME_PAYLOAD_BYTES_MAX + 77;

fn chunk_bytes(seed: u8) -> Bytes {
    (0..CHUNK).map(|i| seed.wrapping_add(u8::try_from(i % 251).expect("small"))).collect()
}

/// What a receiver made of the stream.
#[derive(Default)]
struct Received {
    frames: Vec<(DataHeader, Vec<u8>)>,
    /// What control frames carried.
    control: Vec<u8>,
}

impl Received {
    fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Preamble { .. } => {}
            Event::Control(piece) => self.control.extend_from_slice(piece),
            Event::Data(run) => run.frames().for_each(|run| {
                if run.frame_offset == 0 {
                    self.frames.push((run.header, Vec::new()));
                }
                let (last, bytes) = self.frames.last_mut().expect("begun with offset 0");
                assert_eq!(*last, run.header);
                bytes.extend_from_slice(run.bytes);
            }),
        }
    }
}

fn pair() -> (Socket, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let addr = listener.local_addr().expect("bound");
    let out = std::net::TcpStream::connect(addr).expect("listening");
    // Small buffers make partial writes the rule.
    socket2::SockRef::from(&out).set_send_buffer_size(8 << 10).expect("a socket");
    let (into, _) = listener.accept().expect("connected");
    let socket = |stream| Socket::from_std(stream).expect("a socket");
    (socket(out), socket(into))
}

/// Writes the queue to a slow reader; between writes `meddle` may change the queue.
fn transmit(
    driver: Driver,
    queue: SendQueue,
    mut meddle: impl FnMut(usize, &mut SendQueue) + 'static,
) -> (Received, Vec<SendEvent>) {
    let result = Rc::new(RefCell::new((Received::default(), Vec::new())));
    let shared = Rc::clone(&result);
    shards::block_on(driver, async move {
        let (out, into) = pair();
        let reading = Rc::clone(&shared);
        let reader = task::spawn(async move {
            let mut reader = Reader::new();
            let mut buffer = ReceiveBuffer::new(1);
            loop {
                let mut handler = |event: Event<'_>| {
                    reading.borrow_mut().0.take(&event);
                    Ok::<(), std::convert::Infallible>(())
                };
                match reader.read(&into, &mut buffer, &mut handler).expect("well-formed") {
                    ReadOutcome::Closed => break,
                    ReadOutcome::Blocked => into.readable().await.expect("a socket"),
                    ReadOutcome::Read { .. } => task::yield_now().await,
                }
            }
        });
        let mut queue = queue;
        let mut turn = 0;
        while !queue.is_empty() {
            let written = queue.write(&out, u64::MAX).expect("the reader reads");
            while let Some(event) = queue.poll_event() {
                shared.borrow_mut().1.push(event);
            }
            meddle(turn, &mut queue);
            turn += 1;
            if written.blocked {
                out.writable().await.expect("a socket");
            }
        }
        out.shutdown(std::net::Shutdown::Write).expect("connected");
        reader.await;
    })
    .expect("the driver runs");
    Rc::try_unwrap(result).ok().expect("the tasks have ended").into_inner()
}

fn drivers() -> Vec<Driver> {
    let uring = shards::driver::choose(shards::DriverChoice::IoUring).map(|c| c.driver);
    uring.into_iter().chain([Driver::Epoll]).collect()
}

fn check_frames(received: &Received, sent: &[(u32, Bytes)]) {
    for (header, payload) in &received.frames {
        let (_, bytes) = sent.iter().find(|(c, _)| *c == header.chunk).expect("was sent");
        let from = header.offset as usize;
        assert_eq!(payload, &bytes[from..from + payload.len()]);
        assert_eq!(header.checksum, frame_crc(payload));
    }
}

#[test]
fn partial_writes_are_byte_exact_on_every_driver() {
    for driver in drivers() {
        let mut queue = SendQueue::new();
        queue.push_preamble();
        let sent: Vec<_> = (0..4).map(|i| (u32::from(i), chunk_bytes(i))).collect();
        for (chunk, bytes) in &sent {
            queue.push_data(Payload::with_crcs_of(*chunk, bytes.clone()), 7, 0);
        }
        let (received, events) = transmit(driver, queue, |turn, queue| {
            if turn % 3 == 0 && turn < 30 {
                encode_control(&[turn.to_le_bytes()[0]], queue.control_mut());
            }
        });
        check_frames(&received, &sent);
        let total: usize = received.frames.iter().map(|(_, payload)| payload.len()).sum();
        assert_eq!(total, 4 * CHUNK);
        assert!(received.control.starts_with(&[0]) && received.control.is_sorted());
        let finished = |e: &&SendEvent| matches!(e, SendEvent::Finished { .. });
        assert_eq!(events.iter().filter(finished).count(), 4);
        assert_eq!(events.len(), 8, "each send began once and finished once");
    }
}

#[test]
fn a_recall_in_mid_frame_copies_the_frame_and_says_how_far_it_went() {
    for driver in drivers() {
        let mut queue = SendQueue::new();
        queue.push_preamble();
        let sent = [(0, chunk_bytes(0)), (1, chunk_bytes(1))];
        let payload = Payload::with_crcs_of(0, sent[0].1.clone());
        queue.push_data(Rc::clone(&payload), 0, 0);
        queue.push_data(Payload::with_crcs_of(1, sent[1].1.clone()), 0, 0);
        let reached = Rc::new(RefCell::new(None));
        let told = Rc::clone(&reached);
        let (received, _) = transmit(driver, queue, move |turn, queue| {
            if turn == 0 {
                *told.borrow_mut() = queue.recall(0);
                assert!(payload.withdraw());
            }
        });
        check_cut_off(&received, &sent, *reached.borrow());
    }
}

/// Chunk 0 came as far as was said when it was cut off, and chunk 1 whole.
fn check_cut_off(received: &Received, sent: &[(u32, Bytes)], cut_off: Option<CutOff>) {
    check_frames(received, sent);
    let cut_off = cut_off.expect("it was under way");
    let of_chunk = |c| received.frames.iter().filter(move |(header, _)| header.chunk == c);
    let arrived: usize = of_chunk(0).map(|(_, payload)| payload.len()).sum();
    assert_eq!(arrived, cut_off.reached_bytes as usize);
    assert!(arrived < CHUNK, "small buffers can't have taken it all");
    assert_eq!(of_chunk(1).map(|(_, payload)| payload.len()).sum::<usize>(), CHUNK);
}

#[test]
fn no_new_frame_is_begun_beyond_the_window() {
    shards::block_on(Driver::Epoll, async {
        let (out, _into) = pair();
        let mut queue = SendQueue::new();
        queue.push_data(Payload::with_crcs_of(0, chunk_bytes(0)), 0, 0);
        let written = queue.write(&out, 100).expect("connected");
        assert_eq!(written, Written::default());
        assert!(!queue.has_urgent() && !queue.is_empty());
    })
    .expect("the driver runs");
}
