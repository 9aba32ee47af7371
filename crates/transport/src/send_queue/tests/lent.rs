//! What is lent arrives as what is copied does, and files are let go of when the kernel says so.

use std::{fs::File, net::Shutdown, os::fd::AsFd as _, sync::OnceLock, time::Duration};

use shards::{Budget, ChunkFiles, Placement, Ringer, Shard, ShardId, Start};

use super::*;
use crate::{ChunkBytes, LentChunk, payload::frame_crcs};

const NO_BOUND: usize = usize::MAX;

/// Files in the system's directory for temporary ones: how large their pages are is no matter here.
fn files(pinned_max: usize) -> ChunkFiles {
    let directory = File::open(std::env::temp_dir()).expect("there is one");
    ChunkFiles::new(directory.into(), 100, pinned_max)
}

/// Of a shard that does nothing.
fn ringer() -> Ringer {
    static RINGER: OnceLock<Ringer> = OnceLock::new();
    let make = || {
        let start = Start {
            placement: Placement::plan(1.try_into().ok(), false),
            driver: Driver::Epoll,
            name: "test",
            credits_per_pair: 1,
            handoff_capacity: 1,
        };
        let shards = shards::start(start, |_: Shard<(), ()>| async {}).expect("a shard");
        let ringer = shards.ringer(ShardId(0));
        shards.drain();
        shards.join().expect("it did nothing");
        ringer
    };
    RINGER.get_or_init(make).clone()
}

fn lent(files: &ChunkFiles, chunk: u32, bytes: &[u8]) -> Rc<Payload> {
    let budget = Budget::new(1 << 20, 1);
    let mut waiter = budget.waiter(ringer()).expect("a place");
    let mut buffer =
        waiter.try_lease(LentChunk::leased_bytes(bytes.len())).expect("free").buffer(bytes.len());
    buffer.append(bytes);
    let crcs = frame_crcs(bytes);
    let lent = LentChunk::lay_out(files, chunk, buffer, &crcs);
    let lent = lent.map_err(|(_, error)| error).expect("there is room for a file");
    Payload::new(chunk, ChunkBytes::File(lent.into()), crcs)
}

#[test]
fn lent_and_copied_chunks_arrive_in_order_whatever_the_kernel_takes() {
    for (driver, pinned_max) in drivers().into_iter().flat_map(|d| [(d, NO_BOUND), (d, 0)]) {
        let files = files(pinned_max);
        let mut queue = SendQueue::new();
        queue.push_preamble();
        let sent: Vec<_> = (0..6).map(|i| (u32::from(i), chunk_bytes(i))).collect();
        for (chunk, bytes) in &sent {
            let payload = match chunk {
                2 | 5 => Payload::with_crcs_of(*chunk, bytes.clone()),
                _ => lent(&files, *chunk, bytes),
            };
            queue.push_data(payload, 0, 0);
        }
        let lending = Rc::new(RefCell::new(false));
        let seen = Rc::clone(&lending);
        let (received, events) = transmit(driver, queue, move |turn, queue| {
            *seen.borrow_mut() |= queue.is_lending();
            if turn % 3 == 0 && turn < 30 {
                encode_control(&[turn.to_le_bytes()[0]], queue.control_mut());
            }
        });
        check_frames(&received, &sent);
        let chunks: Vec<u32> = received.frames.iter().map(|(header, _)| header.chunk).collect();
        assert!(chunks.is_sorted() && chunks.len() == 6 * 6, "{chunks:?}");
        assert!(received.control.starts_with(&[0]) && received.control.is_sorted());
        assert_eq!(events.len(), 12, "each send began once and finished once: {events:?}");
        assert_eq!(*lending.borrow(), pinned_max > 0, "files were sent from if that may be");
        assert_eq!((files.count(), files.pinned_bytes()), (0, 0));
    }
}

#[test]
fn a_recall_in_the_middle_of_a_lent_frame_copies_the_frame() {
    for driver in drivers() {
        let files = files(NO_BOUND);
        let mut queue = SendQueue::new();
        queue.push_preamble();
        let sent = [(0, chunk_bytes(0)), (1, chunk_bytes(1))];
        let payload = lent(&files, 0, &sent[0].1);
        queue.push_data(Rc::clone(&payload), 0, 0);
        queue.push_data(lent(&files, 1, &sent[1].1), 0, 0);
        let reached = Rc::new(RefCell::new(None));
        let (told, count) = (Rc::clone(&reached), files.clone());
        let (received, _) = transmit(driver, queue, move |turn, queue| {
            if turn == 0 {
                *told.borrow_mut() = queue.recall(0);
                assert!(payload.withdraw());
                assert_eq!(count.count(), 1, "the file is closed");
            }
        });
        check_cut_off(&received, &sent, *reached.borrow());
    }
}

#[test]
fn who_reads_late_gets_the_bytes_of_a_chunk_that_is_long_gone() {
    shards::block_on(Driver::Epoll, async {
        let files = files(NO_BOUND);
        let (out, into) = pair();
        let (mut queue, bytes) = (SendQueue::new(), chunk_bytes(3));
        queue.push_preamble();
        queue.push_data(lent(&files, 3, &bytes), 0, 0);
        let mut written = queue.write(&out, u64::MAX).expect("connected");
        assert!(written.lent_bytes > 0, "it is lent");
        let cut_off = queue.recall(3);
        assert_eq!(files.count(), 0, "no send needs the file any more");
        assert!(files.pinned_bytes() > 0, "but the socket refers to it");
        // What comes after it must not lie where its bytes are.
        let others: Vec<_> = (0..50).map(|i| lent(&files, 50 + i, &[0xee; CHUNK])).collect();
        let mut received = Received::default();
        let (mut reader, mut buffer) = (Reader::new(), ReceiveBuffer::new(1));
        let mut all = written.total_bytes;
        loop {
            let mut handler = |event: Event<'_>| {
                received.take(&event);
                Ok::<(), std::convert::Infallible>(())
            };
            match reader.read(&into, &mut buffer, &mut handler).expect("well-formed") {
                ReadOutcome::Read { .. } => {}
                ReadOutcome::Closed => break,
                ReadOutcome::Blocked if queue.is_empty() => {
                    out.shutdown(Shutdown::Write).expect("connected");
                    into.readable().await.expect("a socket");
                }
                ReadOutcome::Blocked => {
                    out.writable().await.expect("a socket");
                    written = queue.write(&out, u64::MAX).expect("connected");
                    all += written.total_bytes;
                }
            }
        }
        check_frames(&received, &[(3, bytes)]);
        let arrived: usize = received.frames.iter().map(|(_, payload)| payload.len()).sum();
        let reached = cut_off.map_or(CHUNK, |cut_off| cut_off.reached_bytes as usize);
        assert!(arrived == reached && all > 0, "{arrived} of {reached}");
        drop(others);
    })
    .expect("the driver runs");
}

#[test]
fn files_are_let_go_of_when_the_kernel_and_the_reader_say_so() {
    shards::block_on(Driver::Epoll, async {
        let files = files(NO_BOUND);
        let (out, into) = pair();
        let mut queue = SendQueue::new();
        let chunks = 0..60;
        for chunk in chunks.clone() {
            queue.push_data(lent(&files, chunk, &chunk_bytes(0)), 0, 0);
        }
        // As much as both sockets hold.
        while !queue.write(&out, u64::MAX).expect("connected").blocked {}
        for chunk in chunks {
            queue.recall(chunk);
        }
        assert_eq!(files.count(), 0, "no send needs a file any more");
        // Its owner claims to have all, and the kernel knows better.
        let claimed = u64::MAX;
        queue.release(&out, claimed);
        assert!(out.unacknowledged_bytes().expect("a socket") > 0, "both sockets are full");
        assert!(queue.is_lending() && files.pinned_bytes() > 0);
        while !queue.is_empty() || out.unacknowledged_bytes().expect("a socket") > 0 {
            let mut some = [0; 4096];
            if into.try_read(&mut some).is_err() {
                into.readable().await.expect("a socket");
            }
            queue.write(&out, u64::MAX).expect("connected");
        }
        // All is acknowledged. On one machine the other socket may still refer to what was not read.
        queue.release(&out, 0);
        assert!(queue.is_lending() && files.pinned_bytes() > 0);
        queue.release(&out, claimed);
        assert!(!queue.is_lending());
        assert_eq!(files.pinned_bytes(), 0);
    })
    .expect("the driver runs");
}

#[test]
fn no_lent_frame_is_begun_beyond_the_window_and_what_was_taken_is_told_before_an_error() {
    shards::block_on(Driver::Epoll, async {
        let files = files(NO_BOUND);
        let (out, into) = pair();
        let mut queue = SendQueue::new();
        queue.push_data(lent(&files, 0, &chunk_bytes(0)), 0, 0);
        assert_eq!(queue.write(&out, 100).expect("connected"), Written::default());
        let frame = FRAME_PAYLOAD_BYTES_MAX as u64;
        let written = queue.write(&out, frame + 100).expect("connected");
        assert!(written.data_bytes > 0 && written.data_bytes <= frame, "{written:?}");
        drop(into);
        let mut taken = written.data_bytes;
        let error = loop {
            match queue.write(&out, u64::MAX) {
                Ok(written) => taken += written.data_bytes,
                Err(error) => break error,
            }
            out.writable().await.expect("a socket");
        };
        assert!(error.kind() != io::ErrorKind::WouldBlock && taken <= CHUNK as u64, "{error}");
    })
    .expect("the driver runs");
}

/// The kernel keeps what is announced as part of more for 200 ms, if nothing comes.
#[test]
fn words_before_a_lent_chunk_that_may_not_go_do_not_wait_for_it() {
    const ATTEMPTS: usize = 20;
    shards::block_on(Driver::Epoll, async {
        let files = files(NO_BOUND);
        let (out, into) = pair();
        let mut queue = SendQueue::new();
        queue.push_data(lent(&files, 0, &chunk_bytes(0)), 0, 0);
        let mut least = Duration::MAX;
        for _ in 0..ATTEMPTS {
            let since = shards::clock::now();
            encode_control(&[1], queue.control_mut());
            let written = queue.write(&out, 0).expect("connected");
            assert!(written.total_bytes > 0 && written.data_bytes == 0, "{written:?}");
            into.readable().await.expect("a socket");
            while into.try_read(&mut [0; 64]).is_ok() {}
            // A busy machine takes its time, but not each time.
            least = least.min(shards::clock::now() - since);
        }
        assert!(least < Duration::from_millis(100), "{least:?}");
    })
    .expect("the driver runs");
}

/// Only a file whose pages can't be brought back can't be read; here it is cut short.
#[test]
fn a_file_that_can_not_be_read_fails_the_write_that_was_promised_its_bytes() {
    shards::block_on(Driver::Epoll, async {
        let files = files(NO_BOUND);
        let (out, into) = pair();
        let mut queue = SendQueue::new();
        let all: Vec<_> = (0..60).map(|chunk| lent(&files, chunk, &chunk_bytes(0))).collect();
        all.iter().for_each(|payload| queue.push_data(Rc::clone(payload), 0, 0));
        loop {
            let is_blocked = queue.write(&out, u64::MAX).expect("connected").blocked;
            let first = queue.sends.front().expect("more than the sockets hold");
            if is_blocked && first.frame_sent > 0 {
                break;
            }
            into.try_read(&mut [0; 5000]).ok();
        }
        for payload in &all {
            let file = payload.lent().expect("in a file").file().as_fd().try_clone_to_owned();
            File::from(file.expect("a descriptor")).set_len(0).expect("a file");
            assert!(payload.part(&(0..10)).is_err(), "datagrams get nothing either");
        }
        while !queue.sends.is_empty() {
            queue.cut_off(0);
        }
        assert!(queue.write(&out, u64::MAX).is_err(), "the rest of a frame was promised");
    })
    .expect("the driver runs");
}

/// However it ends, with a panic as well: what it held goes with it.
#[test]
fn a_connection_that_goes_with_lent_bytes_under_way_lets_go_of_all() {
    shards::block_on(Driver::Epoll, async {
        let files = files(NO_BOUND);
        let (out, into) = pair();
        let mut queue = SendQueue::new();
        (0..60).for_each(|chunk| queue.push_data(lent(&files, chunk, &chunk_bytes(0)), 0, 0));
        while !queue.write(&out, u64::MAX).expect("connected").blocked {}
        assert!(files.pinned_bytes() > 0 && files.count() > 0);
        drop((out, queue, into));
        assert_eq!((files.pinned_bytes(), files.count(), files.bytes()), (0, 0, 0));
    })
    .expect("the driver runs");
}
