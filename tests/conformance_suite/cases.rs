//! The cases: each is a promise of the contract.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use relay::{
    protocol::{
        ChunkRange, Failure, FailureCode, Message,
        limits::{
            CHUNK_COUNT_MAX, CHUNK_SIZE_LOG2_MAX, FRAME_PAYLOAD_BYTES_MAX, FRAME_PAYLOAD_LEN_MAX,
            WANT_CHUNKS_MAX,
        },
    },
    transport::{Payload, SendEvent, send_queue::CutOff},
};

use super::{End, Kind, on_drivers, until};

const CHUNK: usize = 5 * FRAME_PAYLOAD_BYTES_MAX + 77;

/// More than sockets take without a reader.
const MUCH: usize = 16 << 20;

fn content(seed: u32, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn payload(chunk: u32, len: usize) -> Rc<Payload> {
    Payload::with_crcs_of(chunk, content(chunk, len))
}

fn have(chunk: u32) -> Message {
    Message::Have { ranges: vec![ChunkRange { first: chunk, count: 1 }] }
}

/// A message that fills a way quickly.
fn bulky(number: u32) -> Message {
    Message::Want { chunks: vec![number; WANT_CHUNKS_MAX] }
}

fn fetch(fetch_id: u32) -> Message {
    Message::Fetch { fetch_id, chunk: 0 }
}

fn progress(received_bytes: u64) -> Message {
    Message::Progress { received_bytes, granted_bytes: u64::MAX }
}

/// What is to be tested of two ends.
type Case<F> = fn(Box<dyn End>, Box<dyn End>, &'static Kind) -> F;

fn case<F: Future<Output = ()> + 'static>(kind: &'static Kind, case: Case<F>) {
    println!("{}", kind.name);
    on_drivers(|| async move {
        let (near, far) = (kind.pair)();
        case(near, far, kind).await;
    });
}

/// Writes without the other side reading, until nothing more is taken; file bytes written.
fn fill(end: &mut dyn End) -> u64 {
    let mut written = 0;
    loop {
        match end.write(u64::MAX) {
            (_, false) => return written,
            (bytes, true) => written += bytes,
        }
    }
}

pub(crate) fn messages_come_once_and_in_order(kind: &'static Kind) {
    case(kind, |mut near, mut far, _| async move {
        for number in 0..500 {
            near.push_control(&have(number));
            far.push_control(&Message::Lacking { chunk: number });
        }
        until((&mut *near, &mut *far), "all messages", |near, far| {
            near.heard().messages.len() >= 500 && far.heard().messages.len() >= 500
        })
        .await;
        let lacking = |chunk| Message::Lacking { chunk };
        assert_eq!(far.heard().messages, (0..500).map(have).collect::<Vec<_>>());
        assert_eq!(near.heard().messages, (0..500).map(lacking).collect::<Vec<_>>());
    });
}

pub(crate) fn prompt_messages_come_once_and_the_newest_progress_comes(kind: &'static Kind) {
    case(kind, |mut near, mut far, _| async move {
        for number in 0..100 {
            near.push_control(&progress(number));
            near.push_control(&fetch(u32::try_from(number).expect("small")));
        }
        until((&mut *near, &mut *far), "the last of each", |_, far| {
            let messages = &far.heard().messages;
            messages.contains(&progress(99)) && (0..100).all(|id| messages.contains(&fetch(id)))
        })
        .await;
        let is_fetch = |message: &&Message| matches!(message, Message::Fetch { .. });
        assert_eq!(far.heard().messages.iter().filter(is_fetch).count(), 100, "each once");
    });
}

pub(crate) fn a_message_never_waits_behind_data_not_yet_given_to_the_kernel(kind: &'static Kind) {
    case(kind, |mut near, mut far, _| async move {
        near.push_data(payload(0, MUCH), 7, 0);
        let written = fill(&mut *near);
        assert!(written < MUCH as u64, "more than the kernel takes");
        near.push_control(&fetch(1));
        until((&mut *near, &mut *far), "the chunk and the message", |_, far| {
            far.heard().data_bytes() == MUCH as u64 && !far.heard().messages.is_empty()
        })
        .await;
        let ahead = far.heard().frames.iter().filter(|frame| frame.messages_before == 0);
        let ahead: u64 = ahead.map(|frame| frame.bytes.len() as u64).sum();
        // The frame under way is finished first.
        let most = written + FRAME_PAYLOAD_BYTES_MAX as u64;
        assert!(ahead <= most, "{ahead} bytes before it, {written} had been written");
    });
}

pub(crate) fn chunks_of_every_length_come_byte_exact(kind: &'static Kind) {
    case(kind, |mut near, mut far, kind| async move {
        let frame = FRAME_PAYLOAD_BYTES_MAX;
        let lengths = [1, 2, 1023, frame - 1, frame, frame + 1, CHUNK, 1 << CHUNK_SIZE_LOG2_MAX, 1];
        for (chunk, &len) in (0..).zip(&lengths) {
            near.push_data(payload(chunk, len), 100 + chunk, 0);
        }
        let total: u64 = lengths.iter().map(|&len| len as u64).sum();
        until((&mut *near, &mut *far), "all chunks", |near, far| {
            near.is_empty() && far.heard().data_bytes() >= total
        })
        .await;
        for (chunk, &len) in (0..).zip(&lengths) {
            let came = far.heard().prefix(100 + chunk, 0);
            assert!(came == content(chunk, len), "chunk {chunk} of {len} bytes");
        }
        for frame in &far.heard().frames {
            let header = &frame.header;
            assert_eq!(header.chunk, header.tag - 100);
            assert_eq!(relay::protocol::frame_crc(&frame.bytes), header.checksum);
        }
        if kind.is_data_ordered {
            let once: u64 = far.heard().frames.iter().map(|f| f.bytes.len() as u64).sum();
            assert_eq!(once, total, "nothing comes twice");
            let order: Vec<_> =
                far.heard().frames.iter().map(|f| (f.header.tag, f.header.offset)).collect();
            assert!(order.is_sorted(), "{order:?}");
        }
    });
}

pub(crate) fn a_send_may_begin_at_any_frame(kind: &'static Kind) {
    case(kind, |mut near, mut far, _| async move {
        let offset = 3 * FRAME_PAYLOAD_LEN_MAX;
        near.push_data(payload(0, CHUNK), 1, offset);
        let rest = CHUNK - offset as usize;
        until((&mut *near, &mut *far), "the rest", |_, far| {
            far.heard().data_bytes() >= rest as u64
        })
        .await;
        let came = far.heard().prefix(1, offset);
        assert!(came == content(0, CHUNK)[offset as usize..]);
    });
}

pub(crate) fn every_send_begins_and_finishes_in_the_order_in_which_it_was_pushed(
    kind: &'static Kind,
) {
    case(kind, |mut near, mut far, _| async move {
        for chunk in 0..20 {
            near.push_data(payload(chunk, CHUNK), chunk, 0);
        }
        until((&mut *near, &mut *far), "all chunks", |near, far| {
            near.is_empty() && far.heard().data_bytes() >= 20 * CHUNK as u64
        })
        .await;
        let events: Vec<_> = std::iter::from_fn(|| near.poll_event()).collect();
        let begun = |chunk| SendEvent::Begun { chunk, tag: chunk };
        let finished = |chunk| SendEvent::Finished { chunk, tag: chunk };
        let is_begun = |event: &&SendEvent| matches!(event, SendEvent::Begun { .. });
        let (first, last): (Vec<&SendEvent>, Vec<_>) = events.iter().partition(is_begun);
        assert!(first.into_iter().copied().eq((0..20).map(begun)), "{events:?}");
        assert!(last.into_iter().copied().eq((0..20).map(finished)), "{events:?}");
        for chunk in 0..20 {
            let at = |wanted: SendEvent| events.iter().position(|event| *event == wanted);
            assert!(at(begun(chunk)) < at(finished(chunk)), "{events:?}");
        }
    });
}

pub(crate) fn no_frame_is_begun_beyond_what_is_allowed_and_messages_are(kind: &'static Kind) {
    case(kind, |mut near, mut far, _| async move {
        near.push_data(payload(0, CHUNK), 1, 0);
        near.push_control(&fetch(1));
        let frame = u64::from(FRAME_PAYLOAD_LEN_MAX);
        for allowed in [0, frame - 1] {
            assert_eq!(near.write(allowed).0, 0);
        }
        let written = near.write(2 * frame + 5).0;
        assert!(written <= 2 * frame, "{written}");
        // Only its own writes are left to bring it: no data is allowed meanwhile.
        let came = Rc::new(Cell::new(false));
        for _ in 0..60_000 {
            near.write(0);
            far.read();
            far.write(0);
            near.read();
            if !far.heard().messages.is_empty() {
                came.set(true);
                break;
            }
            shards::clock::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert!(came.get(), "a message needs no allowance");
        assert!(far.heard().data_bytes() <= 2 * frame);
    });
}

pub(crate) fn who_does_not_read_takes_nothing_more_and_loses_nothing(kind: &'static Kind) {
    case(kind, |mut near, mut far, _| async move {
        near.push_data(payload(0, MUCH), 1, 0);
        fill(&mut *near);
        let mut count = 0;
        // Messages pile up where they can be counted, once the way is full.
        while near.control_bytes() < 64 << 10 {
            near.push_control(&bulky(count));
            fill(&mut *near);
            count += 1;
            assert!(count < CHUNK_COUNT_MAX, "what waits is not counted");
        }
        assert_eq!(far.heard().messages.len(), 0);
        until((&mut *near, &mut *far), "everything", |_, far| {
            far.heard().messages.len() >= count as usize && far.heard().data_bytes() >= MUCH as u64
        })
        .await;
        assert!(far.heard().messages.iter().eq(&(0..count).map(bulky).collect::<Vec<_>>()));
        assert_eq!(near.control_bytes(), 0);
    });
}

pub(crate) fn what_is_cancelled_before_it_began_never_comes_and_is_not_heard_of(
    kind: &'static Kind,
) {
    case(kind, |mut near, mut far, _| async move {
        for chunk in 0..3 {
            near.push_data(payload(chunk, CHUNK), chunk, 0);
        }
        let cut = near.cancel(1).expect("it is there");
        assert_eq!((cut.chunk, cut.tag, cut.reached_bytes), (1, 1, 0));
        assert_eq!(near.cancel(1), None, "it is there no longer");
        near.push_data(payload(3, 1), 3, 0);
        until((&mut *near, &mut *far), "the others", |_, far| {
            far.heard().data_bytes() > 2 * CHUNK as u64
        })
        .await;
        assert!(far.heard().frames.iter().all(|frame| frame.header.tag != 1));
        let names_it = |event| {
            matches!(event, SendEvent::Begun { tag: 1, .. } | SendEvent::Finished { tag: 1, .. })
        };
        assert!(!std::iter::from_fn(|| near.poll_event()).any(names_it));
    });
}

pub(crate) fn what_is_cut_off_under_way_comes_as_far_as_was_said(kind: &'static Kind) {
    case(kind, |mut near, mut far, kind| async move {
        near.push_data(payload(0, MUCH), 0, 0);
        let written = fill(&mut *near);
        assert!(written > 0);
        let cut = near.recall(0).expect("it is under way");
        let reached = u64::from(cut.reached_bytes);
        assert!(reached < written + FRAME_PAYLOAD_BYTES_MAX as u64);
        near.push_data(payload(1, CHUNK), 1, 0);
        until((&mut *near, &mut *far), "what follows", |_, far| {
            far.heard().prefix(1, 0).len() == CHUNK
        })
        .await;
        assert_came(&*far, &cut);
        if kind.is_data_ordered {
            assert!(reached >= written, "on a stream all that was written comes");
            assert_eq!(far.heard().prefix(0, 0).len() as u64, reached);
        }
        assert!(far.heard().prefix(1, 0) == content(1, CHUNK));
    });
}

/// All that was said to have come of the first send has come, and all that came is right.
fn assert_came(far: &dyn End, cut: &CutOff) {
    let came = far.heard().prefix(0, 0);
    assert!(came.len() >= cut.reached_bytes as usize, "{} bytes of {cut:?}", came.len());
    assert!(came == content(0, MUCH)[..came.len()]);
}

/// Chunk bytes that tell when they are freed.
struct Watched(Bytes, Arc<AtomicBool>);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn withdrawn_bytes_are_free_at_once_though_nobody_reads(kind: &'static Kind) {
    case(kind, |mut near, mut far, _| async move {
        let is_free = Arc::new(AtomicBool::new(false));
        let watched = Watched(content(0, MUCH), Arc::clone(&is_free));
        let shared = Payload::with_crcs_of(0, Bytes::from_owner(watched));
        near.push_data(Rc::clone(&shared), 0, 0);
        near.push_data(payload(1, CHUNK), 1, 0);
        fill(&mut *near);
        assert!(!is_free.load(Ordering::SeqCst));
        let cut = near.recall(0).expect("it is under way");
        assert!(shared.withdraw());
        assert!(is_free.load(Ordering::SeqCst), "nothing is pinned between calls");
        until((&mut *near, &mut *far), "what was begun, and the next", |_, far| {
            far.heard().prefix(1, 0).len() == CHUNK
        })
        .await;
        assert_came(&*far, &cut);
    });
}

pub(crate) fn what_was_all_sent_is_pinned_no_longer(kind: &'static Kind) {
    case(kind, |mut near, mut far, _| async move {
        let is_free = Arc::new(AtomicBool::new(false));
        let watched = Watched(content(0, CHUNK), Arc::clone(&is_free));
        near.push_data(Payload::with_crcs_of(0, Bytes::from_owner(watched)), 0, 0);
        until((&mut *near, &mut *far), "the chunk", |near, far| {
            far.heard().data_bytes() >= CHUNK as u64 && near.is_empty()
        })
        .await;
        assert!(is_free.load(Ordering::SeqCst));
    });
}

pub(crate) fn the_end_comes_after_everything_before_it(kind: &'static Kind) {
    case(kind, |mut near, mut far, _| async move {
        let text = "closing".to_owned();
        let failure = Message::Failure(Failure { code: FailureCode::ShuttingDown, text });
        near.push_data(payload(0, CHUNK), 0, 0);
        until((&mut *near, &mut *far), "the chunk", |near, far| {
            near.is_empty() && far.heard().data_bytes() >= CHUNK as u64
        })
        .await;
        near.push_control(&failure);
        while near.control_bytes() > 0 {
            near.write(0);
        }
        near.shut();
        until((&mut *near, &mut *far), "the end", |_, far| far.heard().is_closed).await;
        assert_eq!(far.heard().messages.last(), Some(&failure));
    });
}

pub(crate) fn one_direction_may_end_before_the_other(kind: &'static Kind) {
    case(kind, |mut near, mut far, kind| async move {
        near.shut_write();
        until((&mut *near, &mut *far), "the end", |_, far| far.heard().is_closed).await;
        far.push_control(&have(1));
        // Data in datagrams is acknowledged the other way, which has ended.
        let much = if kind.is_data_ordered { MUCH } else { 0 };
        if much > 0 {
            far.push_data(payload(0, much), 0, 0);
        }
        until((&mut *near, &mut *far), "what still comes", |near, far| {
            let heard = near.heard();
            heard.data_bytes() == much as u64 && !heard.messages.is_empty() && far.is_empty()
        })
        .await;
        assert!(near.heard().prefix(0, 0) == content(0, MUCH)[..much]);
        assert!(!near.heard().is_closed);
        far.shut_write();
        until((&mut *near, &mut *far), "the other end", |near, _| near.heard().is_closed).await;
    });
}

pub(crate) fn both_directions_flow_at_once(kind: &'static Kind) {
    case(kind, |mut near, mut far, _| async move {
        near.push_data(payload(0, MUCH), 0, 0);
        far.push_data(payload(1, MUCH), 1, 0);
        for number in 0..200 {
            near.push_control(&have(number));
            far.push_control(&have(number));
        }
        until((&mut *near, &mut *far), "everything", |near, far| {
            [near.heard(), far.heard()]
                .iter()
                .all(|heard| heard.data_bytes() >= MUCH as u64 && heard.messages.len() >= 200)
        })
        .await;
        assert!(far.heard().prefix(0, 0) == content(0, MUCH));
        assert!(near.heard().prefix(1, 0) == content(1, MUCH));
    });
}
