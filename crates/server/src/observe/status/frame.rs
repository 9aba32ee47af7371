//! What watchers are told: all of it once, then what changed since the last frame.
//!
//! A frame is one server-sent event whose data is JSON. Rows of maps are bitmaps in base64; a
//! frame of changes carries only rows that changed, and of each only the bytes that did. All text
//! in it is made by the relay: addresses, numbers and words of a closed set; but for labels, which are an
//! origin's and hold nothing that does not show.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use serde::Serialize;

use super::{
    board::{Board, Gone, Life, PeerState, Seen},
    figures::{ShardFigures, Totals},
};
use crate::{message::SwarmRef, observe::snapshot::PeerSnapshot};
use relay_protocol::time::Time;
use relay_swarm::{ChunkPlace, Wait};

/// Swarms of a frame, at most; the totals say how many there are.
const SWARMS_MAX: usize = 24;

/// Waiting peers of a swarm that are named, at most: those that have waited longest.
const TAIL_MAX: usize = 12;

/// Remembers what was told.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    told: BTreeMap<SwarmRef, BTreeMap<u64, Told>>,
    number: u64,
}

/// A row as it was told last.
#[derive(Debug)]
struct Told {
    face: Face,
    bits: Vec<u8>,
    /// Told or confirmed in the frame with this number.
    number: u64,
}

/// What a row says beside its bits.
#[derive(Serialize, Clone, PartialEq, Debug)]
struct Face {
    name: String,
    state: PeerState,
    held: u32,
    origin: bool,
}

#[derive(Serialize)]
struct Frame {
    whole: bool,
    at_ms: u64,
    totals: Totals,
    shards: Vec<ShardFigures>,
    /// Shards of whose swarms nothing is known: they have not answered.
    silent_shards: Vec<usize>,
    swarms: Vec<SwarmFrame>,
}

#[derive(Serialize)]
struct SwarmFrame {
    /// Tells it from all others on the page.
    key: String,
    id: String,
    label: Option<String>,
    size_bytes: u64,
    chunk_size_bytes: u32,
    chunk_count: u32,
    home_shard: usize,
    phase: &'static str,
    ended_ms: Option<u64>,
    peers: usize,
    whole: usize,
    /// Those that get the file, without those that published it: how many, how many have it, and how many
    /// chunks all of them have.
    getters: usize,
    getters_whole: usize,
    getters_held: u64,
    /// Chunks that peers got since it was first looked at.
    gained: u64,
    /// Those that went since it began.
    left: u64,
    dead: u64,
    banned: u64,
    cached_count: u32,
    fetching_count: usize,
    missing_count: u32,
    starving_count: usize,
    stride: u32,
    /// One letter for each shown chunk; see [`letter`].
    places: String,
    cached: Vec<(u32, u32)>,
    rows_order: Option<Vec<u64>>,
    rows: Vec<RowFrame>,
    tail: Vec<TailFrame>,
}

#[derive(Serialize)]
struct RowFrame {
    row: u64,
    #[serde(flatten)]
    face: Face,
    /// First byte that `bits` replaces.
    offset: usize,
    bits: String,
}

#[derive(Serialize)]
struct TailFrame {
    row: u64,
    name: String,
    held: u32,
    idle_ms: u64,
    deliveries: usize,
    #[serde(flatten)]
    why: Why,
}

/// What a peer waits for, in words for programs.
#[derive(Serialize, Debug)]
#[serde(tag = "waits_for", rename_all = "snake_case")]
pub(crate) enum Why {
    Nothing,
    Delivery { chunk: u32 },
    Manifest,
    Spread,
    Credit,
    Missing { chunk: u32, count: u32 },
    Holder { chunk: u32, holder: String, asked_ms: u64 },
    Room,
    Turn,
    End,
}

impl Why {
    pub(crate) fn of(life: &Life, peer: &PeerSnapshot) -> Self {
        let seen = life.peers.get(&peer.connection);
        let is_stalled = seen.is_some_and(|seen| seen.state == PeerState::Stalled);
        match peer.wait {
            Wait::Nothing => Self::Nothing,
            // What is to be delivered to it waits for it.
            Wait::Delivery { .. } if is_stalled => Self::Credit,
            Wait::Delivery { chunk } => Self::Delivery { chunk },
            Wait::Manifest => Self::Manifest,
            Wait::Spread => Self::Spread,
            Wait::Credit => Self::Credit,
            Wait::Missing { chunk, count } => Self::Missing { chunk, count },
            Wait::Holder { chunk, holder, asked } => {
                let holder = life.peer_in(holder).map_or_else(String::new, Seen::name);
                Self::Holder { chunk, holder, asked_ms: milliseconds(asked) }
            }
            Wait::Room => Self::Room,
            Wait::Turn => Self::Turn,
            Wait::End => Self::End,
        }
    }
}

pub(crate) fn milliseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Encoder {
    /// What changed since the last call.
    pub(crate) fn changes(
        &mut self,
        now: Time,
        board: &Board,
        figures: (Totals, Vec<ShardFigures>),
    ) -> Bytes {
        self.frame(now, board, figures, false)
    }

    /// All of it.
    pub(crate) fn whole(
        &mut self,
        now: Time,
        board: &Board,
        figures: (Totals, Vec<ShardFigures>),
    ) -> Bytes {
        self.frame(now, board, figures, true)
    }

    fn frame(
        &mut self,
        now: Time,
        board: &Board,
        figures: (Totals, Vec<ShardFigures>),
        whole: bool,
    ) -> Bytes {
        self.number += 1;
        let shown: Vec<_> = board.swarms().into_iter().take(SWARMS_MAX).collect();
        self.told.retain(|reference, _| shown.iter().any(|(at, _)| at == reference));
        let swarms = shown.into_iter().map(|(reference, life)| {
            let told = self.told.entry(reference).or_default();
            swarm(now, life, reference, told, self.number, whole)
        });
        let frame = Frame {
            whole,
            at_ms: now.0 / 1_000_000,
            swarms: swarms.collect(),
            silent_shards: board.silent_since(Time::ZERO).collect(),
            totals: figures.0,
            shards: figures.1,
        };
        let json = serde_json::to_string(&frame).expect("a frame has nothing that JSON lacks");
        // JSON as it is written here has no line breaks, so one line of data holds it.
        Bytes::from(format!("data: {json}\n\n"))
    }
}

/// How a swarm is named where its file's id alone would not do.
pub(crate) fn swarm_name(life: &Life) -> String {
    let key = &life.swarm.key;
    format!("{}.{}", key.id, key.chunk_size_log2)
}

/// What an origin would have its file called.
pub(crate) fn label(life: &Life) -> Option<String> {
    life.swarm.label.as_deref().map(str::to_owned)
}

/// What a swarm does.
pub(crate) fn phase(life: &Life) -> &'static str {
    let swarm = &life.swarm;
    let chunk_count = swarm.key.chunk_count();
    match () {
        () if life.ended_at.is_some() => "ended",
        () if swarm.is_seeding => "spreading",
        () if !swarm.has_manifest && chunk_count > 0 => "starting",
        () if life.peers.values().all(|seen| seen.chunks_held == chunk_count) => "whole",
        () => "exchanging",
    }
}

/// Connected peers that have the whole file.
pub(crate) fn whole(life: &Life) -> usize {
    let chunk_count = life.swarm.key.chunk_count();
    life.peers.values().filter(|seen| seen.chunks_held == chunk_count).count()
}

/// Connected peers that did not publish the file.
#[derive(Default)]
struct Getters {
    count: usize,
    whole: usize,
    chunks_held: u64,
}

impl Getters {
    fn of(life: &Life) -> Self {
        let mut getters = Self::default();
        let chunk_count = life.swarm.key.chunk_count();
        for seen in life.peers.values().filter(|seen| !seen.is_origin) {
            getters.count += 1;
            getters.whole += usize::from(seen.chunks_held == chunk_count);
            getters.chunks_held += u64::from(seen.chunks_held);
        }
        getters
    }
}

fn swarm(
    now: Time,
    life: &Life,
    reference: SwarmRef,
    told: &mut BTreeMap<u64, Told>,
    number: u64,
    is_whole: bool,
) -> SwarmFrame {
    let swarm = &life.swarm;
    let key = &swarm.key;
    let getters = Getters::of(life);
    let (rows, has_new_rows) = rows(life, told, number, is_whole);
    let is_gone = told.values().any(|told| told.number != number);
    told.retain(|_, told| told.number == number);
    let rows_order = (is_whole || has_new_rows || is_gone).then(|| told.keys().copied().collect());
    // Of a file that has ended the relay holds nothing any more, and no peer waits.
    let alive = life.ended_at.is_none().then_some(swarm);
    let places = alive
        .and_then(|swarm| swarm.map.as_ref())
        .map_or_else(String::new, |map| map.places.iter().map(|&place| letter(place)).collect());
    SwarmFrame {
        key: format!("{}-{}-{}", reference.home.0, reference.index, reference.generation),
        id: key.id.to_string(),
        label: label(life),
        size_bytes: key.size_bytes,
        chunk_size_bytes: key.chunk_size_bytes(),
        chunk_count: key.chunk_count(),
        home_shard: reference.home.index(),
        phase: phase(life),
        ended_ms: life.ended_at.map(|at| milliseconds(now.since(at))),
        peers: life.peers.len(),
        whole: whole(life),
        getters: getters.count,
        getters_whole: getters.whole,
        getters_held: getters.chunks_held,
        gained: life.chunks_gained,
        left: life.endings.left,
        dead: life.endings.dead,
        banned: life.endings.banned,
        cached_count: alive.map_or(0, |swarm| swarm.cached_count),
        fetching_count: alive.map_or(0, |swarm| swarm.fetch_count),
        missing_count: alive.map_or(0, |swarm| swarm.missing_count),
        starving_count: alive.map_or(0, |swarm| swarm.starving_count),
        stride: swarm.map.as_ref().map_or(1, |map| map.stride),
        places,
        cached: alive.map_or_else(Vec::new, |swarm| swarm.cached.clone()),
        rows_order,
        rows,
        tail: tail(life),
    }
}

/// Where a chunk is, in one letter.
fn letter(place: ChunkPlace) -> char {
    match place {
        ChunkPlace::Missing => '!',
        ChunkPlace::Absent => '.',
        ChunkPlace::Fetching => 'f',
        ChunkPlace::Cached => 'c',
        ChunkPlace::Draining => 'd',
    }
}

/// Rows that are to be told, and whether some are new.
fn rows(
    life: &Life,
    told: &mut BTreeMap<u64, Told>,
    number: u64,
    is_whole: bool,
) -> (Vec<RowFrame>, bool) {
    let mut rows = Vec::new();
    let mut has_new = false;
    let Some(map) = &life.swarm.map else { return (rows, has_new) };
    let is_over = life.ended_at.is_some();
    let chunk_count = life.swarm.key.chunk_count();
    for (peer, bits) in life.swarm.peers.iter().zip(map.rows()) {
        let Some(seen) = life.peers.get(&peer.connection) else { continue };
        // The swarm forgets at once what a peer has that it lets go.
        let bits = (peer.wait != Wait::End).then_some(bits);
        has_new |= tell_row(seen, bits, map.row_bytes, told, number, is_whole, &mut rows);
    }
    for Gone { seen, bits, .. } in &life.gone {
        // A peer that came and went unseen has a row if it is known what it had.
        let is_full = seen.chunks_held == chunk_count;
        let full = is_full.then(|| full_row(chunk_count.div_ceil(map.stride)));
        let bits = full.as_deref().or(bits.as_deref());
        if bits.is_some() || told.contains_key(&seen.row) {
            has_new |= tell_row(seen, bits, map.row_bytes, told, number, is_whole, &mut rows);
        }
    }
    debug_assert!(!is_over || life.peers.is_empty(), "nobody is left in a swarm that has ended");
    (rows, has_new)
}

/// Tells of a row what is new, and whether the row is; without `bits` they are as they were.
fn tell_row(
    seen: &Seen,
    bits: Option<&[u8]>,
    row_bytes: usize,
    told: &mut BTreeMap<u64, Told>,
    number: u64,
    is_whole: bool,
    rows: &mut Vec<RowFrame>,
) -> bool {
    let face = face(seen);
    let Some(last) = told.get_mut(&seen.row) else {
        let bits = bits.map_or_else(|| vec![0; row_bytes], <[u8]>::to_vec);
        rows.push(row(seen.row, face.clone(), 0, &bits));
        told.insert(seen.row, Told { face, bits, number });
        return true;
    };
    last.number = number;
    let (start, end) = match bits {
        _ if is_whole => (0, last.bits.len()),
        Some(bits) => changed(&last.bits, bits),
        None => (0, 0),
    };
    if let Some(bits) = bits {
        last.bits[start..end].copy_from_slice(&bits[start..end]);
    }
    if is_whole || start < end || last.face != face {
        rows.push(row(seen.row, face.clone(), start, &last.bits[start..end]));
        last.face = face;
    }
    false
}

/// The row of a peer that has everything.
fn full_row(columns: u32) -> Vec<u8> {
    let mut bits = vec![0xff; columns.div_ceil(8) as usize];
    if let Some(last) = bits.last_mut().filter(|_| !columns.is_multiple_of(8)) {
        *last = (1 << (columns % 8)) - 1;
    }
    bits
}

fn face(seen: &Seen) -> Face {
    let Seen { state, chunks_held, is_origin, .. } = *seen;
    Face { name: seen.name(), state, held: chunks_held, origin: is_origin }
}

fn row(row: u64, face: Face, offset: usize, bits: &[u8]) -> RowFrame {
    RowFrame { row, face, offset, bits: BASE64.encode(bits) }
}

/// The bytes that differ, from the first to the last.
fn changed(old: &[u8], new: &[u8]) -> (usize, usize) {
    let differs = |(a, b): (&u8, &u8)| a != b;
    let start = old.iter().zip(new).position(differs);
    let last = old.iter().zip(new).rposition(differs);
    match (start, last) {
        (Some(start), Some(last)) => (start, last + 1),
        _ => (0, 0),
    }
}

/// Those that lack something, the longest without progress first.
fn tail(life: &Life) -> Vec<TailFrame> {
    if life.ended_at.is_some() {
        return Vec::new();
    }
    let lacks = |peer: &&PeerSnapshot| !matches!(peer.wait, Wait::Nothing | Wait::End);
    let mut waiting: Vec<&PeerSnapshot> = life.swarm.peers.iter().filter(lacks).collect();
    waiting.sort_by_key(|peer| (std::cmp::Reverse(peer.idle), peer.slot));
    let tell = |peer: &PeerSnapshot| {
        let seen = life.peers.get(&peer.connection)?;
        Some(TailFrame {
            row: seen.row,
            name: seen.name(),
            held: peer.chunks_held,
            idle_ms: milliseconds(peer.idle),
            deliveries: peer.deliveries,
            why: Why::of(life, peer),
        })
    };
    waiting.into_iter().take(TAIL_MAX).filter_map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::{changed, full_row};

    #[test]
    fn a_full_row_has_a_bit_for_each_column_and_no_more() {
        assert!(full_row(0).is_empty());
        assert_eq!(full_row(1), [1]);
        assert_eq!(full_row(8), [0xff]);
        assert_eq!(full_row(11), [0xff, 7]);
    }

    #[test]
    fn only_the_bytes_that_differ_are_sent() {
        assert_eq!(changed(&[1, 2, 3], &[1, 2, 3]), (0, 0));
        assert_eq!(changed(&[1, 2, 3], &[1, 5, 3]), (1, 2));
        assert_eq!(changed(&[1, 2, 3, 4], &[0, 2, 5, 4]), (0, 3));
        assert_eq!(changed(&[], &[]), (0, 0));
    }
}
