//! What crosses a bridge, what is refused, and that all room comes back.

use std::collections::BTreeSet;

use relay_protocol::rng::Rng;

use super::*;
use crate::bridge::room::Shelf;

const CHUNKS: u32 = 6;

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

fn ranges(first: u32, count: u32) -> [ChunkRange; 1] {
    [ChunkRange { first, count }]
}

/// Both ends connected, room for so many chunks.
fn bridge(room: u64) -> (Crossing, Shelf) {
    let mut crossing = Crossing::new(CHUNKS);
    Side::BOTH.into_iter().for_each(|side| crossing.handle_connected(side));
    (crossing, Shelf::new(room))
}

fn wishes(crossing: &mut Crossing, shelf: &Shelf, now: Time) -> Vec<Wish> {
    std::iter::from_fn(|| crossing.poll_wish(now, |_| shelf.place(1))).collect()
}

fn fetch(crossing: &mut Crossing, side: Side, tag: u32, chunk: u32) -> bool {
    crossing.handle_fetch(Waiting { side, tag, chunk })
}

fn refused(crossing: &mut Crossing) -> Vec<u32> {
    std::iter::from_fn(|| crossing.poll_refused()).map(|waiting| waiting.tag).collect()
}

#[test]
fn a_chunk_crosses_for_all_fetches_that_wait_and_gives_its_room_back() {
    let (mut crossing, shelf) = bridge(1);
    crossing.handle_available(Side::Up, &ranges(0, 3), true);
    assert_eq!(crossing.poll_claims(Side::Down).map(|claims| claims.count()), Some(3));
    assert_eq!(crossing.poll_claims(Side::Down), None);
    for (tag, chunk) in [(1, 2), (2, 0), (3, 2)] {
        assert!(fetch(&mut crossing, Side::Down, tag, chunk));
    }
    assert_eq!(wishes(&mut crossing, &shelf, at(0)), [Wish::Name(Side::Up, 2)]);
    assert!(crossing.waits_for_room());
    let (tags, place) = crossing.handle_came(Side::Up, 2);
    assert_eq!(tags, [1, 3]);
    assert_eq!(wishes(&mut crossing, &shelf, at(0)), [], "the chunk is still there");
    drop(place);
    assert_eq!(wishes(&mut crossing, &shelf, at(0)), [Wish::Name(Side::Up, 0)]);
    assert!(!crossing.waits_for_room() && crossing.is_busy());
}

#[test]
fn what_the_other_relay_does_not_hold_is_refused_at_once_or_when_it_goes() {
    let (mut crossing, shelf) = bridge(9);
    assert!(!fetch(&mut crossing, Side::Up, 1, 4));
    crossing.handle_available(Side::Down, &ranges(4, 2), true);
    assert!(fetch(&mut crossing, Side::Up, 2, 4) && fetch(&mut crossing, Side::Up, 3, 5));
    let named = [Wish::Name(Side::Down, 4), Wish::Name(Side::Down, 5)];
    assert_eq!(wishes(&mut crossing, &shelf, at(0)), named);
    crossing.handle_available(Side::Down, &ranges(5, 1), false);
    assert_eq!(refused(&mut crossing), [3]);
    assert_eq!(wishes(&mut crossing, &shelf, at(0)), [Wish::Forget(Side::Down, 5)]);
    crossing.handle_time(at(59));
    assert!(crossing.is_busy());
    crossing.handle_time(at(60));
    assert_eq!(refused(&mut crossing), [2], "it takes too long");
    assert_eq!(shelf.used_bytes(), 0);
}

#[test]
fn a_relay_that_goes_takes_its_fetches_and_its_chunks_along() {
    let (mut crossing, shelf) = bridge(9);
    for side in Side::BOTH {
        crossing.handle_available(side, &ranges(0, CHUNKS), true);
    }
    assert!(Side::BOTH.into_iter().all(|side| fetch(&mut crossing, side, 1, 1)));
    assert_eq!(wishes(&mut crossing, &shelf, at(0)).len(), 2);
    crossing.handle_disconnected(Side::Up);
    assert_eq!(refused(&mut crossing), [1], "what came from there");
    crossing.handle_fetches_lost(Side::Up);
    assert_eq!(refused(&mut crossing), [1], "what went there");
    assert_eq!(wishes(&mut crossing, &shelf, at(0)), [Wish::Forget(Side::Down, 1)]);
    assert_eq!(crossing.poll_claims(Side::Down).map(|claims| claims.count()), Some(0));
    assert_eq!(shelf.used_bytes(), 0);
    assert!(!crossing.is_connected(Side::Up) && !crossing.has_something(Side::Up));
    // Another relay may answer at the address: what the first one held counts for nothing.
    crossing.handle_connected(Side::Up);
    assert!(!fetch(&mut crossing, Side::Down, 2, 1));
}

#[test]
fn ranges_beyond_the_file_and_before_a_connection_do_no_harm() {
    let mut crossing = Crossing::new(CHUNKS);
    crossing.handle_available(Side::Up, &ranges(0, 1), true);
    assert!(!crossing.has_something(Side::Up));
    crossing.handle_connected(Side::Up);
    crossing.handle_available(Side::Up, &ranges(4, u32::MAX), true);
    crossing.handle_available(Side::Up, &ranges(u32::MAX, 7), true);
    assert_eq!(crossing.end(Side::Up).held.as_ref().map(Bitfield::count), Some(2));
}

/// One of so many.
fn pick(rng: &mut Rng, count: usize) -> usize {
    usize::try_from(rng.below(count as u64)).expect("less than that")
}

#[test]
fn every_fetch_is_answered_or_refused_once_and_all_room_comes_back() {
    for seed in 0..500 {
        let mut rng = Rng::new(seed, 0);
        let (mut crossing, shelf) = bridge(rng.below(4));
        let mut open: BTreeSet<(bool, u32)> = BTreeSet::new();
        let mut named: Vec<(Side, u32)> = Vec::new();
        for tag in 0..200 {
            let side = Side::BOTH[pick(&mut rng, 2)];
            let chunk = u32::try_from(rng.below(CHUNKS.into())).expect("a chunk");
            let now = at(u64::from(tag));
            match rng.below(9) {
                0 => {
                    crossing.handle_disconnected(side);
                    crossing.handle_fetches_lost(side);
                    named.retain(|&(other, _)| other != side);
                    crossing.handle_connected(side);
                }
                1 => crossing.handle_available(side, &ranges(chunk, 1), false),
                2..5 => crossing.handle_available(side, &ranges(0, CHUNKS), true),
                5 => crossing.handle_time(now),
                6 if !named.is_empty() => {
                    let (side, chunk) = named.swap_remove(pick(&mut rng, named.len()));
                    for tag in crossing.handle_came(side, chunk).0 {
                        assert!(open.remove(&(side.other() == Side::Up, tag)));
                    }
                }
                _ => {
                    if fetch(&mut crossing, side, tag, chunk) {
                        assert!(open.insert((side == Side::Up, tag)));
                    }
                }
            }
            while let Some(Waiting { side, tag, .. }) = crossing.poll_refused() {
                assert!(open.remove(&(side == Side::Up, tag)));
            }
            for wish in wishes(&mut crossing, &shelf, now) {
                match wish {
                    Wish::Name(side, chunk) => named.push((side, chunk)),
                    Wish::Forget(side, chunk) => named.retain(|&it| it != (side, chunk)),
                }
            }
            assert_eq!(crossing.is_busy(), !named.is_empty());
        }
        for side in Side::BOTH {
            crossing.handle_disconnected(side);
            crossing.handle_fetches_lost(side);
        }
        while let Some(Waiting { side, tag, .. }) = crossing.poll_refused() {
            assert!(open.remove(&(side == Side::Up, tag)));
        }
        assert!(open.is_empty() && shelf.used_bytes() == 0, "seed {seed}");
    }
}
